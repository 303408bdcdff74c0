"""Distances of images to the training images: samples that are much nearer to these than held-out
real images would be copies."""

import torch
from torch import Tensor

from pipeline.evaluation.evaluator import Evaluator

# Images whose distances are held at once, and training images that they are to.
BLOCK, REFERENCE = 1000, 10_000


def neighbour_distances(evaluator: Evaluator, samples: Tensor, real: Tensor) -> dict[str, float]:
    """Mean distance to the nearest training image, in the extractor's features, of samples (M, F)
    and of held-out real images (R, F)."""
    name, device = evaluator.extractor.name, evaluator.workers.device
    values = {}
    for suffix, features in (("", samples), ("_real", real)):
        distance, _ = nearest(features, evaluator.reference, 1, device)
        values[f"nearest_distance_{name}{suffix}"] = distance.mean().item()
    return values


def nearest(
    features: Tensor, reference: Tensor, count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Distances and indices (M, count), on the CPU, of the rows of a reference (R, F) that are
    nearest to features (M, F).

    Args:
        device: that compares them: of ImageNet's that takes a core two hours.
    """
    blocks = features.to(device).split(BLOCK)
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in blocks]
    for start in range(0, len(reference), REFERENCE):  # which travels to the device once
        others = reference[start : start + REFERENCE].to(device)
        for block, of_block in zip(blocks, found, strict=True):
            near = torch.cdist(block, others).topk(min(count, len(others)), dim=1, largest=False)
            of_block.append((near.values, near.indices + start))
    best = [_best(of_block, count) for of_block in found]
    values, indices = (torch.cat(each).cpu() for each in zip(*best, strict=True))
    return values, indices


def _best(found: list[tuple[Tensor, Tensor]], count: int) -> tuple[Tensor, Tensor]:
    """The nearest in all parts of the reference, of the nearest in each."""
    values, indices = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
    best = values.topk(count, dim=1, largest=False)
    return best.values, indices.gather(1, best.indices)
