"""Samples of the main model at other choice temperatures."""

from pipeline.evaluation.temperature import temperature_rows
from pipeline.layout import RESULTS
from pipeline.params import Params
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import value_hash, write_csv
from pipeline.runtime.runs import run_dir, stage_key
from pipeline.runtime.stage import run_stage
from pipeline.runtime.tracking import stage_run

KEYS = ("choice_temperature", "seed", "samples")


def main(params: Params) -> str:
    target = RESULTS / "temperature/rows.csv"
    with stage_run("temperature", params, value_hash(stage_key("temperature"))) as run:
        key = stage_key("temperature", ignore=["temperature.values", "temperature.seeds"])
        folder = run_dir("temperature", key, params.ray.storage_path)
        rows = temperature_rows(params, folder, pick_device())
        write_csv(target, rows)
        run.log_artifact(target)
        for row in rows:
            name = f"{row['choice_temperature']:g}/seed{row['seed']}"
            run.log_metrics({f"{name}/{k}": row[k] for k in row if k not in KEYS})
    best = max(rows, key=lambda row: row["class_accuracy"])
    return (
        f"temperature: most are recognised at {best['choice_temperature']:g}, "
        f"{best['class_accuracy']:.1%}; in {target}"
    )


if __name__ == "__main__":
    run_stage(main)
