"""Quality and diversity of samples of MaskGIT and VQGAN∗ (Tables 1 and 5), and label smoothing."""

import math
from typing import Any

import pandas as pd

from analysis.exhibits import formatting as fmt
from analysis.exhibits import paper
from analysis.exhibits import statistics as stats
from analysis.exhibits.base import Table
from analysis.exhibits.claims import Claim, Part
from analysis.exhibits.results import (
    DISTRIBUTION,
    EXTRACTORS,
    FEATURE_METRICS,
    LOWER_IS_BETTER,
    MODELS,
    NETWORKS,
    Results,
    measure_note,
    metric_label,
    neighbour_metrics,
)
from pipeline.config.params import Params

DIVERSITY = ("precision", "recall", "density", "coverage")  # of Table 5
BOTH = [MODELS[name] for name in NETWORKS]


def claims(results: Results, params: Params) -> list[Claim]:
    """Claims that MaskGIT outperforms its baseline VQGAN∗, in every metric of Tables 1 and 5."""
    main, second = params.training.label_smoothing, results.manifold_extractors[1]
    table1, table5 = ("4.2, Table 1", "table1-table"), ("B, Table 5", "table5-table")
    found = _by_table_1(results, main, "", *table1, "Table 1")
    for augmentation, how, at in (
        ("randaugment", "with RandAugment", (*table1, "Table 1")),
        ("none", "without RandAugment", (*table5, "Table 5")),
    ):
        rows = results.cas[results.cas["augmentation"] == augmentation]
        found.append(_outperforms(rows, {"top1": ""}, f"CAS {how}", f"CAS top-1 {how}", *at))
    if second != "random":  # random features show little but the decoder's texture
        rows, label = results.trained_with(main), f"recall ({second})"
        found.append(_outperforms(rows, {f"recall_{second}": ""}, label, label, *table5, "Table 5"))
    for value in results.other_smoothings(main):
        note = f" with label smoothing {value:g}"
        found += _by_table_1(results, value, note, "", "smoothing-table", "Label smoothing")
    return found


def _by_table_1(results: Results, value: float, note: str, *at: str) -> list[Claim]:
    """Claims about the metrics of Table 1, for networks trained with label smoothing `value`."""
    x, (y, _) = results.extractor, results.manifold_extractors
    rows, found = results.trained_with(value), []
    measured = {"fid": fid_extractors(results), "is": [x], "recall": [y], "precision": [y]}
    for kind, of in measured.items():
        label = f"{FEATURE_METRICS[kind]} ({' and '.join(of)}){note}"
        metrics = {f"{kind}_{z}": f"{FEATURE_METRICS[kind]} ({z})" for z in of}
        found.append(_outperforms(rows, metrics, label, label, *at))
    return found


def fid_extractors(results: Results) -> list[str]:
    """The extractors that FID was measured with. A claim about FID must hold for all of them."""
    return [x for x in (results.extractor, results.second_extractor) if f"fid_{x}" in results.rows]


def _outperforms(
    rows: pd.DataFrame, metrics: dict[str, str], by: str, measure: str, *at: str
) -> Claim:
    """The claim that MaskGIT outperforms VQGAN∗ in some metrics (column → name), tested on
    independent training runs. With the same seed, both networks have the same first weights and
    batches, but they learn different tasks, so the test does not pair scores by seed."""
    parts = []
    for metric, name in metrics.items():
        ours, theirs = (stats.by_seed(rows[rows["images"] == each], metric) for each in NETWORKS)
        if len(ours) and len(theirs):
            effect = stats.welch(ours.to_numpy(), theirs.to_numpy())
            sides = name if len(metrics) > 1 else ""
            parts.append(Part(effect, (ours.mean(), theirs.mean()), sides))
    source, exhibit, shown_in = at
    return Claim(
        said=f"MaskGIT outperforms VQGAN∗ in {by}",
        source=source,
        exhibit=exhibit,
        shown_in=shown_in,
        measure=measure,
        sign=-1 if next(iter(metrics)).startswith(LOWER_IS_BETTER) else 1,
        parts=parts,
        networks=BOTH,
    )


# Table 1


def table1(results: Results, params: Params) -> Table:
    """One row per set of images, beside the paper's Table 1 for the nearest image size."""
    side = paper.side(params.data.image_size)
    ours, theirs = paper.TABLE_1[side]["MaskGIT"], paper.TABLE_1[side]["VQGAN∗"]
    printed_rows = pd.DataFrame(paper.TABLE_1[side].values())
    extractors = {"fid": "inception", "is_": "inception", "precision": "vgg", "recall": "vgg"}
    names = {name: f"{name.strip('_')}_{network}" for name, network in extractors.items()}
    printed_rows = printed_rows.rename(columns=names).add_prefix("paper_")
    printed_rows.insert(0, "model", list(paper.TABLE_1[side]))
    top1, top5 = paper.TABLE_1_REAL
    real = {"model": MODELS["real"], "paper_cas_top1": top1, "paper_cas_top5": top5}
    printed_rows.loc[len(printed_rows)] = real
    cells = stats.beside(_measured(results, params), printed_rows, ["model"])
    return Table(
        name="table1",
        title=f"Table 1: class-conditional samples, beside the paper's on ImageNet {side}×{side}",
        cells=cells,
        columns=_columns(cells, results),
        notes=_notes(cells, results, params, side),
        paper=f"MaskGIT beats VQGAN∗, the autoregressive baseline with the same tokenizer and "
        f"hyperparameters, by a wide margin: FID (Inception) {ours.fid} against {theirs.fid}, "
        f"IS (Inception) {ours.is_} against {theirs.is_}, recall {ours.recall:.2f} against "
        f"{theirs.recall:.2f}, CAS top-1 {fmt.percent(ours.cas_top1)} against "
        f"{fmt.percent(theirs.cas_top1)}, in {ours.steps} steps instead of {theirs.steps}.",
    )


def sets_of(results: Results, params: Params, metrics: list[str]) -> pd.DataFrame:
    """One row per set of images: the means over a network's training runs, or the values of one
    set. The columns are `model`, `over` (what intervals are computed over: "3 training seeds", or
    "images" for one set), `seeds`, and the columns of `over_seeds` for each metric."""
    rows = results.rows.reindex(columns=results.rows.columns.union(metrics, sort=False))
    main = rows.loc[results.trained_with(params.training.label_smoothing).index]
    sets = []
    for name, model in MODELS.items():
        own = main[main["images"] == name] if name in NETWORKS else rows[rows["images"] == name]
        if own["seed"].nunique() > 1:
            part = stats.over_seeds(own, ["images"], metrics).drop(columns="images")
        else:
            part = stats.of_one_set(own.head(1), metrics, params.evaluation.halves)
            part.insert(0, "seeds", own["seed"].nunique())
        part.insert(0, "over", fmt.seeds_of(part["seeds"], params) or "images")
        part.insert(0, "model", model)
        sets.append(part)
    return pd.concat(sets, ignore_index=True)


def _measured(results: Results, params: Params) -> pd.DataFrame:
    """A row per set of images, with metrics, parameters, steps and CAS. If there are more
    real images than samples, another row has the metrics of as many real images as samples."""
    y, _ = results.manifold_extractors
    metrics = [*map(results.metric, DISTRIBUTION)]
    metrics += [*(f"{kind}_{y}" for kind in DIVERSITY), *_added(results)]
    metrics += [f"fid_{z}" for z in fid_extractors(results) if z != results.extractor]
    sets = sets_of(results, params, [*metrics, "class_accuracy"])
    rows = pd.DataFrame(results.evaluation).T.reindex(columns=["samples", "parameters", "steps"])
    sets = sets.join(rows.rename(index=MODELS), on="model")
    samples = results.evaluation["transformer"]["samples"]
    if results.evaluation["real"]["samples"] != samples:
        name = {"model": f"{MODELS['real']} ({fmt.count(samples)})"}
        sets = stats.with_real_images(sets, results, samples, name)
    return sets.merge(_cas_scores(results, "randaugment"), how="left", on="model")


def _added(results: Results) -> list[str]:
    """The columns of metrics that a user has added; they use the same features as FID."""
    names = neighbour_metrics(results.rows, results.extractor)
    return [name for name in names if not name.startswith(DIVERSITY)]


def _columns(cells: pd.DataFrame, results: Results) -> dict[str, Any]:
    x, (y, _) = results.extractor, results.manifold_extractors
    networks = cells["model"].isin(BOTH)

    def ours(*metrics: str) -> dict[str, list[str]]:
        """Our columns of the given metrics: means with intervals."""
        of = {name: metric_label(name, y if name.endswith(y) else x) for name in metrics}
        return fmt.columns(cells, {name: f"{label} ±" for name, label in of.items()}, "", networks)

    _, infinity, is_, kid = (results.metric(kind) for kind in DISTRIBUTION)
    fids = {f"fid_{z}": f"FID ({z})" for z in fid_extractors(results)}
    # FID is biased upwards for few samples.
    without = cells.assign(**{f"{name}_ci95": math.nan for name in fids})
    own, *second = fmt.columns(without, fids, "", networks).items()
    precision, recall, *others = (f"{kind}_{y}" for kind in DIVERSITY)
    return {
        "model": cells["model"],
        "±: 95% interval over": cells["over"].fillna(fmt.NONE),
        own[0]: own[1],
        paper.FID: fmt.printed(cells["paper_fid_inception"], 2),
        **dict(second),
        **ours(infinity, is_),
        paper.IS: fmt.printed(cells["paper_is_inception"], 1),
        **ours(precision),
        "precision (paper, VGG)": fmt.printed(cells["paper_precision_vgg"], 2),
        **ours(recall),
        "recall (paper, VGG)": fmt.printed(cells["paper_recall_vgg"], 2),
        **_cas_columns(cells, "with RandAugment", networks),
        "parameters": cells["parameters"].map(fmt.millions),
        "parameters (paper)": cells["paper_parameters"].map(fmt.millions),
        "steps": cells["steps"].map(fmt.count),
        "steps (paper)": cells["paper_steps"].map(fmt.count),
        **ours("class_accuracy", kid, *others, *_added(results)),
    }


def _notes(cells: pd.DataFrame, results: Results, params: Params, side: int) -> list[str]:
    evaluation, x, (y, _) = params.evaluation, results.extractor, results.manifold_extractors
    perceptual, training = params.tokenizer.perceptual, params.training
    samples = cells.set_index("model")["samples"].dropna()
    sets = ", ".join(f"{model} {fmt.count(images)}" for model, images in samples.items())
    own = [f"FID ({x})", f"IS ({x})", FEATURE_METRICS["kid"]]
    own += [FEATURE_METRICS[name.removesuffix(f"_{x}")] for name in _added(results)]
    steps = "released weights" if params.transformer.pretrained else fmt.count(training.steps)
    trained = f"{fmt.count(params.autoregressive.steps)} steps for VQGAN∗ and {steps} for MaskGIT"
    flatters = (
        f" The tokenizer's perceptual loss uses the same network as FID ({x}), which therefore "
        "flatters all decoded images."
    ) * (x == perceptual and not params.tokenizer.pretrained)
    return [
        f"{fmt.listed(own)} use features of {EXTRACTORS.get(x, x)}; {fmt.listed(DIVERSITY)} use "
        f"features of {EXTRACTORS.get(y, y)} (k = {evaluation.neighbors} neighbours; at most "
        f"{fmt.count(evaluation.manifold_images)} images of each of the two sets). All sets are "
        f"compared with the training images. Numbers of images: {sets}. Reconstructions are "
        "validation images after the tokenizer's encoder and decoder.",
        "± over training seeds is Student's t interval over training runs, each with its own "
        f"samples. ± over images is {stats.student(evaluation.halves):.2f} × the standard "
        f"deviation over {evaluation.halves} random halves of the set. One tokenizer and one "
        f"classifier were trained, so no ± covers their seeds. FID∞ ({x}) is extrapolated to "
        f"infinitely many samples, and has ± over training seeds only. FID ({x}) has no ±, because "
        f"it is biased upwards for few samples. {measure_note(params, x)}{flatters}",
        _cas_note(cells, "with RandAugment"),
        f"Training: {trained}, with label smoothing {training.label_smoothing:g}.",
        f"Columns marked (paper …) are the paper's Table 1 on ImageNet {side}×{side}, with "
        "ResNet-50 for CAS: compare orderings, not values. Accuracies are fractions. Recognised "
        "is the share of the images whose class the reference classifier finds.",
    ]


# Table 5


def table5(results: Results, params: Params) -> Table:
    """Precision and recall with a second feature extractor, and CAS without RandAugment."""
    _, x = results.manifold_extractors
    metrics = [f"{kind}_{x}" for kind in DIVERSITY]
    sets = sets_of(results, params, metrics)
    sets = sets.merge(_cas_scores(results, "none"), how="left", on="model")
    rows = [(model, *row) for model, row in paper.TABLE_5.items()]
    rows.append((MODELS["real"], math.nan, math.nan, *paper.TABLE_5_REAL))
    names = ["precision_inception", "recall_inception", "cas_top1", "cas_top5"]
    theirs = pd.DataFrame(rows, columns=["model", *(f"paper_{name}" for name in names)])
    cells = stats.beside(sets, theirs, ["model"])
    networks = cells["model"].isin(BOTH)
    labels = {name: f"{metric_label(name, x)} ±" for name in metrics}
    measured = fmt.columns(cells, labels, "", networks)
    precision, recall, *others = measured.items()
    maskgit, vqgan = paper.TABLE_5["MaskGIT"], paper.TABLE_5["VQGAN∗"]
    readable = {
        "model": cells["model"],
        "±: 95% interval over": cells["over"].fillna(fmt.NONE),
        precision[0]: precision[1],
        "precision (paper, Inception)": fmt.printed(cells["paper_precision_inception"], 2),
        recall[0]: recall[1],
        "recall (paper, Inception)": fmt.printed(cells["paper_recall_inception"], 2),
        **_cas_columns(cells, "without RandAugment", networks),
        **dict(others),
    }
    return Table(
        name="table5",
        title="Table 5: diversity with a second network, and without RandAugment",
        cells=cells,
        columns=readable,
        notes=[
            "Precision, recall, density and coverage use features of "
            f"{EXTRACTORS.get(x, x)} (k = {params.evaluation.neighbors} neighbours; at most "
            f"{fmt.count(params.evaluation.manifold_images)} images of each of the two sets), and "
            "compare with the training images.",
            _cas_note(cells, "without RandAugment"),
            "Columns marked (paper …) are the paper's Table 5 on ImageNet 256×256, with ResNet-50 "
            "for CAS: compare orderings, not values.",
        ],
        paper=f"MaskGIT has a higher recall than VQGAN∗ with Inception's features too "
        f"({maskgit.recall:.2f} against {vqgan.recall:.2f}), and a higher CAS without RandAugment "
        f"(top-1 {fmt.percent(maskgit.cas_top1)} against {fmt.percent(vqgan.cas_top1)}).",
    )


# Classification Accuracy Scores: with RandAugment (Table 1) and without (Table 5)


def _cas_scores(results: Results, augmentation: str) -> pd.DataFrame:
    """Means and intervals over seeds of CAS, for each set of training images. Columns: `model`,
    `cas_seeds`, `cas_training_images`, and those of `over_seeds` for `cas_top1` and `cas_top5`."""
    rows = results.cas[results.cas["augmentation"] == augmentation]
    table = stats.over_seeds(rows, ["images", "training_images"], ["top1", "top5"])
    table = table.add_prefix("cas_")
    table.insert(0, "model", table.pop("cas_images").map(MODELS))
    return table.assign(cas_training_images=table.pop("cas_training_images"))


def _cas_columns(cells: pd.DataFrame, trained: str, among: pd.Series) -> dict[str, list[str]]:
    """Our columns of CAS, each followed by the paper's; `trained` is "with RandAugment" or "without
    RandAugment"."""
    seeds, found = cells["cas_seeds"].dropna(), {}
    over = f"{fmt.extent(seeds)} trainings" if seeds.max() > 1 else ""
    for top in ("1", "5"):
        label = f"CAS top-{top} {trained}"
        found[fmt.heading(label, over)] = fmt.column(cells, f"cas_top{top}", among)
        found[f"{label} (paper)"] = fmt.printed(cells[f"paper_cas_top{top}"], 4)
    return found


def _cas_note(cells: pd.DataFrame, trained: str) -> str:
    known = cells.dropna(subset="cas_seeds")
    pairs = zip(known["model"], known["cas_training_images"], strict=True)
    sets = ", ".join(f"{model} {fmt.count(images)}" for model, images in pairs)
    return (
        f"CAS is the accuracy, on real validation images, of a classifier that was trained "
        f"{trained} on the images of one row only ({sets}). Each seed is a training run of the "
        "classifier and, except for real images, of the network that made the images."
    )


# Label smoothing, an ablation that the paper does not have


def smoothing(results: Results, params: Params) -> Table:
    """One row per network and label smoothing, for every label smoothing used in training."""
    x, main = results.extractor, params.training.label_smoothing
    metrics = [*map(results.metric, ("fid", "is", "precision", "recall")), "class_accuracy"]
    values = [main, *results.other_smoothings(main)]
    sets = [stats.over_seeds(results.trained_with(value), ["images"], metrics) for value in values]
    sets = [part.assign(label_smoothing=value) for part, value in zip(sets, values, strict=True)]
    cells = pd.concat(sets, ignore_index=True)
    rank = cells["images"].map(NETWORKS.index)
    cells = cells.iloc[rank.argsort(kind="stable")].reset_index(drop=True)
    cells["images"] = cells["images"].map(MODELS)
    samples = results.evaluation["transformer"]["samples"]
    cells = stats.with_real_images(cells, results, samples, {"images": MODELS["real"]})
    labels = {name: fmt.counted_label(name, x, pd.Series([samples])) for name in metrics}
    over = fmt.seeds_of(cells["seeds"], params)
    return Table(
        name="smoothing",
        title="Label smoothing: the same for both networks",
        cells=cells.rename(columns={"images": "model"}),
        columns={
            "model": cells["images"],
            "label smoothing": fmt.printed(cells["label_smoothing"], 1),
            **fmt.columns(cells, labels, over, cells["seeds"].notna()),
        },
        notes=[
            "The paper trains both networks with label smoothing 0.1; all other tables here use "
            f"{main:g} for both. {measure_note(params, x)}"
        ],
    )
