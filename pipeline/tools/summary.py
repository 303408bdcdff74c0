"""The closing summary of `make repro`, from result files."""

import math
import textwrap
from typing import TYPE_CHECKING, Any

from pipeline.config.params import Params, load_params
from pipeline.config.paths import RESULTS
from pipeline.runtime.errors import UserError
from pipeline.runtime.provenance import described, out_of_date
from pipeline.runtime.tables import has_param, read_metrics, read_rows

if TYPE_CHECKING:
    import pandas as pd

LABEL, WIDTH = 13, 100  # letters of the first column, and of a line
WHERE = """\
Where
  analysis/report.html           tables and figures, the paper's values beside
  analysis/                      the same as files: tables/, timings/, figures/
  results/                       metrics, rows and curves of every stage
  make ui                        MLflow
"""
NETWORKS = ("transformer", "autoregressive")
WAYS = {"randaugment": "with", "none": "without"}  # RandAugment
# What names a row of an experiment.
KEYS = {
    "evaluation": ["images", "label_smoothing", "seed"],
    "cas": ["images", "augmentation", "seed"],
    "sweep": ["schedule", "iterations", "seed"],
}


def summary() -> str:
    """The main results in a few lines, and where to find all results. What is out of date is left
    out, and said.

    Raises:
        UserError: no result is of these params, or a file is missing or damaged.
    """
    params, stale = load_params(), out_of_date()
    blocks = {
        "tokenizer": (_tokenizer, ("train_tokenizer", "evaluate")),
        "MaskGIT": (lambda p: _network(p, "transformer"), ("evaluate", "cas")),
        "VQGAN*": (lambda p: _network(p, "autoregressive"), ("evaluate", "cas")),
        "real images": (lambda p: _cas("real"), ("cas",)),
        "ablation": (_ablation, ("sweep",)),
    }
    current = {
        label: lines(params)
        for label, (lines, stages) in blocks.items()
        if not stale.keys() & set(stages)
    }
    if not current:
        raise UserError(
            f"no result is of params.yaml as it is now: {described(stale)}; run `dvc repro`"
        )
    head = (
        f"Preset {params.preset}: features of {params.evaluation.extractor} on "
        f"{params.data.source}; means (and ranges) over seeds"
    )
    text = ["", head]
    for label, lines in current.items():
        for number, line in enumerate(lines):
            text.append(f"  {label if number == 0 else '':<{LABEL}}{line}")
    if stale:
        text.append("Left out, since it is out of date (`dvc repro` makes it new)")
        text.append(textwrap.indent(textwrap.fill(described(stale), WIDTH - 2), "  "))
    return "\n".join([*text, WHERE])


def _tokenizer(params: Params) -> list[str]:
    rfid = f"rfid_{params.evaluation.extractor}"
    every = _rows("evaluation", rfid)
    rebuilt = every[every["images"] == "reconstruction"].iloc[0]
    tokenizer = read_metrics(RESULTS / "tokenizer/metrics.json", "psnr", "code_usage")
    return [
        f"PSNR {tokenizer['psnr']:.1f} dB, rFID ({params.evaluation.extractor}) "
        f"{_shown(rebuilt[rfid])}, {tokenizer['code_usage']:.0%} of codes used"
    ]


def _network(params: Params, key: str) -> list[str]:
    name = params.evaluation.extractor
    metrics = [f"{kind}_{name}" for kind in ("fid", "is", "precision", "recall")]
    every = _rows("evaluation", "class_accuracy", *metrics)
    of = every[_main(every, params) & (every["images"] == key)]
    fid, score, precision, recall = (over_seeds(of[metric]) for metric in metrics)
    data = read_metrics(RESULTS / "prepare/metrics.json", "classes", "largest_class")
    uniform = params.evaluation.labels == "uniform"
    chance = 1 / data["classes"] if uniform else data["largest_class"]
    return [
        f"{over_seeds(of['class_accuracy'], '.1%')} of samples recognised as their class "
        f"(guessing: {100 * chance:.3g}%)",
        f"FID ({name}) {fid}, IS {score}",
        f"precision {precision}, recall {recall}",
        *_cas(key),
    ]


def _main(rows: "pd.DataFrame", params: Params) -> "pd.Series":
    """Which rows are of the main trainings."""
    return has_param(rows["label_smoothing"], params.training.label_smoothing)


def _cas(images: str) -> list[str]:
    """Both accuracies, by the names and in the form that Tables 1 and 5 have."""
    rows = _rows("cas", "top1")
    top1 = rows[rows["images"] == images].set_index("augmentation")["top1"]
    return [
        f"CAS top-1 {over_seeds(top1[[way]], '.3f')} {word} RandAugment"
        for way, word in WAYS.items()
    ]


def _ablation(params: Params) -> list[str]:
    name, sweep = params.evaluation.extractor, params.sweep
    rows = _rows("sweep", f"fid_{name}")
    cells = rows.groupby(["schedule", "iterations"])[f"fid_{name}"].mean()
    seeds = "1 seed" if len(sweep.seeds) == 1 else f"{len(sweep.seeds)} seeds"
    (schedule, iterations), best = cells.idxmin(), cells.min()
    return [
        f"{len(cells)} cells of {seeds}; lowest mean, chosen on its own samples:",
        f"{schedule}, T = {iterations}, FID ({name}) {best:.2f}",
    ]


def _rows(experiment: str, *values: str) -> "pd.DataFrame":
    return read_rows(RESULTS / experiment / "rows.csv", KEYS[experiment], list(values))


def summary_values() -> dict[str, Any]:
    """The results as numbers: every metric of both networks by seed. What is out of date is left
    out, and named.

    Raises:
        UserError: a file is missing or damaged.
    """
    params, stale = load_params(), out_of_date()
    values: dict[str, Any] = {
        "preset": params.preset,
        "source": params.data.source,
        "extractor": params.evaluation.extractor,
        "out_of_date": list(stale),
        "networks": {name: {} for name in NETWORKS},
    }
    if "train_tokenizer" not in stale:
        tokenizer = read_metrics(RESULTS / "tokenizer/metrics.json", "psnr")
        values["tokenizer"] = {name: _or_null(value) for name, value in tokenizer.items()}
    for name, metrics in values["networks"].items():
        if "evaluate" not in stale:
            rows = _rows("evaluation")
            rows = rows[_main(rows, params)]
            own = rows[rows["images"] == name].set_index("seed").select_dtypes("number")
            own = own.drop(columns="label_smoothing")
            metrics |= {str(column): _by_seed(own[column]) for column in own}
        if "cas" not in stale:
            rows = _rows("cas", "top1")
            for way, own in rows[rows["images"] == name].groupby("augmentation"):
                metrics[f"cas_top1_{way}"] = _by_seed(own.set_index("seed")["top1"])
    return values


def _by_seed(values: "pd.Series") -> dict[str, float | None]:
    return {str(int(k)): _or_null(float(v)) for k, v in values.items()}


def _or_null(value: float) -> float | None:
    """JSON has no NaN: what was not measured is null."""
    return None if math.isnan(value) else value


def over_seeds(values: "pd.Series", form: str = ".2f") -> str:
    """The mean of a metric over seeds, and its range: "0.69 (0.66 to 0.72, 3 seeds)"."""
    if values.isna().any():
        return "–"
    mean = format(values.mean(), form)
    if len(values) == 1:
        return f"{mean} (1 seed)"
    low, high = format(values.min(), form), format(values.max(), form)
    return f"{mean} ({low} to {high}, {len(values)} seeds)"


def _shown(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
