"""Table 4: classifier-based rejection sampling, beside as many samples drawn at random."""

import pandas as pd

from analysis.exhibits import claims, intervals
from analysis.exhibits.base import Table
from analysis.exhibits.comparisons.samples import smallest_share
from analysis.exhibits.formatting import count, number, percent, printed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import (
    MODELS,
    measure_note,
    metric_label,
    neighbour_metrics,
)
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import beside, over_seeds, real_images
from pipeline.config.params import Params

KEYS = ["model", "selection", "acceptance"]


def table(results: Results, params: Params) -> Table:
    """Every network, selection and acceptance in a row, then the paper's other models."""
    side = paper.side(params.data.image_size)
    cells = beside(_measured(results), _printed(side), KEYS)
    ours, unselected = paper.TABLE_4[side]["MaskGIT"], paper.TABLE_1[side]["MaskGIT"]
    return Table(
        name="table4",
        title=f"Table 4: rejection sampling, beside the paper's on ImageNet {side}×{side}",
        cells=cells,
        readable=_readable(cells, results, params),
        notes=_notes(cells, results, params),
        paper=f"keeping the {percent(paper.ACCEPTANCE)} of the samples that a classifier rates "
        f"highest brings MaskGIT from FID (Inception) {unselected.fid} and IS (Inception) "
        f"{unselected.is_} to {ours.fid} and {ours.is_}.",
        here=claims.sentences(results, params, "table4-table") + _facts(results),
        files=["rejection/rows.csv", "evaluation/real.csv"],
    )


def _readable(cells: pd.DataFrame, results: Results, params: Params) -> pd.DataFrame:
    over, x = intervals.seeds_of(cells["seeds"], params), results.extractor

    def ours(metric: str) -> dict[str, list[str]]:
        label = intervals.heading(metric_label(metric, x), over)
        return {label: intervals.column(cells, metric)}

    columns = {
        "model": cells["model"],
        "selection": cells["selection"],
        "accepted": [percent(share) for share in cells["acceptance"]],
        "samples": cells["samples"].map(count),
        **ours(results.metric("fid")),
        paper.FID: printed(cells["paper_fid_inception"], 2),
        **ours(results.metric("is")),
        paper.IS: printed(cells["paper_is_inception"], 1),
    }
    for metric in [*neighbour_metrics(results.rejection, x), "class_accuracy"]:
        columns |= ours(metric)
    return pd.DataFrame(columns)


def _measured(results: Results) -> pd.DataFrame:
    """Means over seeds, MaskGIT first, every acceptance with rejection before random; after each
    network's as many real images."""
    x = results.extractor
    metrics = [
        results.metric("fid"),
        results.metric("is"),
        *neighbour_metrics(results.rejection, x),
    ]
    rows = results.rejection.assign(model=results.rejection["network"].map(MODELS))
    cells = over_seeds(rows, KEYS, [*metrics, "class_accuracy"])
    for place, size in enumerate(("candidates", "samples")):
        fewest = rows.groupby(KEYS)[size].min().to_numpy()  # sorted by the keys as well
        cells.insert(len(KEYS) + place, size, fewest)
    rank = {name: place for place, name in enumerate([*MODELS.values(), "rejection", "random"])}
    order = cells.assign(model=cells["model"].map(rank), selection=cells["selection"].map(rank))
    order = order.sort_values(["model", "acceptance", "selection"], ascending=[True, False, True])
    cells = cells.loc[order.index]
    name: dict[str, str | float] = {"model": MODELS["real"], "selection": "–"}
    real = [
        real_images(results, samples, name | {"acceptance": float("nan")})
        for samples in sorted(set(cells["samples"]), reverse=True)
    ]
    return pd.concat([cells, *real], ignore_index=True)


def _printed(side: int) -> pd.DataFrame:
    unselected = paper.TABLE_1[side]["MaskGIT"]
    rows = [("MaskGIT", "rejection", 1.0, unselected.fid, unselected.is_)]
    for model, score in paper.TABLE_4[side].items():
        guided = model == "ADM"
        selection = ("guidance", float("nan")) if guided else ("rejection", paper.ACCEPTANCE)
        rows.append((model, *selection, *score))
    return pd.DataFrame(rows, columns=[*KEYS, "paper_fid_inception", "paper_is_inception"])


def _notes(cells: pd.DataFrame, results: Results, params: Params) -> list[str]:
    fid, is_ = (f"{results.metric(kind)}_mean" for kind in ("fid", "is"))
    x = results.extractor
    candidates = cells["candidates"].max()
    notes = [
        f"Of {count(candidates)} samples of each network, within each class, those are kept that "
        "the reference classifier rates highest for the class; random: as many of them drawn "
        f"without looking, since FID ({x}) depends on the number of samples.",
        "Real images: validation images, mean over disjoint subsets of that many. Columns marked "
        "(paper …) are the paper's Tables 4 and 1; its VQGAN is the published model, not "
        f"VQGAN∗. {measure_note(params, x)}",
    ]
    if x == "classifier":
        notes.append(
            "The classifier that selects is the one whose features and classes are measured: a "
            f"higher IS ({x}) and share recognised are what it selects for."
        )
    measured = cells[cells["samples"].notna()]
    if measured[[fid, is_]].isna().any(axis=None):
        notes.append(f"– under FID ({x}): too few samples for a covariance.")
    return notes


def _facts(results: Results) -> list[str]:
    """What selection does to each network's samples, at the acceptance that the claims are of."""
    recall = results.metric("recall")
    found = []
    for network in ("transformer", "autoregressive"):
        rows = results.rejection[results.rejection["network"] == network]
        share = smallest_share(rows, results.metric("fid"))
        if share is None:
            found.append(f"{MODELS[network]}: no acceptance below 100% that could be compared.")
            continue
        means = rows[rows["acceptance"] == share].groupby("selection")[["class_accuracy", recall]]
        with_, without = (means.mean().loc[name] for name in ("rejection", "random"))
        found.append(
            f"{MODELS[network]} at {percent(share)}: {percent(with_['class_accuracy'])} of samples "
            f"recognised with rejection, {percent(without['class_accuracy'])} without; recall "
            f"{number(with_[recall])} with, {number(without[recall])} without."
        )
    return found
