"""Classifier-based rejection sampling of both networks' samples (Table 4)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.experiments.reject import KEYS, rejection_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv
from pipeline.runtime.stage import Stage
from stages.running import run_stage, samples_folders


def main(params: Params) -> str:
    workers, target = workers_of(params.ray), RESULTS / "rejection/rows.csv"
    with Stage("reject", params) as stage:
        every = [r for network in NETWORKS for r in main_replicates(params, network)]
        folders = samples_folders(stage, every, "rejection.acceptance")
        rows = rejection_rows(params, folders, workers)
        write_csv(target, rows)
        stage.run.log_artifact(target)
        # A step is a percent of the samples that is kept.
        stage.run.log_means(
            rows,
            lambda row: f"{row['network']}/{row['selection']}",
            KEYS,
            lambda row: 100 * row["acceptance"],
        )
    ours = [row for row in rows if row["network"] == "transformer"]
    strictest = min(row["acceptance"] for row in ours)

    def recognised(selection: str) -> float:
        of = [r for r in ours if (r["selection"], r["acceptance"]) == (selection, strictest)]
        return sum(row["class_accuracy"] for row in of) / len(of)

    return (
        f"reject: of the {strictest:.0%} rated highest {recognised('rejection'):.1%} are "
        f"recognised, of as many at random {recognised('random'):.1%}; in {target}"
    )


if __name__ == "__main__":
    run_stage(main)
