"""Distances of images to the training images: samples that are much nearer to these than held-out
real images would be copies."""

import torch
from torch import Tensor

from pipeline.config.paths import IMAGES
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import CenterCrops, ImageSet

# Images whose distances are held at once, and training images that they are to.
BLOCK, REFERENCE = 1000, 10_000


def neighbour_distances(evaluator: Evaluator, samples: ImageSet) -> dict[str, float]:
    """Mean distance to the nearest training image, in the extractor's features, of samples and of
    held-out real images."""
    held_out = CenterCrops(IMAGES, "val", evaluator.params.data)
    name = evaluator.extractor.name
    values = {}
    for suffix, images in (("", samples), ("_real", held_out)):
        features = evaluator.features(images).features
        distance, _ = nearest(features, evaluator.reference.features, 1, evaluator.workers.device)
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
    blocks = [_nearest(block.to(device), reference, count) for block in features.split(BLOCK)]
    values, indices = zip(*blocks, strict=True)
    return torch.cat(values).cpu(), torch.cat(indices).cpu()


def _nearest(block: Tensor, reference: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same of a block, from the nearest in each part of the reference."""
    values, indices = [], []
    for start in range(0, len(reference), REFERENCE):
        others = reference[start : start + REFERENCE].to(block.device)
        distances = torch.cdist(block, others)
        found = distances.topk(min(count, distances.shape[1]), dim=1, largest=False)
        values.append(found.values)
        indices.append(found.indices + start)
    best = torch.cat(values, dim=1).topk(count, dim=1, largest=False)
    return best.values, torch.cat(indices, dim=1).gather(1, best.indices)
