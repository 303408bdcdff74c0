"""Table 2: inpainting and outpainting, measured on the composites."""

import pandas as pd

from analysis.exhibits import claims, intervals
from analysis.exhibits.base import Table
from analysis.exhibits.formatting import extent, listed, number, printed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import EDITS, measure_note, metric_label
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import beside, over_seeds
from pipeline.config.params import Params

FLOOR = "nearest pixel (floor)"
ORIGINAL = "the images themselves"
METHODS = {"maskgit": "MaskGIT", "nearest": FLOOR, "original": ORIGINAL}


def table(results: Results, params: Params) -> Table:
    """Every task and method in a row, then the paper's other models."""
    cells = beside(_measured(results), _printed(), ["task", "model"])
    order = [list(EDITS).index(task) for task in cells["task"]]
    cells = cells.iloc[pd.Series(order).argsort(kind="stable")].reset_index(drop=True)
    inpaint, outpaint = (paper.TABLE_2[task]["MaskGIT"] for task in paper.TABLE_2)
    return Table(
        name="table2",
        title="Table 2: inpainting and outpainting, beside the paper's",
        cells=cells,
        readable=_readable(cells, results, params),
        notes=_notes(results, params),
        paper=f"without any training for it MaskGIT comes close to the best dedicated model at "
        f"inpainting (FID (Inception) {inpaint.fid} against CoModGAN's "
        f"{paper.TABLE_2['inpaint_center']['CoModGAN'].fid}) and beats all at outpainting "
        f"({outpaint.fid}; Boundless {paper.TABLE_2['outpaint_right']['Boundless (TF)'].fid:.2f}).",
        here=claims.sentences(results, params, "table2-table") + _facts(cells, results),
        files=["editing/rows.csv"],
    )


def _readable(cells: pd.DataFrame, results: Results, params: Params) -> pd.DataFrame:
    over = intervals.seeds_of(cells["seeds"], params)

    def ours(metric: str, label: str) -> dict[str, list[str]]:
        return {intervals.heading(label, over): intervals.column(cells, metric)}

    fid, is_, x = results.metric("fid"), results.metric("is"), results.extractor
    columns = {
        "task": cells["task"].map(EDITS),
        "model": cells["model"],
        **ours(fid, intervals.counted_label(fid, x, cells["images"])),
        paper.FID: printed(cells["paper_fid_inception"], 2),
        **ours(is_, metric_label(is_, x)),
        paper.IS: printed(cells["paper_is_inception"], 2),
        **ours("class_accuracy", "recognised"),
        **ours("psnr_hole", "PSNR on the hole (dB)"),
        **ours("perceptual_hole", f"distance on the hole ({params.tokenizer.perceptual})"),
    }
    return pd.DataFrame(columns)


def _measured(results: Results) -> pd.DataFrame:
    """Means over seeds, for every task of MaskGIT, then the floor, then the images themselves."""
    metrics = [results.metric("fid"), results.metric("is"), "class_accuracy"]
    metrics += ["psnr_hole", "perceptual_hole", "images"]
    means = over_seeds(results.editing, ["task", "method"], metrics)
    means = means.rename(columns={"images_mean": "images"})
    means = means.drop(columns=["images_std", "images_ci95"])
    rank = means["method"].map({name: place for place, name in enumerate(METHODS)})
    means = means.iloc[rank.argsort(kind="stable")].reset_index(drop=True)
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


def _notes(results: Results, params: Params) -> list[str]:
    rows, x = results.editing, results.extractor
    return [
        f"FID ({x}) and IS ({x}) of {extent(rows['images'])} composites, the generated part "
        "blended into validation images. Floor and originals have no seed and no ±. "
        "The images are the same for all seeds, so that the ± leaves out which images were taken, "
        "the larger source for sets this small. The floor gives every unknown pixel the value "
        f"of the nearest known one. The model is told the class. {measure_note(params, x)}",
        f"FID ({x}) of the images themselves, unedited, is what so few images have. PSNR and the "
        "perceptual distance are from them to the composites over the unknown pixels alone, mean "
        f"over images; the distance is that of {params.tokenizer.perceptual} features by place.",
        "Columns marked (paper …) are the paper's Table 2, of a model of Places2 (it does not say "
        "whether with classes): inpainting of its validation images, outpainting of the images of "
        "InfinityGAN's and In&Out's authors. Compare orderings, not values.",
    ]


def _facts(cells: pd.DataFrame, results: Results) -> list[str]:
    """The sides that are outpainted, beside the same images untouched."""
    fid = results.metric("fid")
    known = cells[cells[f"{fid}_mean"].notna()].set_index(["model", "task"])[f"{fid}_mean"]
    sides = [task for task in EDITS if task != "inpaint_center" and ("MaskGIT", task) in known]
    each = [f"{task.split('_')[1]} {number(known['MaskGIT', task])}" for task in sides]
    if not each:
        return []
    untouched = known[ORIGINAL].mean() if ORIGINAL in known else float("nan")
    return [
        f"MaskGIT's {metric_label(fid, results.extractor)} by the side that is outpainted: "
        f"{listed(each)}; of the images untouched {number(untouched)}."
    ]
