"""Computes features of the training images. Metrics compare samples' features with these."""

from pipeline.config.params import Params
from pipeline.config.paths import FEATURES
from pipeline.evaluation.features import write_reference
from pipeline.runtime.batches import workers_of
from pipeline.runtime.files import publish_folder
from pipeline.runtime.stage import Stage


def main(params: Params) -> str:
    workers, evaluation = workers_of(params.ray), params.evaluation
    names = (evaluation.extractor, evaluation.second_extractor)
    with Stage("features", params) as stage:
        folder = stage.folder() / "features"
        for name in names:
            write_reference(name, folder / name, params, workers)
        publish_folder(folder, FEATURES)
    return f"features: {' and '.join(names)} of the training images, in {FEATURES}"
