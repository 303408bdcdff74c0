"""Validation images in- and outpainted, measured and pictured (Table 2, Figures 6 and 7)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.experiments.edit import edit_pictures, edit_rows
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv, write_npz
from pipeline.runtime.stage import Stage
from stages.running import main_schedule, run_stage

KEYS = ("task", "method", "seed", "images")


def main(params: Params) -> str:
    device, results = pick_device(), RESULTS / "editing"
    with Stage("edit", params) as stage:
        rows = edit_rows(params, stage.folder("editing.seeds"), device)
        write_csv(results / "rows.csv", rows)
        write_npz(results / "pictures.npz", edit_pictures(params, device))
        stage.run.log_artifact(results / "rows.csv")
        stage.run.log_metrics(
            {f"{_name(row)}/{k}": row[k] for row in rows for k in row if k not in KEYS}
        )
    inpainted = [row["class_accuracy"] for row in rows if _name(row).startswith("inpaint")]
    return (
        f"edit: inpainted images recognised {inpainted[1]:.1%} (nearest pixel {inpainted[0]:.1%}); "
        f"in {results}"
    )


def _name(row: dict) -> str:
    seed = "" if row["seed"] is None else f"/seed{row['seed']}"
    return f"{row['task']}/{row['method']}{seed}"


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
