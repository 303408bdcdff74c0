"""Validation images in- and outpainted, measured and pictured (Table 2, Figures 6 and 7)."""

import numpy as np

from pipeline.evaluation.edits import edit_pictures, edit_rows
from pipeline.layout import RESULTS
from pipeline.params import Params
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import atomic_file, value_hash, write_csv
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run

KEYS = ("task", "method", "seed", "images")


def main(params: Params) -> str:
    device, results = pick_device(), RESULTS / "editing"
    with stage_run("edit", params, value_hash(stage_key("edit"))) as run:
        key = stage_key("edit", ignore=["editing.seeds"])
        rows = edit_rows(params, run_dir("edit", key, params.ray.storage_path), device)
        write_csv(results / "rows.csv", rows)
        with atomic_file(results / "pictures.npz") as path, open(path, "wb") as handle:
            np.savez_compressed(handle, **edit_pictures(params, device))
        run.log_artifact(results / "rows.csv")
        run.log_metrics({f"{_name(row)}/{k}": row[k] for row in rows for k in row if k not in KEYS})
    inpainted = [row["class_accuracy"] for row in rows if _name(row).startswith("inpaint")]
    return (
        f"edit: inpainted images recognised {inpainted[1]:.1%} (nearest pixel {inpainted[0]:.1%}); "
        f"in {results}"
    )


def _name(row: dict) -> str:
    seed = "" if row["seed"] is None else f"/seed{row['seed']}"
    return f"{row['task']}/{row['method']}{seed}"


if __name__ == "__main__":
    run_stage(main)
