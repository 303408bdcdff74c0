"""The few numbers that DVC and MLflow show of a run: all others are in the result files."""

import math
from collections.abc import Collection

from analysis.exhibits.inputs.results import Results

NETWORKS = {"MaskGIT": "transformer", "VQGAN": "autoregressive"}
KINDS = ("fid", "is", "class_accuracy")

STAGES = {"tokenizer": ("train_tokenizer", "evaluate"), "sweep": ("sweep",), "editing": ("edit",)}
STAGES |= dict.fromkeys(NETWORKS, ("evaluate", "cas"))

Headline = dict[str, dict[str, float | str]]


def headline(results: Results, stale: Collection[str] = ()) -> Headline:
    """Means over seeds, by what they are of; what could not be measured is left out.

    Args:
        stale: stages whose results are out of date: what they made is left out, too.
    """
    fid = results.metric("fid")
    found: Headline = {
        "tokenizer": {"psnr": results.tokenizer["psnr"], f"r{fid}": _rfid(results, fid)},
        **{name: _network(results, of) for name, of in NETWORKS.items()},
        "sweep": _best_cell(results, fid),
        "editing": {"inpainted_class_accuracy": _inpainted(results)},
    }
    current = {name for name in found if not set(STAGES[name]) & {*stale}}
    return {name: _measured(values) for name, values in found.items() if name in current}


def _rfid(results: Results, fid: str) -> float:
    return results.evaluation.get("reconstruction", {}).get(f"r{fid}", math.nan)


def _network(results: Results, network: str) -> dict[str, float | str]:
    """Of Tables 1 and 5: the samples of a network, and CAS without RandAugment."""
    metrics = results.evaluation[network]
    kept: dict[str, float | str] = {
        results.metric(kind): metrics[results.metric(kind)] for kind in KINDS
    }
    trained = results.cas[results.cas["images"] == network]
    return kept | {"cas": float(trained[trained["augmentation"] == "none"]["top1"].mean())}


def _best_cell(results: Results, fid: str) -> dict[str, float | str]:
    """Of Table 3: the lowest mean of all cells, which is chosen on its own samples."""
    means = results.sweep.rows.groupby(["schedule", "iterations"])[fid].mean()
    schedule, iterations = means.idxmin()
    return {"best": f"{schedule} T={iterations}", fid: float(means.min())}


def _inpainted(results: Results) -> float:
    """Of Table 2: the share of inpainted images that are recognised as their class."""
    rows = results.editing
    ours = rows[(rows["method"] == "maskgit") & rows["task"].str.startswith("inpaint")]
    return float(ours["class_accuracy"].mean())


def _measured(values: dict[str, float | str]) -> dict[str, float | str]:
    return {k: v for k, v in values.items() if isinstance(v, str) or math.isfinite(v)}
