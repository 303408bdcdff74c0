"""Hostile calls of the Python API: values of every argument that are none, or too many."""

import functools
import json
import random
import tempfile
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline import MaskGIT
from tests.fuzzing import Case
from tests.images import noise_image
from tests.tiny_project import SIDE, make_project, with_params

NAN, INF = float("nan"), float("inf")


class Odd:
    """What is nothing at all, and says so at length."""

    def __str__(self) -> str:
        return "odd\n" * 1000


@functools.cache
def opened() -> MaskGIT:
    return MaskGIT.from_pretrained(project(), device="cpu")


@functools.cache
def project() -> Path:
    folder = make_project(Path(tempfile.mkdtemp()))
    (folder / "params.yaml").write_text(json.dumps(with_params().model_dump()))
    return folder


def cases(random: random.Random) -> list[Case]:
    opened()  # here: it takes its time, and memory
    made = []
    for argument, (good, bad) in ARGUMENTS.items():
        for must, values in (("accept", good), ("refuse", bad)):
            for value in values:
                for name, call in CALLS[argument].items():
                    run = partial(_call, call, value)
                    made.append(Case(f"{name} {argument}={_shown(value)}", must, run))
    for name, (must, call) in PLACES.items():
        made.append(Case(name, must, partial(_place, call)))
    return made


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:30]!r}"


def _call(call: Callable[[MaskGIT, Any, Path], Any], value: Any, folder: Path) -> None:
    made = call(opened(), value, folder)
    assert made.dtype == torch.uint8 and made.ndim == 4 and len(made) >= 1


def _place(call: Callable[[Path], Any], folder: Path) -> None:
    call(folder)


def picture(side: int = 12, mode: str = "RGB") -> Image.Image:
    return noise_image(side, side, mode)


def _closed() -> Image.Image:
    image = picture()
    image.close()
    return image


def _file(content: bytes | None, folder: Path) -> Path:
    path = folder / "picture.png"
    if content is None:
        picture().save(path)
    else:
        path.write_bytes(content)
    return path


HALF = Image.new("L", (12, 12), 255)
NUMBERS = [-1, 1.5, "3", "x", None, NAN, INF, 10**400, [1], (), {}, Odd(), b"1", 2 + 3j, 2**70]
NO_REALS = ["hot", [1.0], -1, NAN, INF, -INF, 1e308, 10**400, 2j, Odd(), b"1", {}]
# Of each argument: values that are allowed, and such that are not.
ARGUMENTS: dict[str, tuple[list[Any], list[Any]]] = {
    "count": ([1, np.int64(3), torch.tensor(2)], [0, True, 10**12, *NUMBERS[:4], *NUMBERS[5:]]),
    "classes": (
        [0, "2", [0, "1"], np.int64(1), (2,), np.array([0, 1]), torch.tensor([1]), range(2)],
        [[], "", "9", -1, 3, [0, "x"], 1.0, [[0]], {}, b"x", Odd(), "²", "0\n1", NAN, [None]],
    ),
    "seed": ([0, 2**63 - 1, np.uint8(7), -1], [1.5, "3", None, NAN, [1], Odd(), b"1", {}]),
    "iterations": ([1, 16, np.int32(2), None], [0, 17, 10**9, *NUMBERS[:4], *NUMBERS[5:]]),
    "schedule": (
        ["linear", None],
        ["", "x", "Linear", "linear ", 3, ["linear"], Odd(), "../linear", b"linear", NAN, {}],
    ),
    "temperature": ([0, 1.5, np.float32(2), Fraction(1, 2), None], [*NO_REALS, Decimal("1")]),
    "guidance": ([0, 0.0, None], [1, *NO_REALS]),
    "picture": (
        [
            *(picture(), picture(30, "L"), picture(9, "RGBA"), [picture(), picture(40)]),
            *(torch.rand(1, SIDE, SIDE), torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)),
        ],
        [
            *(None, 5, [], [None], "missing.png", "", "a\0b", b"\x89PNG", NAN, Odd(), {}),
            *(_closed(), np.zeros((8, 8, 3)), [[picture()]], [torch.rand(1, 8, 8)]),
            *(Image.new("RGB", size) for size in ((0, 5), (0, 0), (900, 9), (9_000, 9_000))),
            *(Image.new(mode, (9, 9)) for mode in ("I", "F")),
            *(torch.zeros(s) for s in ((SIDE, SIDE), (1, 3, SIDE, SIDE), (0, 1, SIDE, SIDE))),
            *(torch.full((1, SIDE, SIDE), v) for v in (NAN, INF, -0.1, 1.01)),
            *(torch.zeros(1, SIDE, SIDE, dtype=kind) for kind in (torch.int64, torch.bool)),
            torch.zeros(1, SIDE, SIDE, dtype=torch.complex64),
        ],
    ),
    "box": (
        [(0, 0, 12, 12), (11, 11, 12, 12), [1, 2, 3, 4], np.array([1, 2, 3, 4])],
        [
            *((0, 0, 0, 0), (5, 5, 4, 6), (0, 0, 13, 12), (-1, 0, 5, 5), (1, 2, 3), "1,2,3,4", 5),
            *((1.5, 2, 3, 4), ("1", "2", "3", "4"), (NAN,) * 4, (0, 0, 10**30, 1), {}, Odd(), ()),
        ],
    ),
    "mask": (
        [HALF, np.ones((12, 12), bool), torch.ones(12, 12), np.eye(12), [[1] * 12] * 12],
        [
            *(Image.new("L", (12, 12)), Image.new("L", (9, 9), 255), np.ones((3, 12, 12)), 5, ""),
            *([], "missing.png", np.full((12, 12), NAN), np.full((12, 12), "x"), Odd(), {}, "a\0b"),
            *(np.array([[{}] * 12] * 12, dtype=object), np.ones((12, 12), complex), np.ones(12)),
            *(np.zeros((0, 0), bool), torch.zeros(12, 12), [[1, 2], [3]], b"mask"),
        ],
    ),
    "sides": (
        ["left", ["left", "right"], ("bottom",)],
        ["up", "", [], None, 5, ["left", "left"], ["left", "top"], [5], [None], Odd(), b"left", {}],
    ),
    "pixels": ([1, 8, np.int16(9), None], [0, 10**9, *NUMBERS[:4], *NUMBERS[5:]]),
}
Call = Callable[[MaskGIT, Any, Path], Any]


def _decoding(name: str) -> dict[str, Call]:
    return {
        "sample": lambda m, v, f: m.sample(count=1, **{name: v}),
        "steps": lambda m, v, f: list(m.sample_steps(count=1, **{name: v}))[-1].images,
        "edit": lambda m, v, f: m.edit(picture(), 0, **{name: v}),
        "outpaint": lambda m, v, f: m.outpaint(picture(), 0, **{name: v}),
    }


CALLS: dict[str, dict[str, Call]] = {
    **{name: _decoding(name) for name in ("seed", "iterations", "schedule")},
    **{name: _decoding(name) for name in ("temperature", "guidance")},
    "count": {
        "sample": lambda m, v, f: m.sample(count=v),
        "steps": lambda m, v, f: list(m.sample_steps(count=v))[-1].images,
    },
    "classes": {
        "sample": lambda m, v, f: m.sample(v),
        "edit": lambda m, v, f: m.edit([picture()] * _many(v), v),
    },
    "picture": {
        "edit": lambda m, v, f: m.edit(v, 0),
        "outpaint": lambda m, v, f: m.outpaint(v, 0),
        "reconstruct": lambda m, v, f: m.reconstruct(v),
    },
    "box": {"inpaint": lambda m, v, f: m.inpaint(picture(), 0, box=v)},
    "mask": {"inpaint": lambda m, v, f: m.inpaint(picture(), 0, mask=v)},
    "sides": {"outpaint": lambda m, v, f: m.outpaint(picture(), 0, sides=v, pixels=2)},
    "pixels": {"outpaint": lambda m, v, f: m.outpaint(picture(), 0, pixels=v)},
}


def _many(classes: Any) -> int:
    return len(classes) if isinstance(classes, list | tuple | range | np.ndarray) else 1


def _saved(folder: Path) -> Path:
    return opened().save_pretrained(folder / "saved")


def _taken(folder: Path) -> None:
    (folder / "taken").write_text("mine")
    opened().save_pretrained(folder / "taken")


NOWHERE = (None, 5, "", "a\0b", "/dev/zero", b"models", Odd(), [], "x" * 5000)
NO_PLACE = ("a\0b", "/proc/model", None, 5, "/dev/null/model", "", Odd(), "x" * 5000)
NO_SEED = (7, -1, "x", 1.5, NAN, [0], Odd())
NO_DEVICE = ("gpu", "", "cuda:99", 5, 1.5, [], Odd(), "meta")
PLACES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "open a project": ("accept", lambda folder: MaskGIT.from_pretrained(str(project()))),
    "open what was saved": ("accept", lambda folder: MaskGIT.from_pretrained(_saved(folder))),
    "save over itself": ("accept", lambda folder: [_saved(folder), _saved(folder)]),
    "save over a file": ("refuse", _taken),
    **{
        f"open {_shown(place)}": ("refuse", lambda _, place=place: MaskGIT.from_pretrained(place))
        for place in NOWHERE
    },
    **{
        f"open {name}={_shown(value)}": (
            "refuse",
            lambda _, given={name: value}: MaskGIT.from_pretrained(project(), **given),
        )
        for name, values in (("seed", NO_SEED), ("device", NO_DEVICE))
        for value in values
    },
    **{
        f"save to {_shown(place)}": (
            "refuse",
            lambda _, place=place: opened().save_pretrained(place),
        )
        for place in NO_PLACE
    },
}
