"""Summarises the result files as text and as JSON. `make repro` ends with this summary."""

import math
from typing import TYPE_CHECKING, Any

from pipeline.config.params import load_params
from pipeline.config.paths import RESULTS
from pipeline.runtime.dag import HERE
from pipeline.runtime.errors import UserError
from pipeline.runtime.provenance import described, out_of_date
from pipeline.runtime.tables import has_param, read_metrics, read_rows

if TYPE_CHECKING:
    import pandas as pd

WHERE = """\
Where
  analysis/report.html           tables and figures, with the paper's values
  analysis/                      the same as files: tables/, timings/, figures/
  results/                       metrics, rows and curves of every stage
  make ui                        MLflow
"""
NETWORKS = {"transformer": "MaskGIT", "autoregressive": "VQGAN*"}
METRICS = {  # column in the result files -> label; {} is the feature extractor
    "class_accuracy": "recognised as their class",
    "fid_{}": "FID ({})",
    "is_{}": "IS ({})",
    "precision_{}": "precision",
    "recall_{}": "recall",
    "cas_top1_randaugment": "CAS top-1 with RandAugment",
    "cas_top1_none": "CAS top-1 without",
}
NOTHING = "–"
BySeed = dict[str, float | None]  # None if not measured, since JSON has no NaN


def summary_values() -> dict[str, Any]:
    """The results as a dict for JSON. Each metric of MaskGIT and the baseline is a dict from seed
    to value. `out_of_date` lists the stages whose results are left out because they are out of
    date. Raises a `UserError` if a result file is missing or damaged."""
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
        real = rows[rows["images"] == "real"].select_dtypes("number")
        values["real"] = {str(column): {"": float(value)} for column, value in real.mean().items()}
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
        metric = f"fid_{params.evaluation.extractor}"
        rows = read_rows(RESULTS / "sweep/rows.csv", ["schedule", "iterations", "seed"], [metric])
        cells = rows.groupby(["schedule", "iterations"])[metric].mean()
        schedule, iterations = cells.idxmin()
        best = {"schedule": schedule, "iterations": int(iterations), metric: float(cells.min())}
        seeds = len(params.sweep.seeds)
        values["ablation"] = {"cells": len(cells), "seeds": seeds, "best": best}
    return _without_nan(values)


def _by_seed(values: "pd.Series") -> BySeed:
    return {str(int(seed)): float(value) for seed, value in values.items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def summary() -> str:
    """The main results as a few lines of text, and where to find all results. A line names stages
    whose results are left out because they are out of date. Raises a `UserError` if all results are
    out of date, or a result file is missing or damaged."""
    from tabulate import tabulate

    from pipeline.api.opening import read_results  # imports torch

    values, stale = summary_values(), out_of_date()
    name, networks = values["extractor"], values["networks"]
    columns = {label: networks[network] for network, label in NETWORKS.items()}
    columns["real images"] = values.get("real", {})
    rows = [
        [label.format(name), *(over_seeds(of.get(key.format(name), {})) for of in columns.values())]
        for key, label in METRICS.items()
    ]
    params = load_params()
    seeds = params.evaluation.seeds
    over = f"means (and ranges), {len(seeds)} seeds"
    text = [
        f"\nPreset {values['preset']} on {values['source']}: {over}",
        "",
    ]
    if shown := [row for row in rows if set(row[1:]) != {NOTHING}]:
        text += [tabulate(shown, ["", *columns], disable_numparse=True), ""]
    if found := values.get("tokenizer"):
        rfid = found.get(f"rfid_{name}")  # None: too few validation images
        quality = NOTHING if rfid is None else f"{rfid:.2f}"
        text.append(
            f"Tokenizer: PSNR {found['psnr']:.1f} dB, rFID ({name}) {quality}, "
            f"{found['code_usage']:.0%} of codes used"
        )
    if found := values.get("ablation"):
        best = found["best"]
        text.append(
            f"Ablation: lowest mean of {found['cells']} cells, chosen on its own samples: "
            f"{best['schedule']}, T = {best['iterations']}, FID ({name}) {best[f'fid_{name}']:.3f}"
        )
    if len(text) == 2:
        reason = f"these params have no results yet ({', '.join(stale)} must run)"
        raise UserError("params.yaml", reason, "run `dvc repro`")
    if "evaluate" not in stale and any(read_results(HERE, params, s)[1] for s in seeds):
        text.append("MaskGIT is barely trained: few samples are recognised; raise training.steps")
    if stale:
        text.append(f"Out of date (run `dvc repro`): {described(stale)}")
    return "\n".join([*text, "", WHERE])


def over_seeds(found: BySeed) -> str:
    """The mean of a metric over seeds, and its range: "0.692 (0.661 to 0.724)"."""
    values = [value for value in found.values() if value is not None]
    if len(values) < max(1, len(found)):
        return NOTHING
    mean = f"{sum(values) / len(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"
