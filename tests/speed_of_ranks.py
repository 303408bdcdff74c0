"""How much faster two workers train the default's networks than one, and such whose steps are
longer: a classifier twice as wide, the same with four times as many images a step, and the
tokenizer with four times as many. Each worker has a core of its own, with the thread that prepares
its batches.

`python -m tests.speed_of_ranks PROJECT [NETWORK …]`, where the default run has trained its
classifier, on a machine with two idle cores.

One worker, two, and two that send each other nothing take turns of a few seconds, so that a machine
whose speed changes does so for all three. What those that send nothing gain is what the machine's
two cores allow: workers that wait for each other gain hardly more.
"""

import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.config.presets import preset_params
from pipeline.runtime.process import set_up
from pipeline.runtime.ranks import ALONE, Ranks
from pipeline.training.classifier import ClassifierRecipe
from pipeline.training.tokenizer import TokenizerRecipe
from tests.several_ranks import with_ranks

ROUNDS, STEPS = 8, 16  # every r1_every steps of the tokenizer are equally long
CLASSIFIERS = {"wider": {"width": 32}, "larger": {"width": 32, "batch_size": 512}}
TOKENIZERS = {"tokenizer_larger": {"batch_size": 256}}


class Silent(Ranks):
    """A worker that has its rows of each batch, and neither sends the others anything nor waits."""

    def total(self, values: Tensor) -> Tensor:
        return values


def seconds_a_step(recipe: Any, first: int, ranks: Ranks) -> dict[str, list[float]]:
    """By kind, of each round; of one worker in the first process alone.

    Args:
        first: the step to begin with: the discriminator may join late.
    """
    set_up()  # as every process of the pipeline
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[ranks.rank]})
    cpu = torch.device("cpu")
    tasks = {"two": recipe(ranks, cpu), "silent": recipe(Silent(ranks.rank, ranks.workers), cpu)}
    if ranks.rank == 0:
        tasks["one"] = recipe(ALONE, cpu)
    seconds: dict[str, list[float]] = {kind: [] for kind in tasks}
    for round in range(ROUNDS + 1):
        for kind in ("one", "two", "silent"):
            torch.distributed.barrier()
            if kind not in tasks:
                continue
            began = time.perf_counter()
            for step in range(STEPS):
                tasks[kind].step(first + round * STEPS + step)
            seconds[kind].append((time.perf_counter() - began) / STEPS)
    return {kind: taken[1:] for kind, taken in seconds.items()}  # the first round warms up


def main(project: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    params = preset_params("mnist5k")
    images, classifier = (str((project / path).absolute()) for path in (IMAGES, CLASSIFIER))

    def tokenizer(**changed: int) -> tuple[Any, int]:
        own = params.model_copy(update={"tokenizer": params.tokenizer.model_copy(update=changed)})
        recipe = TokenizerRecipe(own.model_dump(), images, classifier)
        return recipe, params.tokenizer.adversarial_start

    def other(**changed: int) -> tuple[Any, int]:
        own = params.model_copy(update={"classifier": params.classifier.model_copy(update=changed)})
        return ClassifierRecipe(own.model_dump(), images), 0

    recipes = {"tokenizer": tokenizer(), "classifier": other()}
    recipes |= {name: tokenizer(**changed) for name, changed in TOKENIZERS.items()}
    recipes |= {name: other(**changed) for name, changed in CLASSIFIERS.items()}
    if unknown := set(names) - recipes.keys():
        sys.exit(f"no such network: {', '.join(unknown)}; one of {', '.join(recipes)}")
    for name in names or recipes:
        with tempfile.TemporaryDirectory() as folder:
            measure = partial(seconds_a_step, *recipes[name])
            workers = with_ranks(measure, Path(folder, "ranks"))
        one = workers[0]["one"]
        print(
            f"{name}: a step of one worker {1000 * statistics.median(one):.0f} ms; "
            f"two workers {_gain(one, workers, 'two')}; "
            f"two that send nothing {_gain(one, workers, 'silent')}",
            flush=True,
        )


def _gain(one: list[float], workers: list[dict[str, list[float]]], kind: str) -> str:
    """Median and range over the rounds, in each of which the slower worker counts."""
    slower = map(max, *(worker[kind] for worker in workers))
    gains = sorted(alone / shared for alone, shared in zip(one, slower, strict=True))
    return f"{statistics.median(gains):.2f} × ({gains[0]:.2f} to {gains[-1]:.2f})"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
