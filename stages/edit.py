"""Validation images in- and outpainted, measured and pictured (Table 2, Figures 6 and 7)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS, TRANSFORMER
from pipeline.config.replicates import main_replicates
from pipeline.experiments.edit import KEYS, edit_pictures, edit_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_csv, write_npz
from pipeline.runtime.stage import Stage
from stages.running import REPLICATES, model_folders, run_stage


def main(params: Params) -> str:
    workers, results = workers_of(params.ray), RESULTS / "editing"
    with Stage("edit", params) as stage:
        folders = model_folders(stage, main_replicates(params, "transformer"))
        baseline = stage.folder(*REPLICATES, TRANSFORMER.as_posix())
        rows = edit_rows(params, folders, baseline, workers)
        write_csv(results / "rows.csv", rows)
        write_npz(results / "pictures.npz", edit_pictures(params, workers.device))
        stage.run.log_artifact(results / "rows.csv")
        stage.run.log_means(rows, lambda row: f"{row['task']}/{row['method']}", KEYS)
    inpainted = [row for row in rows if row["task"].startswith("inpaint")]

    def recognised(method: str) -> float:
        shares = [row["class_accuracy"] for row in inpainted if row["method"] == method]
        return sum(shares) / len(shares)

    return (
        f"edit: inpainted images recognised {recognised('maskgit'):.1%} (nearest pixel "
        f"{recognised('nearest'):.1%}, untouched {recognised('original'):.1%}); in {results}"
    )


if __name__ == "__main__":
    run_stage(main)
