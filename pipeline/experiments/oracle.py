"""Decodes with exact conditional probabilities in place of the network's, and compares the samples
with the known distribution."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.data.seeds import generator
from pipeline.decoding.iterative import decode
from pipeline.decoding.settings import DecodingSettings
from pipeline.experiments.rows import Row, curve_hash
from pipeline.oracle import CODES, pair_error, sticky_chain, token_entropy
from pipeline.runtime.batches import BatchWorkers, Maker, load_tensors, make_parts, save_tensors
from pipeline.runtime.files import value_hash

GROUPS = 10  # groups of samples; each is also measured alone, so that differences can be tested
ALL = "all"
METRICS = ("pair_error", "log_likelihood", "token_entropy")
EXACT = "exact"  # named as a sampler: draws from the distribution itself


def oracle_rows(params: Params, folder: Path, workers: BatchWorkers) -> list[Row]:
    """Decode and measure samples for every number of tokens in `oracle.tokens` and every setting in
    `oracle.designs`. The samples of a setting form `GROUPS` groups. There is a row for each group,
    and a row for all samples. For comparison, rows whose column `sampler` has the value `EXACT`
    measure samples drawn directly from the known distribution.

    Args:
        folder: run directory, which keeps the metrics of finished settings for later runs.
    """
    oracle, designs = params.oracle, params.oracle_settings()
    names = sorted(
        {"sampler", "schedule", "iterations", *(name for grid in oracle.designs for name in grid)}
    )
    batches = {}
    for tokens, each in product(oracle.tokens, (None, *designs)):
        samples = oracle.total_tokens // tokens // GROUPS
        how = [asdict(each), curve_hash(each.schedule)] if each else EXACT
        name = value_hash([params.seed, tokens, samples, how])[:16]
        batches[folder / f"{name}.safetensors"] = (params.seed, tokens, samples, each)
    make_parts(batches, workers, Maker(_open), "oracle", save_tensors)
    rows = []
    for file, (_, tokens, _, each) in batches.items():
        settings = asdict(each) if each else {"sampler": EXACT}
        own = {"tokens": tokens} | {name: settings.get(name) for name in names}
        values = load_tensors(file)["values"].tolist()
        rows += [
            own | {"group": group} | dict(zip(METRICS, metrics, strict=True))
            for group, metrics in zip((*range(GROUPS), ALL), values, strict=True)
        ]
    return rows


def _open(device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """Return the function that decodes and measures a setting's samples; it always uses the CPU."""
    chain = sticky_chain()

    def measure(
        seed: int, length: int, samples: int, settings: DecodingSettings | None
    ) -> dict[str, Tensor]:
        """Return {"values": tensor (GROUPS + 1, 3)}: the three `METRICS` of each group of samples,
        then of all samples. If `settings` is None, the samples are drawn directly from `chain`."""
        own, shape = generator(seed, "oracle", length), (GROUPS * samples, length)
        if settings is None:
            tokens = chain.sample(*shape, own)
        else:
            blank, unknown = torch.zeros(shape, dtype=torch.long), torch.ones(shape).bool()
            for step in decode(chain.predict, blank, unknown, settings, own):
                tokens = step.sampled
        groups, likelihood = tokens.split(samples), chain.log_likelihood(tokens) / length
        means = [each.mean().item() for each in (*likelihood.split(samples), likelihood)]
        values = [
            [pair_error(chain, group), mean, token_entropy(group, CODES)]
            for group, mean in zip((*groups, tokens), means, strict=True)
        ]
        return {"values": torch.tensor(values)}

    return measure
