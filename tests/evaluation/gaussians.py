"""Random features to measure metrics of."""

import numpy as np
import torch


def gaussian(count: int, dimension: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(dimension, dimension))
    return torch.from_numpy(rng.normal(size=(count, dimension)) @ mix + shift).float()
