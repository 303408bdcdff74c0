"""Classifier-based rejection sampling (Table 4), and random selections of the same size."""

import pandas as pd

from analysis.exhibits import paper
from analysis.exhibits.base import Table
from analysis.exhibits.claims import Claim, by_pairs
from analysis.exhibits.formatting import NONE, columns, count, percent, printed, seeds_of
from analysis.exhibits.results import MODELS, Results, measure_note, metric_label, neighbour_metrics
from analysis.exhibits.statistics import beside, by_seed, over_seeds, with_real_images
from pipeline.config.params import Params

KEYS = ["model", "selection", "acceptance"]
SELECTS = "the same classifier selects the samples"


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims that compare MaskGIT's highest rated samples with randomly selected samples."""
    rows, share = _smallest_share(results)
    kept, drawn = (rows[rows["selection"] == name] for name in ("rejection", "random"))
    # Metric -> the claim's verb, the sign of the expected effect, and the paper's section.
    expected = {
        "is": ("improves", 1, "B, Table 4"),
        "fid": ("improves", -1, "B, Table 4"),
        "recall": ("lowers", -1, ""),
    }
    found = []
    for kind, (said, sign, source) in expected.items():
        ours, theirs = (by_seed(side, results.metric(kind)) for side in (kept, drawn))
        found.append(
            Claim(
                said=f"rejection sampling {said} {results.label(kind)}",
                source=source,
                exhibit="table4-table",
                shown_in="Table 4",
                measure=results.label(kind) + (f" at {100 * share:g}% acceptance" if share else ""),
                sign=sign,
                parts=by_pairs(ours, theirs, "rejection and random selection"),
                certain=SELECTS if kind == "is" and results.extractor == "classifier" else "",
            )
        )
    return found


def _smallest_share(results: Results) -> tuple[pd.DataFrame, float | None]:
    """Returns MaskGIT's rows at the smallest acceptance rate below 1 at which rejection and random
    selection both have a FID, and this rate; an empty table and None if there is no such rate."""
    rows = results.rejection[results.rejection["network"] == "transformer"]
    known = rows[(rows["acceptance"] < 1) & rows[results.metric("fid")].notna()]
    both = known.groupby("acceptance")["selection"].nunique()
    share = min(map(float, both[both == 2].index), default=None)
    return rows[rows["acceptance"] == share], share


def table(results: Results, params: Params) -> Table:
    """One row per network, selection and acceptance, then the paper's other models."""
    side = paper.side(params.data.image_size)
    cells = beside(_measured(results), _printed(side), KEYS)
    over, x = seeds_of(cells["seeds"], params), results.extractor
    theirs, unselected = paper.TABLE_4[side]["MaskGIT"], paper.TABLE_1[side]["MaskGIT"]
    notes = [
        f"Rejection keeps, of {count(cells['candidates'].max())} samples of each network, those "
        "that the reference classifier rates highest for their class. Random selection keeps the "
        f"same number, since FID ({x}) depends on the number of samples. 'Real images' are means "
        "over disjoint subsets of validation images of the same size.",
        "Columns marked (paper …) show the paper's Tables 4 and 1; the VQGAN there is the "
        f"published model, not VQGAN∗. {measure_note(params, x)}",
    ]
    scores = [f"{results.metric(kind)}_mean" for kind in ("fid", "is")]
    if cells.loc[cells["samples"].notna(), scores].isna().any(axis=None):
        notes.append(f"– under FID ({x}) means that there are too few samples for a covariance.")

    def ours(*metrics: str) -> dict[str, list[str]]:
        return columns(cells, {name: metric_label(name, x) for name in metrics}, over)

    return Table(
        name="table4",
        title=f"Table 4: rejection sampling, beside the paper's on ImageNet {side}×{side}",
        cells=cells,
        columns={
            "model": cells["model"],
            "selection": cells["selection"],
            "accepted": cells["acceptance"].map(percent),
            "samples": cells["samples"].map(count),
            **ours(results.metric("fid")),
            paper.FID: printed(cells["paper_fid_inception"], 2),
            **ours(results.metric("is")),
            paper.IS: printed(cells["paper_is_inception"], 1),
            **ours(*neighbour_metrics(results.rejection, x), "class_accuracy"),
        },
        notes=notes,
        paper=f"keeping the {percent(paper.ACCEPTANCE)} of the samples that a classifier rates "
        f"highest brings MaskGIT from FID (Inception) {unselected.fid} and IS (Inception) "
        f"{unselected.is_} to {theirs.fid} and {theirs.is_}.",
    )


def _measured(results: Results) -> pd.DataFrame:
    """Metrics of MaskGIT, then of VQGAN∗, averaged over seeds. Each acceptance rate has two rows:
    rejection sampling, then random selection. The last rows are as many real images."""
    metrics = [results.metric("fid"), results.metric("is")]
    metrics += [*neighbour_metrics(results.rejection, results.extractor), "class_accuracy"]
    rows = results.rejection.assign(model=results.rejection["network"].map(MODELS))
    cells = over_seeds(rows, KEYS, metrics)
    for place, size in enumerate(("candidates", "samples")):
        fewest = rows.groupby(KEYS)[size].min().to_numpy()  # in the order of `cells`
        cells.insert(len(KEYS) + place, size, fewest)
    rank = {name: place for place, name in enumerate([*MODELS.values(), "rejection", "random"])}
    order = cells.assign(model=cells["model"].map(rank), selection=cells["selection"].map(rank))
    order = order.sort_values(["model", "acceptance", "selection"], ascending=[True, False, True])
    cells = cells.loc[order.index].reset_index(drop=True)
    name = {"model": MODELS["real"], "selection": NONE, "acceptance": float("nan")}
    for samples in sorted(set(cells["samples"]), reverse=True):
        cells = with_real_images(cells, results, samples, name)
    return cells


def _printed(side: int) -> pd.DataFrame:
    unselected = paper.TABLE_1[side]["MaskGIT"]
    rows = [("MaskGIT", "rejection", 1.0, unselected.fid, unselected.is_)]
    for model, score in paper.TABLE_4[side].items():
        guided = model == "ADM"
        selection = ("guidance", float("nan")) if guided else ("rejection", paper.ACCEPTANCE)
        rows.append((model, *selection, *score))
    return pd.DataFrame(rows, columns=[*KEYS, "paper_fid_inception", "paper_is_inception"])
