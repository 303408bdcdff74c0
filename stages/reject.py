"""Classifier-based rejection sampling of both networks' samples (Table 4)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.experiments.reject import rejection_rows
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from stages.running import run_stage

KEYS = ("network", "selection", "acceptance", "candidates", "samples")


def main(params: Params) -> str:
    target = RESULTS / "rejection/rows.csv"
    with Stage("reject", params) as stage:
        rows = rejection_rows(params, pick_device())
        write_csv(target, rows)
        stage.run.log_artifact(target)
        stage.run.log_metrics(
            {f"{_name(row)}/{k}": row[k] for row in rows for k in row if k not in KEYS}
        )
    ours = [row for row in rows if row["network"] == "transformer"]
    strictest = min(row["acceptance"] for row in ours)
    shares = [row["class_accuracy"] for row in ours if row["acceptance"] == strictest]
    return (
        f"reject: of the {strictest:.0%} rated highest {shares[0]:.1%} are recognised, of as many "
        f"at random {shares[1]:.1%}; in {target}"
    )


def _name(row: dict) -> str:
    return f"{row['network']}/{row['selection']}/{row['acceptance']:g}"


if __name__ == "__main__":
    run_stage(main)
