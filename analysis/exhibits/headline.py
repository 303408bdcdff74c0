"""The headline numbers of a run, which DVC and MLflow show."""

import math
from collections.abc import Collection

from analysis.exhibits.results import Results

Values = dict[str, float | str]
NETWORKS = {"MaskGIT": "transformer", "VQGAN": "autoregressive"}
STAGES = {
    "tokenizer": {"train_tokenizer", "evaluate"},
    **{name: {"evaluate", "cas"} for name in NETWORKS},
    "sweep": {"sweep"},
    "editing": {"edit"},
}


def headline(results: Results, stale: Collection[str] = ()) -> dict[str, Values]:
    """The headline numbers by group, as means over seeds. Values that were not measured, and values
    from `stale` stages, whose results are out of date, are left out."""
    fid = results.metric("fid")
    rebuilt = results.evaluation["reconstruction"].get(f"r{fid}", math.nan)
    # This FID is optimistic: the same samples choose the sweep's best (schedule, T).
    cells = results.sweep.groupby(["schedule", "iterations"])[fid].mean()
    schedule, iterations = cells.idxmin()
    edits = results.editing[results.editing["method"] == "maskgit"]
    inpainted = edits[edits["task"].str.startswith("inpaint")]["class_accuracy"]
    found: dict[str, Values] = {
        "tokenizer": {"psnr": results.tokenizer["psnr"], f"r{fid}": rebuilt},
        **{name: _network(results, of) for name, of in NETWORKS.items()},
        "sweep": {"best": f"{schedule} T={iterations}", fid: float(cells.min())},
        "editing": {"inpainted_class_accuracy": float(inpainted.mean())},
    }
    return {
        name: {k: v for k, v in values.items() if isinstance(v, str) or math.isfinite(v)}
        for name, values in found.items()
        if not STAGES[name] & {*stale}
    }


def _network(results: Results, network: str) -> Values:
    """Metrics of a network's samples, and CAS without RandAugment."""
    metrics = [results.metric(kind) for kind in ("fid", "is", "class_accuracy")]
    values: Values = {name: results.evaluation[network][name] for name in metrics}
    cas = results.cas[results.cas["augmentation"] == "none"]
    return values | {"cas": float(cas[cas["images"] == network]["top1"].mean())}
