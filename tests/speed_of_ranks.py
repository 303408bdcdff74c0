"""How much faster two workers train the default's networks than one, and a classifier twice as
wide, whose steps are longer. Each has a core of its own, with the thread that prepares its batches.

`python -m tests.speed_of_ranks PROJECT [NETWORK …]`, where the default run has trained its
classifier, on a machine with two idle cores.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.config.presets import preset_params
from pipeline.runtime.process import set_up
from pipeline.runtime.ranks import ALONE, Ranks
from pipeline.training.classifier import ClassifierRecipe
from pipeline.training.tokenizer import TokenizerRecipe
from tests.several_ranks import with_ranks

WARM, STEPS = 5, 40
WIDER = {"width": 32}


def seconds_a_step(recipe: Any, first: int, ranks: Ranks) -> dict[str, float]:
    """By the clock, and of this process's CPU, which others' load changes less.

    Args:
        first: the step to begin with: the discriminator may join late.
    """
    set_up()  # as every process of the pipeline
    os.sched_setaffinity(0, {ranks.rank})
    task = recipe(ranks, torch.device("cpu"))
    for step in range(first, first + WARM):
        task.step(step)
    clock, cpu = time.perf_counter(), time.process_time()
    for step in range(first + WARM, first + WARM + STEPS):
        task.step(step)
    return {
        "clock": (time.perf_counter() - clock) / STEPS,
        "cpu": (time.process_time() - cpu) / STEPS,
    }


def main(project: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    params = preset_params("mnist5k")
    wider = {"classifier": params.classifier.model_copy(update=WIDER)}
    images, classifier = (str((project / path).absolute()) for path in (IMAGES, CLASSIFIER))
    recipes: dict[str, tuple[Any, int]] = {
        "tokenizer": (
            TokenizerRecipe(params.model_dump(), images, classifier),
            params.tokenizer.adversarial_start,
        ),
        "classifier": (ClassifierRecipe(params.model_dump(), images), 0),
        "wider": (ClassifierRecipe(params.model_copy(update=wider).model_dump(), images), 0),
    }
    for name in names or recipes:
        recipe, first = recipes[name]
        measure = partial(seconds_a_step, recipe, first)
        with tempfile.TemporaryDirectory() as folder:
            two = with_ranks(measure, Path(folder, "ranks"))
        one = measure(ALONE)
        for kind in ("clock", "cpu"):
            slowest = max(worker[kind] for worker in two)
            print(
                f"{name}, {kind}: a step of one worker {1000 * one[kind]:.0f} ms, of two "
                f"{1000 * slowest:.0f} ms: {one[kind] / slowest:.2f} ×",
                flush=True,
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
