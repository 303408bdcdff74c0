"""The classes of samples to draw, and of samples to keep."""

import torch
from torch import Tensor


def proportional_labels(count: int, images_K: Tensor) -> Tensor:
    """Labels (count,) in the proportions of the classes' images, by Sainte-Laguë's method: any
    first part of the labels has nearly the same proportions. Classes of equal size alternate.

    Args:
        images_K: (classes,) number of images of each class, not all 0.
    """
    classes, total = len(images_K), images_K.sum().double()
    most_K = (images_K * (count + classes / 2) / total).long() + 1  # no class can get more
    label = torch.arange(classes).repeat_interleave(most_K)
    turn = torch.arange(len(label)) - (most_K.cumsum(0) - most_K)[label]
    return label[((turn + 0.5) / images_K[label].double()).argsort(stable=True)][:count]


def kept_of_each(labels: Tensor, acceptance: float) -> Tensor:
    """The number of samples of each class (classes,) to keep, given a share: at least one in all,
    with a total as near to the share as possible, in the proportions of the classes.

    Args:
        labels: (M,).
        acceptance: in (0, 1].
    """
    of_each_K = labels.bincount()
    kept = proportional_labels(max(1, round(acceptance * len(labels))), of_each_K)
    return kept.bincount(minlength=len(of_each_K))
