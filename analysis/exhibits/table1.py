"""Table 1: quality of the samples, between the tokenizer's ceiling and real images."""

import pandas as pd

from analysis.exhibits import cas
from analysis.exhibits.base import Table
from analysis.exhibits.findings import Measured, contrast
from analysis.exhibits.formatting import count, listed, millions, number, percent, printed, spreads
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import (
    EXTRACTORS,
    FEATURE_METRICS,
    MODELS,
    SPREAD,
    measure_note,
    metric_label,
    without_spread,
)
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import beside
from pipeline.config.params import Params


def table(results: Results, params: Params) -> Table:
    """Every set of images in a row, beside the paper's rows of the nearest image size."""
    side = paper.side(params.data.image_size)
    ours, theirs = paper.TABLE_1[side]["MaskGIT"], paper.TABLE_1[side]["VQGAN∗"]
    cells = beside(_measured(results), _printed(side), ["model"])
    by_model = cells.set_index("model")
    return Table(
        name="table1",
        title=f"Table 1: class-conditional samples, beside the paper's on ImageNet {side}×{side}",
        cells=cells,
        readable=_readable(cells, results),
        notes=_notes(cells, results, params, side),
        paper=f"MaskGIT beats VQGAN∗, the autoregressive baseline with the same tokenizer and "
        f"hyperparameters, by a wide margin: FID (Inception) {ours.fid} against {theirs.fid}, "
        f"IS (Inception) {ours.is_} against {theirs.is_}, recall {ours.recall:.2f} against "
        f"{theirs.recall:.2f}, CAS top-1 {percent(ours.cas_top1)} against "
        f"{percent(theirs.cas_top1)}, in {ours.steps} steps instead of {theirs.steps}.",
        here=_findings(by_model, results),
        files=["evaluation/metrics.json", "cas/rows.csv"],
    )


def _measured(results: Results) -> pd.DataFrame:
    columns = []
    for kind in SPREAD:
        columns += [results.metric(kind), f"{results.metric(kind)}_std"]
    columns += _manifold(results)
    columns += ["class_accuracy", "samples", "parameters", "steps"]
    sets = pd.DataFrame(results.evaluation[name] for name in MODELS).reindex(columns=columns)
    sets.insert(0, "model", list(MODELS.values()))
    return sets.merge(cas.scores(results, "randaugment"), how="left", on="model")


def _manifold(results: Results) -> list[str]:
    """The columns of precision, recall and the like."""
    return without_spread(results.evaluation["transformer"], results.manifold_extractors[0])


def _printed(side: int) -> pd.DataFrame:
    table = pd.DataFrame(paper.TABLE_1[side].values())
    table = table.rename(
        columns={
            "fid": "fid_inception",
            "is_": "is_inception",
            "precision": "precision_vgg",
            "recall": "recall_vgg",
        }
    ).add_prefix("paper_")
    table.insert(0, "model", list(paper.TABLE_1[side]))
    real = paper.TABLE_1_REAL
    table.loc[len(table)] = {
        "model": MODELS["real"],
        "paper_cas_top1": real.top1,
        "paper_cas_top5": real.top5,
    }
    return table


def _readable(cells: pd.DataFrame, results: Results) -> pd.DataFrame:
    fid, is_, kid = (results.metric(kind) for kind in SPREAD)
    manifold = _manifold(results)
    labels = {name: metric_label(name, results.extractor) for name in (fid, is_, kid)}
    labels |= {name: metric_label(name, results.manifold_extractors[0]) for name in manifold}
    precision, recall, *others = manifold
    return pd.DataFrame(
        {
            "model": cells["model"],
            labels[fid]: spreads(cells, fid, mean=""),
            paper.FID: printed(cells["paper_fid_inception"], 2),
            labels[is_]: spreads(cells, is_, mean=""),
            paper.IS: printed(cells["paper_is_inception"], 1),
            labels[precision]: cells[precision].map(number),
            "precision (paper, VGG)": printed(cells["paper_precision_vgg"], 2),
            labels[recall]: cells[recall].map(number),
            "recall (paper, VGG)": printed(cells["paper_recall_vgg"], 2),
            **cas.readable(cells),
            "parameters": cells["parameters"].map(millions),
            "parameters (paper)": cells["paper_parameters"].map(millions),
            "steps": cells["steps"].map(count),
            "steps (paper)": cells["paper_steps"].map(count),
            "recognised": cells["class_accuracy"].map(number),
            labels[kid]: spreads(cells, kid, mean=""),
            **{labels[name]: cells[name].map(number) for name in others},
        }
    )


def _notes(cells: pd.DataFrame, results: Results, params: Params, side: int) -> list[str]:
    evaluation, x, (y, _) = params.evaluation, results.extractor, results.manifold_extractors
    samples = cells.set_index("model")["samples"].dropna()
    sets = ", ".join(f"{model} {count(images)}" for model, images in samples.items())
    others = [FEATURE_METRICS[name.removesuffix(f"_{y}")] for name in _manifold(results)]
    return [
        f"FID ({x}), IS ({x}) and KID are over features of {EXTRACTORS.get(x, x)}, "
        f"{listed(others)} over those of {EXTRACTORS.get(y, y)} (k = "
        f"{evaluation.neighbors}), compared with those of the training images; images: {sets}. "
        "Reconstructions are the tokenizer's, of validation images: the ceiling of both networks.",
        f"± : of FID ({x}) and IS ({x}) the standard deviation over {evaluation.bootstrap} "
        f"bootstrap resamples of the one set, of KID over {evaluation.kid_subsets} subsets. "
        + measure_note(params, x),
        cas.note(cells, "with RandAugment"),
        f"{_training(params)}.",
        f"Columns marked (paper …) are the paper's Table 1 on ImageNet {side}×{side}, with "
        "ResNet-50 for CAS: compare orderings, not values. Accuracies are fractions; recognised: "
        "share whose class the reference classifier finds. NLL is left out: MaskGIT's is over "
        "masked tokens and the baseline's over all, so they cannot be compared.",
    ]


def _training(params: Params) -> str:
    """How far the two networks' training was the same."""
    ours, theirs = params.training, params.autoregressive
    baseline = (
        f"VQGAN∗ was trained for {count(theirs.steps)} steps with label smoothing "
        f"{theirs.label_smoothing:g}"
    )
    if params.transformer.pretrained:
        return f"{baseline}; MaskGIT's weights are the file's that the params name"
    return (
        f"{baseline}, MaskGIT for {count(ours.steps)} with {ours.label_smoothing:g}; "
        "otherwise alike"
    )


def _findings(cells: pd.DataFrame, results: Results) -> list[str]:
    def metric(column: str, model: str) -> Measured:
        row = cells.loc[model]
        return Measured(model, row[column], row.get(f"{column}_std", float("nan")))

    x, (y, _) = results.extractor, results.manifold_extractors
    fid, is_ = results.metric("fid"), results.metric("is")
    found = [
        contrast(
            metric_label(column, extractor),
            metric(column, "MaskGIT"),
            metric(column, "VQGAN∗"),
            lower_is_better=column == fid,
            noise="bootstrap",
        )
        for column, extractor in ((fid, x), (is_, x), (f"recall_{y}", y))
    ]
    found.append(
        contrast("CAS top-1", cas.measured(cells, "MaskGIT"), cas.measured(cells, "VQGAN∗"))
    )
    label = metric_label(fid, x)
    ceiling, real = (metric(fid, MODELS[name]) for name in ("reconstruction", "real"))
    found.append(
        f"MaskGIT takes {count(cells.loc['MaskGIT', 'steps'])} forward passes an image, VQGAN∗ "
        f"{count(cells.loc['VQGAN∗', 'steps'])}. For scale: the tokenizer's reconstructions have "
        f"{label} {ceiling}, held-out real images {real}."
    )
    return found
