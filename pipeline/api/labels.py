"""Classes by their names or numbers, as the labels that a model takes."""

import contextlib
import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.api.arguments import whole
from pipeline.runtime.errors import ArgumentError
from pipeline.sampling import balanced_labels

Class = int | str
Classes = Class | Sequence[Class]
LISTED = 12  # names that a message lists


def class_labels(classes: Classes, names: Sequence[str]) -> Tensor:
    """Labels (n,) int64 of classes. A text is a class's name, or else its number.

    Raises:
        ArgumentError: the model has no such class, or none is given.
    """
    if isinstance(classes, set | frozenset):  # its order differs between processes
        raise ArgumentError("classes", "a set has no order", "give a list")
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
        numbers = ", ".join(map(str, labels[:LISTED]))
        raise ArgumentError("classes", f"{given} is the name of {numbers}", "give one of these")
    if labels:
        return labels[0]
    number = -1
    if isinstance(given, str):  # where names are numbers, "1" can only be a name
        if given.isdecimal() and not any(map(str.isdecimal, names)):
            number = int(given)
    elif not isinstance(given, bool):
        with contextlib.suppress(TypeError, RuntimeError):  # it is not a whole number
            number = operator.index(given)
    if not 0 <= number < len(names):
        raise ArgumentError("classes", f"this model has no class {given}", _allowed(given, names))
    return number


def _allowed(given: object, names: Sequence[str]) -> str:
    text = str(given)
    if not text.isdecimal() and (close := difflib.get_close_matches(text, names, n=1)):
        return f"did you mean {close[0]}?"
    listed = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    if any(map(str.isdecimal, names)):
        return f"use one of {listed}"
    return f"use 0 to {len(names) - 1}, or a name: {listed}"
