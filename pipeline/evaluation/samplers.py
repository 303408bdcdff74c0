"""Opens the samplers of published networks."""

from pathlib import Path

import torch

from pipeline.config.paths import TOKENIZER
from pipeline.config.replicates import Replicate
from pipeline.runtime.batches import Maker
from pipeline.sampling import Sampler
from pipeline.weights.published import load_model


def open_sampler(network: str, folder: Path, device: torch.device) -> Sampler:
    """Open the sampler of a network that is published in a folder."""
    model = load_model(folder, network, device)
    return Sampler(model, load_model(TOKENIZER, "tokenizer", device))


def sampler_of(replicate: Replicate) -> Maker:
    """Open the sampler of a replicate's model."""
    return Maker(open_sampler, replicate.network, replicate.folder)
