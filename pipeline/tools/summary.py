"""The summary at the end of `make repro`, made from result files, as text and as JSON."""

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
NETWORKS = {"transformer": "MaskGIT", "autoregressive": "VQGAN*"}
WAYS = {"randaugment": "with", "none": "without"}  # RandAugment
BySeed = dict[str, float | None]  # JSON has no NaN: what was not measured is null


def summary_values() -> dict[str, Any]:
    """The results as numbers: every metric of both networks by seed. Stages whose results are out
    of date are named instead.

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
        values["tokenizer"] = read_metrics(RESULTS / "tokenizer/metrics.json", "psnr")
    if "evaluate" not in stale:
        rows = read_rows(RESULTS / "evaluation/rows.csv", ["images", "label_smoothing", "seed"], [])
        main = rows[has_param(rows["label_smoothing"], params.training.label_smoothing)]
        for name, metrics in values["networks"].items():
            own = main[main["images"] == name].set_index("seed").select_dtypes("number")
            own = own.drop(columns="label_smoothing")
            metrics |= {str(column): _by_seed(own[column]) for column in own}
        rfid = f"rfid_{params.evaluation.extractor}"
        if "tokenizer" in values and rfid in rows:
            rebuilt = rows[rows["images"] == "reconstruction"]
            values["tokenizer"][rfid] = float(rebuilt[rfid].mean())
    if "cas" not in stale:
        rows = read_rows(RESULTS / "cas/rows.csv", ["images", "augmentation", "seed"], ["top1"])
        for (images, way), own in rows.groupby(["images", "augmentation"]):
            place = values["networks"].get(images, values.setdefault("real", {}))
            place[f"cas_top1_{way}"] = _by_seed(own.set_index("seed")["top1"])
    if "sweep" not in stale and (RESULTS / "sweep/rows.csv").exists():
        values["ablation"] = _ablation(params)
    return _without_nan(values)


def _ablation(params: Params) -> dict[str, Any]:
    metric = f"fid_{params.evaluation.extractor}"
    rows = read_rows(RESULTS / "sweep/rows.csv", ["schedule", "iterations", "seed"], [metric])
    cells = rows.groupby(["schedule", "iterations"])[metric].mean()
    schedule, iterations = cells.idxmin()
    best = {"schedule": schedule, "iterations": int(iterations), metric: float(cells.min())}
    return {"cells": len(cells), "seeds": len(params.sweep.seeds), "best": best}


def _by_seed(values: "pd.Series") -> BySeed:
    return {str(int(seed)): float(value) for seed, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def summary() -> str:
    """The main results in a few lines, and where to find all results. Stages whose results are out
    of date are named instead.

    Raises:
        UserError: no result is of these params, or a file is missing or damaged.
    """
    values, stale = summary_values(), out_of_date()
    blocks = {"tokenizer": _tokenizer(values)}
    blocks |= {label: _network(values, name) for name, label in NETWORKS.items()}
    blocks |= {"real images": _cas(values.get("real", {})), "ablation": _best_cell(values)}
    if not any(blocks.values()):
        raise UserError("params.yaml", f"no result is of it: {described(stale)}", "run `dvc repro`")
    text = [
        "",
        f"Preset {values['preset']}: features of {values['extractor']} on {values['source']}; "
        f"means (and ranges) over seeds",
    ]
    for label, lines in blocks.items():
        for number, line in enumerate(lines):
            text.append(f"  {label if number == 0 else '':<{LABEL}}{line}")
    if stale:
        text.append("Left out, since it is out of date (`dvc repro` makes it new)")
        text.append(textwrap.indent(textwrap.fill(described(stale), WIDTH - 2), "  "))
    return "\n".join([*text, WHERE])


def _tokenizer(values: dict[str, Any]) -> list[str]:
    found, name = values.get("tokenizer", {}), values["extractor"]
    rfid = found.get(f"rfid_{name}")
    if "code_usage" not in found:
        return []
    shown = "–" if rfid is None else f"{rfid:.2f}"
    return [
        f"PSNR {found['psnr']:.1f} dB, rFID ({name}) {shown}, "
        f"{found['code_usage']:.0%} of codes used"
    ]


def _network(values: dict[str, Any], network: str) -> list[str]:
    found, name = values["networks"][network], values["extractor"]
    if "class_accuracy" not in found:
        return _cas(found)
    kinds = ("fid", "is", "precision", "recall")
    fid, score, precision, recall = (over_seeds(found.get(f"{k}_{name}", {})) for k in kinds)
    data = read_metrics(RESULTS / "prepare/metrics.json", "classes", "largest_class")
    uniform = load_params().evaluation.labels == "uniform"
    chance = 1 / data["classes"] if uniform else data["largest_class"]
    return [
        f"{over_seeds(found['class_accuracy'], '.1%')} of samples recognised as their class "
        f"(guessing: {100 * chance:.3g}%)",
        f"FID ({name}) {fid}, IS {score}",
        f"precision {precision}, recall {recall}",
        *_cas(found),
    ]


def _cas(found: dict[str, BySeed]) -> list[str]:
    """Both accuracies, in the form that Tables 1 and 5 have."""
    return [
        f"CAS top-1 {over_seeds(found[f'cas_top1_{way}'], '.3f')} {word} RandAugment"
        for way, word in WAYS.items()
        if f"cas_top1_{way}" in found
    ]


def _best_cell(values: dict[str, Any]) -> list[str]:
    if (found := values.get("ablation")) is None:
        return []
    best, name = found["best"], values["extractor"]
    seeds = "1 seed" if found["seeds"] == 1 else f"{found['seeds']} seeds"
    return [
        f"{found['cells']} cells of {seeds}; lowest mean, chosen on its own samples:",
        f"{best['schedule']}, T = {best['iterations']}, FID ({name}) {best[f'fid_{name}']:.2f}",
    ]


def over_seeds(found: BySeed, form: str = ".2f") -> str:
    """The mean of a metric over seeds, and its range: "0.69 (0.66 to 0.72, 3 seeds)"."""
    values = [value for value in found.values() if value is not None]
    if len(values) < max(1, len(found)):
        return "–"
    mean = format(sum(values) / len(values), form)
    if len(values) == 1:
        return f"{mean} (1 seed)"
    return f"{mean} ({min(values):{form}} to {max(values):{form}}, {len(values)} seeds)"
