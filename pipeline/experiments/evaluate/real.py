"""Real images measured in sets as small as other stages measure samples in: what FID and IS are at
that number of images, where nothing is generated."""

from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.image_sets import CenterCrops
from pipeline.evaluation.labels import kept_of_each
from pipeline.evaluation.uncertainty import disjoint
from pipeline.runtime.batches import Alone

REAL = "real"  # the folder of the outputs for validation images, in a run directory


def real_rows(params: Params, workers: Alone, folder: Path) -> list[dict[str, Any]]:
    """The scores of disjoint sets of validation images, as many as there are of each size.

    Args:
        folder: has the outputs for the validation images, as `evaluate_all` stores them.
    """
    evaluator = Evaluator(params, workers, second=True)
    images = CenterCrops(IMAGES, "val", params.data)
    outputs, rows = evaluator.outputs(images, folder / REAL), []
    candidates = evaluator.labels(max(params.evaluation.samples, params.cas.samples))
    for size in _sizes(params, candidates):
        for number, chosen in enumerate(disjoint(images.labels, size, seed=params.seed)):
            labels = images.labels[chosen]
            scores = evaluator.scores(outputs.of_rows(chosen), labels, say=number == 0)
            rows.append({"samples": size, "subset": number} | scores)
    return rows


def real_columns(params: Params) -> list[str]:
    """The columns of these rows, of which there are none where the validation images are few."""
    name = params.evaluation.extractor
    return ["samples", "subset", f"fid_{name}", f"is_{name}", "class_accuracy"]


def _sizes(params: Params, candidates: Tensor) -> list[int]:
    """The numbers of samples that the stages measure, in order, each once.

    Args:
        candidates: labels (M,) of the samples that rejection selects from.
    """
    shares = params.rejection.acceptance
    kept = [int(kept_of_each(candidates, acceptance).sum()) for acceptance in shares]
    others = (params.sweep.samples, params.temperature.samples, params.editing.images)
    return sorted({*kept, *others, params.evaluation.samples})
