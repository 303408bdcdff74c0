"""Table 5: precision and recall over another network's features, CAS without RandAugment."""

import math

import pandas as pd

from analysis.exhibits import cas, claims, intervals
from analysis.exhibits.base import Table
from analysis.exhibits.formatting import count, number, percent, printed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import EXTRACTORS, MODELS, NETWORKS, metric_label
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.sets import sets_of
from analysis.exhibits.statistics import beside
from pipeline.config.params import Params

KINDS = ("precision", "recall", "density", "coverage")


def table(results: Results, params: Params) -> Table:
    """Every set of images in a row, beside the paper's Table 5."""
    _, x = results.manifold_extractors
    metrics = [f"{kind}_{x}" for kind in KINDS]
    sets = sets_of(results, params, metrics).merge(
        cas.scores(results, "none"), how="left", on="model"
    )
    cells = beside(sets, _printed(), ["model"])
    precision, recall, density, coverage = metrics
    networks = cells["model"].isin([MODELS[name] for name in NETWORKS])
    readable = {
        "model": cells["model"],
        "±: 95% interval over": cells["over"].fillna("–"),
        f"{metric_label(precision, x)} ±": intervals.column(cells, precision, networks),
        "precision (paper, Inception)": printed(cells["paper_precision_inception"], 2),
        f"{metric_label(recall, x)} ±": intervals.column(cells, recall, networks),
        "recall (paper, Inception)": printed(cells["paper_recall_inception"], 2),
        **cas.readable(cells, "without RandAugment", networks),
        f"{metric_label(density, x)} ±": intervals.column(cells, density, networks),
        f"{metric_label(coverage, x)} ±": intervals.column(cells, coverage, networks),
    }
    ours, theirs = paper.TABLE_5["MaskGIT"], paper.TABLE_5["VQGAN∗"]
    return Table(
        name="table5",
        title="Table 5: diversity with a second network, and without RandAugment",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=[
            f"Precision, recall, density and coverage are over features of {EXTRACTORS.get(x, x)}, "
            f"compared with those of the training images (k = {params.evaluation.neighbors}, on at "
            f"most {count(params.evaluation.manifold_images)} images of each side)."
            f"{_decoded(cells, recall, x)}",
            cas.note(cells, "without RandAugment"),
            "Columns marked (paper …) are the paper's Table 5 on ImageNet 256×256, with ResNet-50 "
            "for CAS: compare orderings, not values.",
        ],
        paper=f"MaskGIT has a higher recall than VQGAN∗ with Inception's features too "
        f"({ours.recall:.2f} against {theirs.recall:.2f}), and a higher CAS without RandAugment "
        f"(top-1 {percent(ours.cas_top1)} against {percent(theirs.cas_top1)}).",
        here=claims.sentences(results, params, "table5-table"),
        files=["evaluation/rows.csv", "cas/rows.csv"],
    )


def _printed() -> pd.DataFrame:
    rows = [(model, *row) for model, row in paper.TABLE_5.items()]
    rows.append((MODELS["real"], math.nan, math.nan, *paper.TABLE_5_REAL))
    columns = ["precision_inception", "recall_inception", "cas_top1", "cas_top5"]
    return pd.DataFrame(rows, columns=["model", *(f"paper_{name}" for name in columns)])


def _decoded(cells: pd.DataFrame, recall: str, x: str) -> str:
    """How much recall an untrained network takes from images because they were decoded."""
    by_model = cells.set_index("model")[f"{recall}_mean"]
    rebuilt, real = (by_model[MODELS[name]] for name in ("reconstruction", "real"))
    if x != "random" or not rebuilt < real:
        return ""
    return (
        " In these features the tokenizer's reconstructions of validation images have a recall of "
        f"{number(rebuilt)}, the validation images themselves {number(real)}: decoding alone costs "
        "so much, whatever the tokens, so that the networks' values say nothing about the paper's."
    )
