"""Samples of the main model at other choice temperatures."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from stages.running import main_schedule, run_stage

KEYS = ("choice_temperature", "seed", "samples")


def main(params: Params) -> str:
    target = RESULTS / "temperature/rows.csv"
    with Stage("temperature", params) as stage:
        folder = stage.folder("temperature.values", "temperature.seeds")
        rows = temperature_rows(params, folder, pick_device())
        write_csv(target, rows)
        stage.run.log_artifact(target)
        for row in rows:
            name = f"{row['choice_temperature']:g}/seed{row['seed']}"
            stage.run.log_metrics({f"{name}/{k}": row[k] for k in row if k not in KEYS})
    best = max(rows, key=lambda row: row["class_accuracy"])
    return (
        f"temperature: most are recognised at {best['choice_temperature']:g}, "
        f"{best['class_accuracy']:.1%}; in {target}"
    )


if __name__ == "__main__":
    run_stage(main, curves=main_schedule)
