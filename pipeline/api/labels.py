"""Converts class names or numbers to the labels that a model takes."""

import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.errors import ArgumentError
from pipeline.sampling import balanced_labels

Class = int | str
Classes = Class | Sequence[Class]
LISTED = 12  # names that a message lists


def whole(name: str, given: Any) -> int:
    """Convert a whole number of Python, NumPy or PyTorch to an int. Raises an `ArgumentError` for
    anything else."""
    try:
        if isinstance(given, bool):
            raise TypeError
        return operator.index(given)
    except (TypeError, RuntimeError):  # RuntimeError: of a tensor that is not one number
        raise ArgumentError(name, f"{given} is not a whole number", "give one") from None


def class_labels(classes: Classes, names: Sequence[str]) -> Tensor:
    """Labels (n,) int64 of classes. A text is a class's name, or else its number.

    Raises:
        ArgumentError: the model has no such class, or none is given.
    """
    several: list[Any] = [classes]
    array = getattr(classes, "ndim", 1) > 0  # not of NumPy or PyTorch without axes
    if isinstance(classes, Iterable) and not isinstance(classes, str) and array:
        several = list(classes)
    if not several:
        raise ArgumentError("classes", "an empty list", "give one class or more")
    return torch.tensor([_label(each, names) for each in several])


def labels_for(classes: Classes | None, count: int | None, names: Sequence[str]) -> Tensor:
    """(count,) labels that cycle through the classes.

    Args:
        classes: None for all of them.
        count: None for one of each that is given.

    Raises:
        ArgumentError: as `class_labels`, or the count is below 1.
    """
    chosen = torch.arange(len(names)) if classes is None else class_labels(classes, names)
    if count is None:
        return chosen
    if (count := whole("count", count)) < 1:
        raise ArgumentError("count", f"{count} samples cannot be drawn", "give 1 or more")
    return chosen[balanced_labels(count, len(chosen))]


def _label(given: Class, names: Sequence[str]) -> int:
    labels = [label for label, name in enumerate(names) if name == given]
    if len(labels) > 1:  # as two cranes are in torchvision's ImageNet
        numbers = ", ".join(map(str, labels))
        raise ArgumentError("classes", f"{given} is the name of {numbers}", "give one of these")
    if labels:
        return labels[0]
    if not isinstance(given, str):
        number = whole("classes", given)
    else:  # where names are numbers, "1" can only be a name
        number = int(given) if given.isdecimal() and not any(map(str.isdecimal, names)) else -1
    if 0 <= number < len(names):
        return number
    near = difflib.get_close_matches(str(given), [n for n in names if not n.isdecimal()], n=1)
    listed = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    allowed = f"use 0 to {len(names) - 1}, or a name: {listed}"
    way_out = f"did you mean {near[0]}?" if near else allowed
    raise ArgumentError("classes", f"this model has no class {given}", way_out)
