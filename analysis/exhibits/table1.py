"""Table 1: quality of the samples, beside the tokenizer's reconstructions and real images."""

import pandas as pd

from analysis.exhibits import cas, claims, intervals
from analysis.exhibits.base import Table
from analysis.exhibits.comparisons.inference import student
from analysis.exhibits.comparisons.seeds import nested_choice
from analysis.exhibits.formatting import count, extent, listed, millions, number, percent, printed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import (
    DISTRIBUTION,
    EXTRACTORS,
    FEATURE_METRICS,
    LOWER_IS_BETTER,
    MODELS,
    NETWORKS,
    measure_note,
    metric_label,
    neighbour_metrics,
)
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.sets import sets_of
from analysis.exhibits.statistics import beside, real_images
from pipeline.config.params import Params
from pipeline.runtime.tables import has_param


def table(results: Results, params: Params) -> Table:
    """Every set of images in a row, beside the paper's rows of the nearest image size."""
    side = paper.side(params.data.image_size)
    ours, theirs = paper.TABLE_1[side]["MaskGIT"], paper.TABLE_1[side]["VQGAN∗"]
    cells = beside(_measured(results, params), _printed(side), ["model"])
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
        here=claims.sentences(results, params, "table1-table")
        + _facts(cells.set_index("model"), results, params),
        files=[
            "evaluation/rows.csv",
            "evaluation/metrics.json",
            "evaluation/real.csv",
            "cas/rows.csv",
            "temperature/rows.csv",
        ],
    )


def _measured(results: Results, params: Params) -> pd.DataFrame:
    """Every set of images, what it cost, and the scores of classifiers that learned from it; real
    images also in the number of the samples, where that is another."""
    metrics = [
        *map(results.metric, DISTRIBUTION),
        *_neighbours(results),
        *_added(results),
        "class_accuracy",
    ]
    sets = sets_of(results, params, metrics)
    rows = pd.DataFrame(results.evaluation).T.reindex(columns=["samples", "parameters", "steps"])
    sets = sets.join(rows.rename(index=MODELS), on="model")
    samples = results.evaluation["transformer"]["samples"]
    if results.evaluation["real"]["samples"] != samples:
        name: dict[str, str | float] = {"model": f"{MODELS['real']} ({count(samples)})"}
        sets = pd.concat([sets, real_images(results, samples, name)], ignore_index=True)
    return sets.merge(cas.scores(results, "randaugment"), how="left", on="model")


def _neighbours(results: Results) -> list[str]:
    """The columns of precision, recall and the like, which are measured with both extractors."""
    y, other = results.manifold_extractors
    names = neighbour_metrics(results.rows, y)
    return [name for name in names if f"{name.removesuffix(y)}{other}" in results.rows]


def _added(results: Results) -> list[str]:
    """The columns of a user's own metrics, of the main extractor alone."""
    x, other = results.extractor, results.second_extractor
    names = neighbour_metrics(results.rows, x)
    return [name for name in names if f"{name.removesuffix(x)}{other}" not in results.rows]


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
    x, (y, _) = results.extractor, results.manifold_extractors
    networks = cells["model"].isin([MODELS[name] for name in NETWORKS])

    def ours(*metrics: str) -> dict[str, list[str]]:
        """Means and intervals. Those of FID are FID∞'s: a plain FID is biased."""
        labels = [metric_label(name, y if name in neighbours else x) for name in metrics]
        return {
            f"{label} ±": intervals.column(cells, name, networks)
            for label, name in zip(labels, metrics, strict=True)
        }

    fid, infinity, is_, kid = (results.metric(kind) for kind in DISTRIBUTION)
    neighbours = _neighbours(results)
    precision, recall = f"precision_{y}", f"recall_{y}"
    others = [name for name in neighbours if name not in (precision, recall)]
    return pd.DataFrame(
        {
            "model": cells["model"],
            "±: 95% interval over": cells["over"].fillna("–"),
            metric_label(fid, x): intervals.column(cells, fid, networks, interval=False),
            paper.FID: printed(cells["paper_fid_inception"], 2),
            **ours(infinity, is_),
            paper.IS: printed(cells["paper_is_inception"], 1),
            **ours(precision),
            "precision (paper, VGG)": printed(cells["paper_precision_vgg"], 2),
            **ours(recall),
            "recall (paper, VGG)": printed(cells["paper_recall_vgg"], 2),
            **cas.readable(cells, "with RandAugment", networks),
            "parameters": cells["parameters"].map(millions),
            "parameters (paper)": cells["paper_parameters"].map(millions),
            "steps": cells["steps"].map(count),
            "steps (paper)": cells["paper_steps"].map(count),
            **ours("class_accuracy", kid, *others, *_added(results)),
        }
    )


def _notes(cells: pd.DataFrame, results: Results, params: Params, side: int) -> list[str]:
    evaluation, x, (y, _) = params.evaluation, results.extractor, results.manifold_extractors
    halves = evaluation.halves
    samples = cells.set_index("model")["samples"].dropna()
    sets = ", ".join(f"{model} {count(images)}" for model, images in samples.items())
    own = [f"FID ({x})", f"IS ({x})", FEATURE_METRICS["kid"]]
    own += [FEATURE_METRICS[name.removesuffix(f"_{x}")] for name in _added(results)]
    others = [FEATURE_METRICS[name.removesuffix(f"_{y}")] for name in _neighbours(results)]
    return [
        f"{listed(own)} are over features of {EXTRACTORS.get(x, x)}, "
        f"{listed(others)} over those of {EXTRACTORS.get(y, y)} (k = "
        f"{evaluation.neighbors}, on at most {count(evaluation.manifold_images)} images of each "
        f"side), compared with those of the training images; images: {sets}. "
        f"Reconstructions are the tokenizer's, of validation images{_crops(params)}."
        f"{_beyond_reconstructions(cells, results)}",
        "± over training seeds: Student's t of the networks' trainings, each with samples of its "
        f"own; over images: {student(halves):.2f} × the spread of {halves} random halves of the "
        "one set. One tokenizer and one classifier were trained: their seeds are in no ±. FID∞ "
        f"({x}) is extrapolated to infinitely many samples, and has the interval; FID ({x}) has "
        f"none, as few samples make it too high. {measure_note(params, x)}",
        cas.note(cells, "with RandAugment")
        + (" The paper names RandAugment for 256×256 alone." if side == 512 else ""),
        f"{_training(params)}.",
        f"Columns marked (paper …) are the paper's Table 1 on ImageNet {side}×{side}, with "
        "ResNet-50 for CAS: compare orderings, not values. Accuracies are fractions; recognised: "
        "share whose class the reference classifier finds. NLL is left out: MaskGIT's is over "
        "masked tokens and the baseline's over all, so they cannot be compared.",
    ]


def _crops(params: Params) -> str:
    """What sets the images of the row apart from those that networks learn."""
    if params.data.crop_scale[0] == 1:
        return ""
    return (
        " cut to their centre, as the training images are that all rows are compared with, whereas "
        "networks learn random crops of these: a network that learned its images exactly would be "
        "farther from them"
    )


def _beyond_reconstructions(cells: pd.DataFrame, results: Results) -> str:
    """By what each network's mean passes the reconstructions', which are no bound of a metric."""
    sets = cells.set_index("model")
    rebuilt = sets.loc[MODELS["reconstruction"]]
    x, (y, _) = results.extractor, results.manifold_extractors
    kinds = {kind: x for kind in DISTRIBUTION if kind != "fid_infinity"}
    kinds |= {name.removesuffix(f"_{y}"): y for name in _neighbours(results)}
    found = []
    for model in (MODELS["transformer"], MODELS["autoregressive"]):
        passed = []
        for kind, extractor in kinds.items():
            name = f"{kind}_{extractor}"
            sign = -1 if kind in LOWER_IS_BETTER else 1
            if sign * (sets.loc[model, f"{name}_mean"] - rebuilt[f"{name}_mean"]) > 0:
                passed.append(metric_label(name, extractor))
        if passed:
            found.append(f"{model}'s mean {listed(passed)} passes theirs")
    return f" They are no bound: {'; '.join(found)}." if found else ""


def _training(params: Params) -> str:
    """How far the two networks' training was the same."""
    ours, theirs = params.training, params.autoregressive
    baseline = f"VQGAN∗ was trained for {count(theirs.steps)} steps"
    smoothing = f"label smoothing {ours.label_smoothing:g}"
    if params.transformer.pretrained:
        return f"{baseline} with {smoothing}; MaskGIT's weights are the file's that the params name"
    return f"{baseline}, MaskGIT for {count(ours.steps)}, both with {smoothing}, otherwise alike"


def _facts(cells: pd.DataFrame, results: Results, params: Params) -> list[str]:
    """What the claims above are to be read with."""
    fid, label = results.metric("fid"), metric_label(results.metric("fid"), results.extractor)
    ceiling, real = (
        number(cells.loc[MODELS[name], f"{fid}_mean"]) for name in ("reconstruction", "real")
    )
    found = [
        f"MaskGIT takes {count(cells.loc['MaskGIT', 'steps'])} forward passes an image, VQGAN∗ "
        f"{count(cells.loc['VQGAN∗', 'steps'])}. For scale: the tokenizer's reconstructions have "
        f"{label} {ceiling}, held-out real images {real}."
    ]
    return found + _choice_temperature(results, params)


def _choice_temperature(results: Results, params: Params) -> list[str]:
    """Whether MaskGIT's decoding was tuned here, and how the baseline was sampled."""
    fid, used = results.metric("fid"), params.decoding.choice_temperature
    rows = results.temperature
    best = nested_choice(rows, "choice_temperature", fid, "fid")[fid].mean()
    own = rows.loc[has_param(rows["choice_temperature"], used), fid].mean()
    if pd.isna(best) or pd.isna(own):
        return []
    return [
        f"MaskGIT decodes at choice temperature {used:g} throughout: of "
        f"{extent(rows['samples'])} samples its {metric_label(fid, results.extractor)} is "
        f"{number(own)} there and {number(best)} at the one that another seed chooses. The "
        "baseline was sampled at temperature 1 without truncation."
    ]
