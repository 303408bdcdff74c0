"""Converts class names or numbers to a model's labels."""

import difflib
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.errors import ArgumentError
from pipeline.sampling import balanced_labels

Class = int | str
Classes = Class | Sequence[Class]


def whole(name: str, given: Any) -> int:
    """Convert an int, or a NumPy or PyTorch integer, to an int. If `given` is anything else, raises
    an `ArgumentError` about the argument called `name`."""
    try:
        return operator.index(given)
    except (TypeError, RuntimeError):  # RuntimeError: some tensors that hold no single number
        raise ArgumentError(name, f"{given} is not a whole number", "give an int") from None


def labels_for(classes: Classes | None, count: int | None, names: Sequence[str]) -> Tensor:
    """Returns `count` labels (count,) int64, which cycle through `classes`. If `classes` is None,
    they cycle through all classes. If `count` is None, each class gets one label. A string is a
    class's name or, if no name matches, a class's number. Raises an `ArgumentError` if the model
    lacks a class, `classes` is empty, or `count` is below 1."""
    given: Any = range(len(names)) if classes is None else classes
    several = [given] if np.ndim(given) == 0 else list(given)
    if not several:
        raise ArgumentError("classes", "the list is empty", "give one class or more")
    chosen = torch.tensor([_label(each, names) for each in several])
    if count is None:
        return chosen
    if (count := whole("count", count)) < 1:
        raise ArgumentError("count", f"{count} is not above 0", "give 1 or more")
    return chosen[balanced_labels(count, len(chosen))]


def _label(given: Class, names: Sequence[str]) -> int:
    labels = [label for label, name in enumerate(names) if name == given]
    if len(labels) > 1:  # such as the two cranes of torchvision's ImageNet
        numbers = ", ".join(map(str, labels))
        reason = f"classes {numbers} are all named {given}"
        raise ArgumentError("classes", reason, "give one of these numbers")
    if labels:
        return labels[0]
    if not isinstance(given, str):
        number = whole("classes", given)
    else:  # if the class names are numbers, "1" can only be a name
        number = int(given) if given.isdecimal() and not any(map(str.isdecimal, names)) else -1
    if 0 <= number < len(names):
        return number
    near = difflib.get_close_matches(str(given), names, n=1) or names[:12]
    way_out = f"use 0 to {len(names) - 1}, or a name such as {', '.join(near)}"
    raise ArgumentError("classes", f"this model has no class {given}", way_out)
