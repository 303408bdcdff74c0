"""Classes by their names or numbers, as the labels that a model takes."""

import difflib
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.api.numbers import elements, is_plain, shown, whole
from pipeline.runtime.errors import ArgumentError
from pipeline.runtime.limits import IMAGES
from pipeline.sampling import balanced_labels

Class = int | str
Classes = Class | Sequence[Class]
LISTED = 12  # names that a message lists


def class_labels(classes: Classes, names: Sequence[str]) -> Tensor:
    """(n,) int64 labels of classes. A text is a class's name, or else its number.

    Raises:
        ArgumentError: the model has no such class, or none is given.
    """
    one = getattr(classes, "ndim", 1) == 0  # as an element of labels
    if one or isinstance(classes, str) or not isinstance(classes, Iterable):
        several: list[Any] = [classes[()] if isinstance(classes, np.ndarray) else classes]
    else:
        several = elements("classes", classes)
    if not several:
        raise ArgumentError("classes: an empty list; give one class or more")
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
    count = whole("count", count)
    if count < 1:
        raise ArgumentError(f"count: {count} samples cannot be drawn; give 1 or more")
    if count > IMAGES:
        raise ArgumentError(f"count: {count:,} are more than the limit of {IMAGES:,}")
    return chosen[balanced_labels(count, len(chosen))]


def labels_of(classes: Classes, pictures: int, names: Sequence[str]) -> Tensor:
    """(pictures,) labels: one for all pictures, or one for each."""
    labels = class_labels(classes, names)
    if len(labels) not in (1, pictures):
        raise ArgumentError(
            f"classes: {len(labels)} of them for {pictures} pictures; give one for all, or one each"
        )
    return labels.expand(pictures)


def _label(given: Class, names: Sequence[str]) -> int:
    if isinstance(given, str) and given in names:
        alike = [number for number, name in enumerate(names) if name == given]
        if len(alike) > 1:  # as two cranes are in torchvision's ImageNet
            numbers = ", ".join(map(str, alike[:LISTED]))
            raise ArgumentError(f"classes: {given} is the name of {numbers}; give one of these")
        return alike[0]
    number = _number(given)
    # Of names that are numbers others, a text would be one's name to a user and another's number.
    other = isinstance(given, str) and not _numbered(names) and any(map(str.isdecimal, names))
    if number is not None and 0 <= number < len(names) and not other:
        return number
    name = shown(given)
    raise ArgumentError(
        f"classes: this model has no class {name or '(an empty text)'}; {_allowed(name, names)}"
    )


def _number(given: Class) -> int | None:
    """None of what is no number, and so no class either."""
    if not isinstance(given, str):
        try:
            if isinstance(given, bool) or getattr(given, "dtype", None) == torch.bool:
                return None  # of a mask of classes, perhaps
            operator.index(given)
        except (TypeError, RuntimeError):  # RuntimeError: torch's, of a tensor that has no number
            return None
        return whole("classes", given)
    try:
        number = int(given)
    except ValueError:
        return None
    if not is_plain(given):
        raise ArgumentError(
            f"classes: '{given}' is no class; write a number in the digits 0 to 9, without blanks"
        )
    return number if str(number) == given else None  # 01 and -0 are some other program's


def _numbered(names: Sequence[str]) -> bool:
    """Whether each name is the class's number."""
    return list(names) == [str(number) for number in range(len(names))]


def _allowed(given: str, names: Sequence[str]) -> str:
    numbers = f"0 to {len(names) - 1}"
    if _numbered(names):
        return f"use {numbers}"
    if close := difflib.get_close_matches(given, names, n=1):
        return f"did you mean {close[0]}?"
    more = ", …" if len(names) > LISTED else ""
    by_number = "" if any(map(str.isdecimal, names)) else f"{numbers}, or "
    return f"use {by_number}a name: {', '.join(names[:LISTED])}{more}"
