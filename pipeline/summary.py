"""The closing summary of `make repro`, from result files."""

from pipeline.layout import RESULTS
from pipeline.params import load_params
from pipeline.runtime.files import read_json


def summary() -> str:
    """Main results in a few lines, and where everything lies."""
    import pandas as pd

    params = load_params()
    extractor = params.evaluation.extractor
    metrics = read_json(RESULTS / "evaluation/metrics.json")
    tokenizer = read_json(RESULTS / "tokenizer/metrics.json")
    rows = pd.read_csv(RESULTS / "sweep/rows.csv")
    fid, rfid = f"fid_{extractor}", tokenizer[f"rfid_{extractor}"]
    cells = rows.groupby(["schedule", "iterations"])[fid].mean()
    (schedule, iterations), best = cells.idxmin(), cells.min()
    return f"""
Preset {params.preset}: features of {extractor} on {params.data.source}
  tokenizer    PSNR {tokenizer["psnr"]:.1f} dB, rFID ({extractor}) {rfid:.2f}, \
{tokenizer["code_usage"]:.0%} of codes used
  main model   {metrics["class_accuracy"]:.1%} of samples recognised as their class
               FID ({extractor}) {metrics[fid]:.2f}, IS {metrics[f"is_{extractor}"]:.2f}, \
precision {metrics[f"precision_{extractor}"]:.2f}, recall {metrics[f"recall_{extractor}"]:.2f}
               CAS {metrics["cas_top1"]:.1%} (real data {metrics["cas_real_top1"]:.1%})
  ablation     best: {schedule}, T = {iterations}, FID ({extractor}) {best:.2f}; {len(rows)} cells
Where
  analysis/tables/table3.md      Table 3, the paper's values beside
  analysis/figures/              Figure 8, Figure 2, samples
  results/                       metrics.json, rows.csv and curves of every stage
  make ui                        MLflow
"""
