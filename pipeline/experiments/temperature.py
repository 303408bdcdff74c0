"""Computes scores of samples at several choice temperatures; the paper gives no value (section
3.2)."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.config.params import Params
from pipeline.config.replicates import Replicate
from pipeline.data.seeds import mix
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.rows import Row, measured_row, open_sampler
from pipeline.runtime.batches import BatchWorkers, Maker
from pipeline.sampling import sample_batches


def temperature_rows(
    params: Params, folders: Mapping[Replicate, Path], workers: BatchWorkers
) -> list[Row]:
    """Compute a row with the scores of samples for every temperature and replicate (training run).
    A seed gives the same random numbers at every temperature. Finished rows are stored as
    `<temperature>.json` in the replicates' run directories `folders`."""
    evaluator, rows = Evaluator(params, workers), {}
    labels = evaluator.labels(params.temperature.samples)
    for replicate, folder in folders.items():
        sampling, seed = evaluator.on_the_fly(Maker(open_sampler, replicate)), replicate.seed
        for value in params.temperature.values:
            batches = sample_batches(
                replace(params.decoding_settings(), choice_temperature=value),
                labels,
                batch_size=params.decoding.batch_size,
                seed=mix(seed, "temperature"),
            )
            scores = measured_row(
                folder / f"{value}.json",
                workers,
                sampling,
                batches,
                f"temperature: {value:g} seed {seed}",
                lambda found: evaluator.scores(found, labels),
            )
            own = {"choice_temperature": value, "seed": seed, "samples": len(labels)}
            rows[value, seed] = own | scores
    return [rows[value, r.seed] for value in params.temperature.values for r in folders]
