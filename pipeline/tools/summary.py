"""The closing summary of `make repro`, from result files."""

from pipeline.config.params import load_params
from pipeline.config.paths import RESULTS
from pipeline.runtime.files import read_json


def summary() -> str:
    """The main results in a few lines, and where to find all results."""
    import pandas as pd

    params = load_params()
    name = params.evaluation.extractor
    metrics = read_json(RESULTS / "evaluation/metrics.json")
    tokenizer = read_json(RESULTS / "tokenizer/metrics.json") | metrics["reconstruction"]
    cas = pd.read_csv(RESULTS / "cas/rows.csv").query("augmentation == 'none'")
    top1 = cas.groupby("images")["top1"].mean()
    rows = pd.read_csv(RESULTS / "sweep/rows.csv")
    cells = rows.groupby(["schedule", "iterations"])[f"fid_{name}"].mean()
    (schedule, iterations), best = cells.idxmin(), cells.min()

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    def network(label: str, key: str) -> str:
        values = metrics[key]
        fid, spread = values[f"fid_{name}"], values[f"fid_{name}_std"]
        precision, recall = values[f"precision_{name}"], values[f"recall_{name}"]
        return f"""\
  {label:<12} {values["class_accuracy"]:.1%} of samples recognised as their class
               FID ({name}) {shown(fid)} ± {shown(spread)}, IS {values[f"is_{name}"]:.2f}, \
precision {precision:.2f}, recall {recall:.2f}
               CAS {top1[key]:.1%} (real data {top1["real"]:.1%})"""

    return f"""
Preset {params.preset}: features of {name} on {params.data.source}
  tokenizer    PSNR {tokenizer["psnr"]:.1f} dB, rFID ({name}) {shown(tokenizer[f"rfid_{name}"])}, \
{tokenizer["code_usage"]:.0%} of codes used
{network("MaskGIT", "transformer")}
{network("VQGAN*", "autoregressive")}
  ablation     best: {schedule}, T = {iterations}, FID ({name}) {best:.2f}; {len(rows)} cells
Where
  analysis/report.html           every table and figure, the paper's values beside
  analysis/tables/, figures/     the same as files
  results/                       metrics, rows and curves of every stage
  make ui                        MLflow
"""
