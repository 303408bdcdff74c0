"""Sensitivity of samples to the choice temperature, which the paper does not give (section 3.2)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.replicates import Replicate
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import make_images
from pipeline.evaluation.samplers import sampler_of
from pipeline.runtime.checksums import keep_if_whole, write_noted
from pipeline.runtime.kept import kept_row
from pipeline.runtime.seeds import mix
from pipeline.runtime.workers import Alone, Maker
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
    name = evaluator.extractor.name
    scores = {}
    for replicate, folder in folders.items():
        sampler = sampler_of(replicate)
        for value in params.temperature.values:
            cell = folder / f"{value}.json"
            if not keep_if_whole(cell):
                write_noted(cell, _score(value, replicate.seed, sampler, evaluator, cell))
            scores[value, replicate.seed] = kept_row(
                cell,
                needed=(f"is_{name}", "class_accuracy"),
                nullable=(f"fid_{name}",),
                absent=KEYS,
            )
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
    value: float, seed: int, sampler: Maker, evaluator: Evaluator, cell: Path
) -> dict[str, float | None]:
    """The scores of samples at a temperature, which lie beside `cell` as they are made."""
    params, workers = evaluator.params, evaluator.workers
    labels = evaluator.labels(params.temperature.samples)
    batches = sample_batches(
        replace(params.decoding_settings(), choice_temperature=value),
        labels,
        batch_size=params.decoding.batch_size,
        seed=mix(seed, "temperature"),
    )
    path = cell.with_suffix(".npy")
    images = make_images(path, workers, sampler, batches, f"temperature: {value:g}")
    scores = evaluator.scores(images, labels)
    path.unlink()
    return scores
