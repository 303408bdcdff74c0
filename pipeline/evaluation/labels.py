"""The classes of samples that are measured beside images of a data set."""

import torch
from torch import Tensor


def proportional_labels(count: int, images_K: Tensor) -> Tensor:
    """(count,) labels in the proportions of the classes' images, by Sainte-Laguë's method: any
    first part of them is in these proportions too, as nearly as whole numbers are. Of classes of
    equal size they go round.

    Args:
        images_K: (classes,) number of images of each class, not all 0.
    """
    classes, total = len(images_K), images_K.sum().double()
    most_K = (images_K * (count + classes / 2) / total).long() + 1  # no class can get more
    label = torch.arange(classes).repeat_interleave(most_K)
    turn = torch.arange(len(label)) - (most_K.cumsum(0) - most_K)[label]
    return label[((turn + 0.5) / images_K[label].double()).argsort(stable=True)][:count]
