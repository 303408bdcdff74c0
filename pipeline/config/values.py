"""The kinds of values that params have, each with its bounds (pipeline/runtime/limits.py)."""

import os
import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar
from unicodedata import category

from pydantic import AfterValidator, Field

from pipeline.runtime import limits
from pipeline.runtime.files import as_written
from pipeline.runtime.project import is_store
from pipeline.runtime.secrets import redacted

JOINERS = "\u200c\u200d"
Extractor = Literal["classifier", "inception"]


def _known_schedule(name: str) -> str:
    from pipeline.schedules import SCHEDULES

    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule '{name}'; one of {', '.join(SCHEDULES)}")
    return name


def _known_source(name: str) -> str:
    from pipeline.prepare.datasets import source_form

    source_form(name)
    return name


def _plain(text: str) -> str:
    """Text that a file system, a database and a terminal take: no NUL, no line break, no half of a
    character. (Spaces of all widths, and joiners, without which some scripts cannot be written, are
    no printable characters to Python.)"""
    if not all(c.isprintable() or c in JOINERS or category(c) == "Zs" for c in text):
        raise ValueError(f"{text!r} holds a character that cannot be printed; remove it")
    return text


def _folder(path: str) -> str:
    """The path of a folder, which may begin with `~`."""
    found = os.path.expanduser(path)
    if _is_address(found):
        raise ValueError(
            f"'{redacted(path)}' is no folder but an address, and none of s3:// and gs://; give "
            f"a folder, on a cluster one that every node sees (docs/cluster.md)"
        )
    if found.startswith("~"):
        raise ValueError(f"'{path}' begins with the home of a user that is not here; write it out")
    return _plain(found)


def _is_address(path: str) -> bool:
    return re.match(r"(?:\./)*[A-Za-z][A-Za-z0-9+.-]*:", path) is not None  # as ./s3:/bucket


def _downloads(path: str) -> str:
    if _is_address(path):
        raise ValueError(f"'{redacted(path)}' is no folder but an address; give a folder")
    if path.startswith("~"):
        raise ValueError(f"'{path}' would be a folder of that name here; write the home folder out")
    return path


def _storage(path: str) -> str:
    """A folder, or the address of an object store, which gets copies of checkpoints."""
    return _store(_plain(path)) if is_store(path) else _folder(path)


def _store(address: str) -> str:
    if not re.fullmatch(r"(s3|gs)://[a-z0-9][a-z0-9._-]+[a-z0-9](/[A-Za-z0-9._=+-]+)*/?", address):
        raise ValueError(
            f"'{redacted(address)}' is no address of an object store; write s3://bucket/folder or "
            f"gs://bucket/folder, in letters, digits and ._=+- (keys, region and endpoint belong "
            f"in the environment: docs/cluster.md)"
        )
    if ".." in address or any(not part.strip(".") for part in address.split("/")[2:] if part):
        raise ValueError(f"'{address}' has a name of dots in it; write it out")
    return address


def _distinct(values: Sequence) -> Sequence:
    """No two are the same in a file of results."""
    if len({as_written(value) for value in values}) < len(values):
        raise ValueError("a value is listed twice; list each once")
    return values


def _unsigned(value: float) -> float:
    """-0.0 is 0.0, also in the names of files and trainings."""
    return value + 0.0


def _grey_or_rgb(channels: int) -> int:
    if channels not in (1, 3):
        raise ValueError(f"must be 1 (grey) or 3 (RGB), not {channels}; correct it there")
    return channels


def _known_architecture(name: str) -> str:
    kind, _, network = name.partition(":")
    if kind == "torchvision":
        import torchvision  # takes seconds: for those alone that name it

        known = torchvision.models.list_models(
            module=torchvision.models, include=("resne[tx]*", "wide_resnet*")
        )
    if name != "small" and (kind != "torchvision" or network not in known):
        raise ValueError(
            f"unknown architecture '{name}'; use small, or torchvision:NAME, a ResNet of its "
            f"models, as torchvision:resnet50"
        )
    return name


def _ascending(value: list[float]) -> list[float]:
    low, high = value
    if low > high:
        raise ValueError(f"{low} is above {high}; give [low, high]")
    return value


def _within_image(value: list[float]) -> list[float]:
    if value[1] > 1:
        raise ValueError("a crop cannot exceed the image; use at most 1.0")
    return value


def _of_a_picture(value: list[float]) -> list[float]:
    most = limits.PICTURE_ASPECT
    if value[0] < 1 / most or value[1] > most:
        raise ValueError(
            f"no picture is more than {most} times as long as wide; use {1 / most:g} to {most}"
        )
    return value


Value = TypeVar("Value")
Text = Annotated[
    str, Field(min_length=1, max_length=limits.TEXT, pattern=r"\S"), AfterValidator(_plain)
]
Name = Annotated[
    str, Field(min_length=1, max_length=limits.NAME, pattern=r"\S"), AfterValidator(_plain)
]
Downloads = Annotated[Text, AfterValidator(_downloads)]
Storage = Annotated[Text, AfterValidator(_storage)]
Source = Annotated[Text, AfterValidator(_known_source)]
Architecture = Annotated[Text, AfterValidator(_known_architecture)]
Schedule = Annotated[Text, AfterValidator(_known_schedule)]
# Values to do something with, one after the other; a grid has one at least.
Listed = Annotated[list[Value], AfterValidator(_distinct)]
Grid = Annotated[Listed[Value], Field(min_length=1)]
Side = Annotated[int, Field(ge=1, le=limits.SIDE)]
Channels = Annotated[int, AfterValidator(_grey_or_rgb)]  # a Literal would take True for 1
Count = Annotated[int, Field(ge=1, le=limits.STEPS)]
CountFromZero = Annotated[int, Field(ge=0, le=limits.STEPS)]
Images = Annotated[int, Field(ge=1, le=limits.IMAGES)]
Batch = Annotated[int, Field(ge=1, le=limits.BATCH)]
Width = Annotated[int, Field(ge=1, le=limits.WIDTH)]
Layers = Annotated[int, Field(ge=1, le=limits.LAYERS)]
Workers = Annotated[int, Field(ge=1, le=limits.WORKERS)]
Loaders = Annotated[int, Field(ge=0, le=limits.WORKERS)]
Seed = Annotated[int, Field(ge=0, le=limits.SEED)]
Fraction = Annotated[float, Field(ge=0, lt=1), AfterValidator(_unsigned)]
Ratio = Annotated[float, Field(ge=0, le=1), AfterValidator(_unsigned)]
Positive = Annotated[float, Field(ge=limits.SMALLEST, le=limits.LARGEST)]
NonNegative = Annotated[float, Field(ge=0, le=limits.LARGEST), AfterValidator(_unsigned)]
SpikeFactor = Annotated[float, Field(gt=1, le=limits.LARGEST)] | None
Pair = Annotated[list[Value], Field(min_length=2, max_length=2)]
Range = Annotated[Pair[Positive], AfterValidator(_ascending)]
CropRatio = Annotated[Range, AfterValidator(_of_a_picture)]
CropScale = Annotated[Range, AfterValidator(_within_image)]
