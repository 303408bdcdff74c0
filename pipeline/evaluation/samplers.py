"""Opens the samplers of published networks."""

import torch

from pipeline.config.paths import TOKENIZER
from pipeline.config.replicates import Replicate
from pipeline.sampling import Sampler
from pipeline.weights.published import load_model


def open_sampler(replicate: Replicate, device: torch.device) -> Sampler:
    """Load a replicate's model and the tokenizer, and return a sampler that uses both."""
    model = load_model(replicate.folder, replicate.network, device)
    return Sampler(model, load_model(TOKENIZER, "tokenizer", device))
