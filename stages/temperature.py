"""Samples of the main model at other choice temperatures."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import main_replicates
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from stages.running import model_folders, run_stage

KEYS = ("choice_temperature", "seed", "samples")


def main(params: Params) -> str:
    workers, target = workers_of(params.ray), RESULTS / "temperature/rows.csv"
    with Stage("temperature", params) as stage:
        replicates = main_replicates(params, "transformer")
        folders = model_folders(stage, replicates, "temperature.values")
        rows = temperature_rows(params, folders, workers)
        write_csv(target, rows)
        stage.run.log_artifact(target)
        # A step is a tenth of a choice temperature.
        stage.run.log_means(
            rows, lambda row: "transformer", KEYS, lambda row: 10 * row["choice_temperature"]
        )
    recognised: dict[float, list[float]] = {}
    for row in rows:
        recognised.setdefault(row["choice_temperature"], []).append(row["class_accuracy"])
    shares = {value: sum(of) / len(of) for value, of in recognised.items()}
    best = max(shares, key=shares.__getitem__)
    return f"temperature: most are recognised at {best:g}, {shares[best]:.1%}; in {target}"


if __name__ == "__main__":
    run_stage(main)
