"""Table 5: precision and recall over another network's features, CAS without RandAugment."""

import math

import pandas as pd

from analysis.exhibits import cas
from analysis.exhibits.base import Table
from analysis.exhibits.findings import Measured, contrast
from analysis.exhibits.formatting import number, percent, printed
from analysis.exhibits.inputs import paper
from analysis.exhibits.inputs.metrics import EXTRACTORS, MODELS, metric_label
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import beside
from pipeline.config.params import Params

KINDS = ("precision", "recall", "density", "coverage")


def table(results: Results, params: Params) -> Table:
    """Every set of images in a row, beside the paper's Table 5."""
    _, x = results.manifold_extractors
    metrics = [f"{kind}_{x}" for kind in KINDS]
    sets = pd.DataFrame(results.evaluation[name] for name in MODELS).reindex(columns=metrics)
    sets.insert(0, "model", list(MODELS.values()))
    sets = sets.merge(cas.scores(results, "none"), how="left", on="model")
    cells = beside(sets, _printed(), ["model"])
    precision, recall, density, coverage = metrics
    readable = {
        "model": cells["model"],
        metric_label(precision, x): cells[precision].map(number),
        "precision (paper, Inception)": printed(cells["paper_precision_inception"], 2),
        metric_label(recall, x): cells[recall].map(number),
        "recall (paper, Inception)": printed(cells["paper_recall_inception"], 2),
        **cas.readable(cells),
        metric_label(density, x): cells[density].map(number),
        metric_label(coverage, x): cells[coverage].map(number),
    }
    ours, theirs = paper.TABLE_5["MaskGIT"], paper.TABLE_5["VQGAN∗"]
    return Table(
        name="table5",
        title="Table 5: diversity with a second network, and without RandAugment",
        cells=cells,
        readable=pd.DataFrame(readable),
        notes=[
            f"Precision, recall, density and coverage are over features of {EXTRACTORS.get(x, x)}, "
            f"compared with those of the training images (k = {params.evaluation.neighbors}).",
            cas.note(cells, "without RandAugment"),
            "Columns marked (paper …) are the paper's Table 5 on ImageNet 256×256, with ResNet-50 "
            "for CAS: compare orderings, not values.",
        ],
        paper=f"MaskGIT has a higher recall than VQGAN∗ with Inception's features too "
        f"({ours.recall:.2f} against {theirs.recall:.2f}), and a higher CAS without RandAugment "
        f"(top-1 {percent(ours.cas_top1)} against {percent(theirs.cas_top1)}).",
        here=_findings(cells.set_index("model"), x),
        files=["evaluation/metrics.json", "cas/rows.csv"],
    )


def _printed() -> pd.DataFrame:
    rows = [(model, *row) for model, row in paper.TABLE_5.items()]
    rows.append((MODELS["real"], math.nan, math.nan, *paper.TABLE_5_REAL))
    columns = ["precision_inception", "recall_inception", "cas_top1", "cas_top5"]
    return pd.DataFrame(rows, columns=["model", *(f"paper_{name}" for name in columns)])


def _findings(cells: pd.DataFrame, x: str) -> list[str]:
    models = ("MaskGIT", "VQGAN∗")
    found = [contrast("CAS top-1", *(cas.measured(cells, model) for model in models))]
    for kind in ("recall", "precision"):
        metric = f"{kind}_{x}"
        sides = (Measured(model, cells.loc[model, metric]) for model in models)
        found.append(contrast(metric_label(metric, x), *sides))
    return found
