"""Table 4: classifier-based rejection sampling, beside as many samples drawn at random."""

import pandas as pd

from analysis.exhibits.base import Table
from analysis.exhibits.findings import Measured, contrast
from analysis.exhibits.formatting import count, number, percent, printed, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import MODELS, measure_note, metric_label, without_spread
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import beside
from pipeline.config.params import Params

KEYS = ["model", "selection", "acceptance"]


def table(results: Results, params: Params) -> Table:
    """Every network, selection and acceptance in a row, then the paper's other models."""
    side = paper.side(params.data.image_size)
    cells = beside(_measured(results), _printed(side), KEYS)
    fid, is_ = results.metric("fid"), results.metric("is")
    readable = {
        "model": cells["model"],
        "selection": cells["selection"],
        "accepted": [percent(share) for share in cells["acceptance"]],
        "samples": cells["samples"].map(count),
        metric_label(fid, results.extractor): spreads(cells, fid, mean=""),
        paper.FID: printed(cells["paper_fid_inception"], 2),
        metric_label(is_, results.extractor): spreads(cells, is_, mean=""),
        paper.IS: printed(cells["paper_is_inception"], 1),
    }
    for metric in without_spread(cells.columns, results.extractor):
        readable[metric_label(metric, results.extractor)] = cells[metric].map(number)
    readable["recognised"] = cells["class_accuracy"].map(number)
    ours, unselected = paper.TABLE_4[side]["MaskGIT"], paper.TABLE_1[side]["MaskGIT"]
    return Table(
        name="table4",
        title=f"Table 4: rejection sampling, beside the paper's on ImageNet {side}×{side}",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=_notes(cells, results, params),
        paper=f"keeping the {percent(paper.ACCEPTANCE)} of the samples that a classifier rates "
        f"highest brings MaskGIT from FID (Inception) {unselected.fid} and IS (Inception) "
        f"{unselected.is_} to {ours.fid} and {ours.is_}.",
        here=_findings(cells, results),
        files=["rejection/rows.csv"],
    )


def _measured(results: Results) -> pd.DataFrame:
    rows = results.rejection.assign(model=results.rejection["network"].map(MODELS))
    rows = rows[[*KEYS, *rows.columns.drop([*KEYS, "network"])]]
    # MaskGIT first, every acceptance with rejection before random.
    rank = {name: place for place, name in enumerate([*MODELS.values(), "rejection", "random"])}
    order = rows.assign(model=rows["model"].map(rank), selection=rows["selection"].map(rank))
    order = order.sort_values(["model", "acceptance", "selection"], ascending=[True, False, True])
    return rows.loc[order.index].reset_index(drop=True)


def _printed(side: int) -> pd.DataFrame:
    unselected = paper.TABLE_1[side]["MaskGIT"]
    rows = [("MaskGIT", "rejection", 1.0, unselected.fid, unselected.is_)]
    for model, score in paper.TABLE_4[side].items():
        guided = model == "ADM"
        selection = ("guidance", float("nan")) if guided else ("rejection", paper.ACCEPTANCE)
        rows.append((model, *selection, *score))
    return pd.DataFrame(rows, columns=[*KEYS, "paper_fid_inception", "paper_is_inception"])


def _notes(cells: pd.DataFrame, results: Results, params: Params) -> list[str]:
    fid, is_, x = results.metric("fid"), results.metric("is"), results.extractor
    candidates = cells["candidates"].max()
    notes = [
        f"Of {count(candidates)} samples of each network, within each class, those are kept that "
        "the reference classifier rates highest for the class; random: as many of them drawn "
        f"without looking, since FID ({x}) depends on the number of samples.",
        f"± : standard deviation over {params.evaluation.bootstrap} bootstrap resamples. Columns "
        "marked (paper …) are the paper's Tables 4 and 1; its VQGAN is the published model, not "
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


def _findings(cells: pd.DataFrame, results: Results) -> list[str]:
    fid = results.metric("fid")
    found = []
    for model in (MODELS["transformer"], MODELS["autoregressive"]):
        rows = cells[(cells["model"] == model) & cells[fid].notna()].set_index(
            ["selection", "acceptance"]
        )
        shares = [
            share for selection, share in rows.index if selection == "rejection" and share < 1
        ]
        pairs = [share for share in shares if ("random", share) in rows.index]
        if not pairs:
            found.append(f"{model}: no acceptance below 100% that could be compared.")
            continue
        found += _contrasts(rows, model, min(pairs), results)
    return found


def _contrasts(rows: pd.DataFrame, model: str, share: float, results: Results) -> list[str]:
    """The smallest acceptance against as many samples drawn at random."""
    kept, drawn = rows.loc[("rejection", share)], rows.loc[("random", share)]
    found = []
    for kind in ("fid", "is"):
        metric = results.metric(kind)
        sides = [
            Measured(name, row[metric], row[f"{metric}_std"])
            for name, row in (("rejection", kept), ("random selection", drawn))
        ]
        found.append(
            contrast(
                f"{model} at {percent(share)}, {metric_label(metric, results.extractor)}",
                *sides,
                lower_is_better=kind == "fid",
                noise="bootstrap",
                paper_has_first_better=False,
            )
        )
    recall = results.metric("recall")
    found.append(
        f"{model} at {percent(share)}: {percent(kept['class_accuracy'])} of samples recognised "
        f"with rejection, {percent(drawn['class_accuracy'])} without; recall "
        f"{number(kept[recall])} with, {number(drawn[recall])} without."
    )
    return found
