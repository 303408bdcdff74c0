"""Table 2: inpainting and outpainting, measured on the composites."""

import pandas as pd

from analysis.exhibits.base import Table
from analysis.exhibits.findings import Measured, contrast
from analysis.exhibits.formatting import extent, listed, number, printed, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import measure_note, metric_label
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import beside, over_seeds
from pipeline.config.params import Params

TASKS = {
    "inpaint_center": "inpainting, centre 50% × 50%",
    "outpaint_right": "outpainting, right 50%",
    "outpaint_left": "outpainting, left 50%",
    "outpaint_top": "outpainting, top 50%",
    "outpaint_bottom": "outpainting, bottom 50%",
}
FLOOR = "nearest pixel (floor)"
METHODS = {"maskgit": "MaskGIT", "nearest": FLOOR}


def table(results: Results, params: Params) -> Table:
    """Every task and method in a row, then the paper's other models."""
    fid, is_ = results.metric("fid"), results.metric("is")
    cells = beside(_measured(results), _printed(), ["task", "model"])
    order = [list(TASKS).index(task) for task in cells["task"]]
    cells = cells.iloc[pd.Series(order).argsort(kind="stable")].reset_index(drop=True)
    inpaint, outpaint = (paper.TABLE_2[task]["MaskGIT"] for task in paper.TABLE_2)
    return Table(
        name="table2",
        title="Table 2: inpainting and outpainting, beside the paper's",
        cells=cells,
        readable=pd.DataFrame(
            {
                "task": cells["task"].map(TASKS),
                "model": cells["model"],
                metric_label(fid, results.extractor): spreads(cells, fid),
                paper.FID: printed(cells["paper_fid_inception"], 2),
                metric_label(is_, results.extractor): spreads(cells, is_),
                paper.IS: printed(cells["paper_is_inception"], 2),
                "recognised": spreads(cells, "class_accuracy"),
            }
        ),
        notes=_notes(results, cells, params),
        paper=f"without any training for it MaskGIT comes close to the best dedicated model at "
        f"inpainting (FID (Inception) {inpaint.fid} against CoModGAN's "
        f"{paper.TABLE_2['inpaint_center']['CoModGAN'].fid}) and beats all at outpainting "
        f"({outpaint.fid}; Boundless {paper.TABLE_2['outpaint_right']['Boundless (TF)'].fid:.2f}).",
        here=_findings(cells, results),
        files=["editing/rows.csv"],
    )


def _measured(results: Results) -> pd.DataFrame:
    metrics = [results.metric("fid"), results.metric("is"), "class_accuracy"]
    means = over_seeds(results.editing, ["task", "method"], [*metrics, "images"])
    means = means.rename(columns={"images_mean": "images"}).drop(columns="images_std")
    means["method"] = means["method"].map(METHODS)
    return means.rename(columns={"method": "model"})


def _printed() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": task,
            "model": model,
            "paper_fid_inception": score.fid,
            "paper_is_inception": score.is_,
        }
        for task, scores in paper.TABLE_2.items()
        for model, score in scores.items()
    )


def _notes(results: Results, cells: pd.DataFrame, params: Params) -> list[str]:
    rows, x = results.editing, results.extractor
    seeds = int(cells["seeds"].max())
    over = f"mean ± sample standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    return [
        f"FID ({x}) and IS ({x}) of {extent(rows['images'])} composites, the generated part "
        f"blended into validation images; {over}. The floor gives every unknown pixel the value "
        f"of the nearest known one. The model is told the class. {measure_note(params, x)}",
        "Columns marked (paper …) are the paper's Table 2, of a model of Places2 (it does not say "
        "whether with classes): inpainting of its validation images, outpainting of the images of "
        "InfinityGAN's and In&Out's authors. Compare orderings, not values.",
    ]


def _findings(cells: pd.DataFrame, results: Results) -> list[str]:
    fid = results.metric("fid")
    label = metric_label(fid, results.extractor)
    known = cells[cells[f"{fid}_mean"].notna()]
    ours, floor = (known[known["model"] == name].set_index("task") for name in ("MaskGIT", FLOOR))
    tasks = [task for task in TASKS if task in ours.index and task in floor.index]
    if not tasks:
        return [f"{label}: the composites are too few for it."]
    won = [t for t in tasks if ours.loc[t, f"{fid}_mean"] < floor.loc[t, f"{fid}_mean"]]
    found = [
        f"By {label} MaskGIT is better than the floor in **{len(won)} of {len(tasks)} tasks** here."
    ]
    found += [
        contrast(
            f"{TASKS[task][0].upper()}{TASKS[task][1:]}, {label}",
            Measured("MaskGIT", ours.loc[task, f"{fid}_mean"], ours.loc[task, f"{fid}_std"]),
            Measured("the floor", floor.loc[task, f"{fid}_mean"], 0.0),  # no seed changes it
            lower_is_better=True,
            paper_has_first_better=False,
        )
        for task in tasks
        if task in paper.TABLE_2
    ]
    sides = [task for task in tasks if task.startswith("outpaint")]
    if len(sides) > 1:
        each = [f"{task.split('_')[1]} {number(ours.loc[task, f'{fid}_mean'])}" for task in sides]
        found.append(f"MaskGIT's {label} by the side that is outpainted: {listed(each)}.")
    return found
