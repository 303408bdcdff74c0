"""Inpaints and outpaints validation images, and measures the results (Table 2, Figures 6 and 7)."""

from pipeline.config.params import Params
from pipeline.config.paths import RESULTS, TRANSFORMER
from pipeline.config.replicates import LISTED, main_replicates
from pipeline.experiments.edit import edit_pictures, edit_rows
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import write_npz
from pipeline.runtime.stage import Stage
from stages.running import replicate_folders, write_rows


def main(params: Params) -> str:
    workers = workers_of(params.ray)
    with Stage("edit", params) as stage:
        folders = replicate_folders(stage, main_replicates(params, "transformer"))
        baseline = stage.folder(*LISTED, TRANSFORMER.as_posix())
        rows = edit_rows(params, folders, baseline, workers)
        write_npz(RESULTS / "editing/pictures.npz", edit_pictures(params, workers.device))
        return write_rows(stage, "editing/rows.csv", rows, "{task}/{method}".format_map)
