"""What a loader brings a training of CAS with RandAugment: `python -m tests.speed_of_loaders`, on a
machine with two idle cores. The training has one thread, and pictures of noise; the shortest of
three times counts.

Prints the milliseconds of a step, and those of its pictures alone.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.classifier import ClassifierConfig
from pipeline.config.presets import preset_params
from pipeline.data.images.loading import prepared
from pipeline.data.images.samples import open_samples
from pipeline.experiments.cas import CasBatches, Pictures
from pipeline.runtime.process import set_up
from pipeline.training.classifier import ClassifierTask
from tests.images import write_samples

CPU = torch.device("cpu")
SAMPLES, CLASSES = 512, 10
BATCHES = {64: 64, 224: 16}  # images of a batch, by their side
WARM, STEPS, REPEATS = 5, 20, 3


def seconds(function: Callable[[int], object]) -> float:
    """Of a step."""
    times = []
    for start in range(0, REPEATS * (WARM + STEPS), WARM + STEPS):
        for step in range(start, start + WARM):
            function(step)
        started = time.perf_counter()
        for step in range(start + WARM, start + WARM + STEPS):
            function(step)
        times.append((time.perf_counter() - started) / STEPS)
    return min(times)


def measure(side: int, loaders: int, folder: Path) -> tuple[float, float]:
    """Seconds of a step, and of its pictures alone."""
    params = preset_params("mnist5k")
    data = params.data.model_copy(update={"image_size": side, "channels": 3, "flip": True})
    changes = {"batch_size": BATCHES[side], "crop_scale": [0.08, 1.0]}
    classifier = params.classifier.model_copy(update=changes)
    params = params.model_copy(update={"data": data, "classifier": classifier})
    pictures = Pictures(open_samples(folder / f"{side}"), None)
    batches = CasBatches(pictures, params, rand_augment=True, seed=0)
    config = ClassifierConfig("small", 3, CLASSES, classifier.width)
    ready = prepared(batches, loaders, CPU)
    task = ClassifierTask(config, classifier, ready, ready(0), seed=0, device=CPU)
    return seconds(task.step), seconds(prepared(batches, loaders, CPU))


def main() -> None:
    set_up()  # as every process of the pipeline
    torch.set_num_threads(1)
    noise = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for side, batch in BATCHES.items():
            samples = noise.integers(256, size=(SAMPLES, 3, side, side), dtype=np.uint8)
            labels, names = [i % CLASSES for i in range(SAMPLES)], list(map(str, range(CLASSES)))
            write_samples(samples, labels, names, SAMPLES, Path(folder, f"{side}"))
            for loaders in (0, 1):
                step, pictures = measure(side, loaders, Path(folder))
                print(
                    f"{batch} pictures of {side}², loaders {loaders}: {1000 * step:.1f} ms a step, "
                    f"{1000 * pictures:.1f} of pictures alone",
                    flush=True,
                )


if __name__ == "__main__":
    main()
