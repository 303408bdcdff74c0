"""Sensitivity of samples to the choice temperature, which the paper does not give (section 3.2)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.replicates import Replicate
from pipeline.data.seeds import mix
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.outputs import Outputs, keep_row
from pipeline.evaluation.samplers import sampler_of
from pipeline.runtime.batches import Alone, Maker, make_tensors
from pipeline.runtime.files import read_json
from pipeline.sampling import sample_batches

KEYS = ("choice_temperature", "seed", "samples")


def temperature_rows(
    params: Params, folders: Mapping[Replicate, Path], workers: Alone
) -> list[dict[str, Any]]:
    """A row for every temperature and replicate: the scores of its samples. A seed gives the same
    random numbers at every temperature.

    Args:
        folders: of each replicate; keeps the rows that are finished, `<value>.json`.
    """
    evaluator, count = Evaluator(params, workers), params.temperature.samples
    scores = {}
    for replicate, folder in folders.items():
        shown = evaluator.on_the_fly(sampler_of(replicate))
        for value in params.temperature.values:
            cell = folder / f"{value}.json"
            keep_row(cell, partial(_score, value, replicate.seed, shown, evaluator))
            scores[value, replicate.seed] = read_json(cell)
            recognised = scores[value, replicate.seed]["class_accuracy"]
            print(
                f"temperature: {value:g} seed {replicate.seed}: {recognised:.1%} recognised",
                flush=True,
            )
    return [
        dict(zip(KEYS, (value, replicate.seed, count), strict=True)) | scores[value, replicate.seed]
        for value in params.temperature.values
        for replicate in folders
    ]


def _score(
    value: float, seed: int, shown: Maker, evaluator: Evaluator, path: Path
) -> dict[str, float | None]:
    """The scores of samples at a temperature.

    Args:
        path: of what is seen in them.
    """
    params = evaluator.params
    labels = evaluator.labels(params.temperature.samples)
    batches = sample_batches(
        replace(params.decoding_settings(), choice_temperature=value),
        labels,
        batch_size=params.decoding.batch_size,
        seed=mix(seed, "temperature"),
    )
    name = f"temperature: {value:g}"
    outputs = Outputs.of(make_tensors(path, evaluator.workers, shown, batches, name))
    return evaluator.scores(outputs, labels)
