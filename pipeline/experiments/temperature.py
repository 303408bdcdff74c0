"""Scores samples of MaskGIT at several choice temperatures (the paper gives no value), and samples
of the autoregressive baseline at several softmax temperatures and values of top-k."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    """Compute a row with the scores of samples for every replicate (training run) and every
    sampling setting of its network. A seed gives the same random numbers with every setting.
    Finished rows are stored in the replicates' run directories `folders`."""
    evaluator, rows = Evaluator(params, workers), []
    labels = evaluator.labels(params.temperature.samples)
    for replicate, folder in folders.items():
        sampling, seed = evaluator.on_the_fly(Maker(open_sampler, replicate)), replicate.seed
        main = params.decoding_settings(autoregressive=replicate.network == "autoregressive")
        for setting in _settings(params, replicate.network):
            batches = sample_batches(
                replace(main, **setting),
                labels,
                batch_size=params.decoding.batch_size,
                seed=mix(seed, "temperature"),
            )
            name = ", ".join(f"{option} {value}" for option, value in setting.items())
            scores = measured_row(
                folder / f"{name.replace(', ', '_').replace(' ', '_')}.json",
                workers,
                sampling,
                batches,
                f"temperature: {replicate.network} seed {seed}, {name}",
                lambda found: evaluator.scores(found, labels),
            )
            own = {"images": replicate.network, "setting": name, "seed": seed}
            own["choice_temperature"] = setting.get("choice_temperature")
            rows.append(own | {"samples": len(labels)} | scores)
    return rows


def _settings(params: Params, network: str) -> list[dict[str, Any]]:
    if network == "autoregressive":
        return [
            {"softmax_temperature": temperature, "top_k": k}
            for temperature in params.temperature.softmax_temperatures
            for k in params.temperature.top_k
        ]
    return [{"choice_temperature": value} for value in params.temperature.values]
