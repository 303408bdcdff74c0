"""Options that several commands have, and what they stand for."""

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import SEED

if TYPE_CHECKING:
    from pipeline.api.defaults import Decoding
    from pipeline.api.model import MaskGIT
    from pipeline.api.pictures import Box

Model = Annotated[
    str,
    typer.Option(
        metavar="PLACE",
        help="A project's folder, one that `maskgit save` wrote, or owner/name on the Hub.",
    ),
]
Replicate = Annotated[
    int | None,
    typer.Option(metavar="SEED", help="One of evaluation.seeds; the first, if not given."),
]
Picture = Annotated[
    Path, typer.Argument(metavar="PICTURE", help="Cut to its centred square and resized.")
]
Class = Annotated[
    str, typer.Option("--class", "--classes", metavar="CLASS", help="Its name or its number.")
]
BoxText = Annotated[
    str | None,
    typer.Option("--box", metavar="X0,Y0,X1,Y1", help="Left, top, right, bottom, in its pixels."),
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="MASK", help="A picture of its size, light where it is made anew."),
]
Count = Annotated[
    int,
    typer.Option(
        min=1, max=1000, metavar="N", help="How many results; a grid of them, if 2 or more."
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0, max=SEED, metavar="SEED", help="What is drawn; the same gives the same bytes."
    ),
]
OWN = "[default: the run's own]"
Iterations = Annotated[
    int | None, typer.Option("--iterations", "-T", metavar="T", help=f"Decoding steps. {OWN}")
]
Schedule = Annotated[str | None, typer.Option(metavar="NAME", help=f"Mask schedule. {OWN}")]
Temperature = Annotated[float | None, typer.Option(help=f"Choice temperature. {OWN}")]
Guidance = Annotated[float | None, typer.Option(help=f"Classifier-free guidance. {OWN}")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


# What `-S` sets, and its name in the Python API.
PARAMS = {
    "decoding.iterations": "iterations",
    "decoding.choice_temperature": "temperature",
    "decoding.guidance_scale": "guidance",
    "decoding.rounding": "rounding",
    "decoding.bf16": "bf16",
    "training.mask_schedule": "schedule",
}
SetParam = Annotated[
    list[str] | None,
    typer.Option(
        "--set-param",
        "-S",
        metavar="KEY=VALUE",
        help="A setting of decoding, as params.yaml names it (decoding.rounding=ceil); may be "
        "repeated.",
    ),
]


def output(text: str) -> typer.models.OptionInfo:
    return typer.Option("--output", "-o", metavar="FILE", help=text)


def open_model(place: str, replicate: int | None) -> "MaskGIT":
    """Raises: UserError: there is no model, or none of that replicate."""
    from pipeline.api.model import MaskGIT
    from pipeline.api.opening import CONFIG

    alone = f"--replicate: {place} is a saved model, which has no other; leave the option out"
    if replicate is not None and (Path(place) / CONFIG).is_file():
        raise UserError(alone)
    with warnings_as_notes():
        model = MaskGIT.from_pretrained(place, seed=replicate)
    if replicate is not None and model.project is None:
        raise UserError(alone)
    return model


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print in a line what Python's users are warned of: that a model is of an earlier run."""
    from pipeline.api.opening import EarlierRun

    with warnings.catch_warnings(record=True) as notes:
        yield
    for note in notes:
        if issubclass(note.category, EarlierRun):
            print(f"note: {note.message}", file=sys.stderr)


def decoding(
    iterations: int | None,
    schedule: str | None,
    temperature: float | None,
    guidance: float | None = None,
    params: list[str] | None = None,
) -> "Decoding":
    """What was given of them, as the API takes it.

    Args:
        params: KEY=VALUE each, of what no option gives.

    Raises:
        UserError: one of `params` is no KEY=VALUE, no param of decoding, or given twice.
    """
    options = {
        "iterations": iterations,
        "schedule": schedule,
        "temperature": temperature,
        "guidance": guidance,
    }
    given = [pair for pair in options.items() if pair[1] is not None]
    given += [_set_param(text) for text in params or ()]
    for key, name in PARAMS.items():
        if sum(name == each for each, _ in given) > 1:
            raise UserError(f"-S: {key} is given twice; give it once, by -S or by its own option")
    return cast("Decoding", dict(given))


def _set_param(text: str) -> tuple[str, Any]:
    """The name in the API, and the value, of KEY=VALUE."""
    from pipeline.runtime.files import parse_yaml

    key, _, value = text.partition("=")
    try:
        parsed = parse_yaml(value)
    except ValueError as error:
        raise UserError(f"-S: the value of {key}: {error}") from None
    if key not in PARAMS or parsed is None:
        raise UserError(f"-S: '{text}' sets no param of decoding; use {', '.join(PARAMS)} (=VALUE)")
    if isinstance(parsed, bool) and key != "decoding.bf16":  # to Python, true is 1
        raise UserError(f"-S: {key} is never true or false, as in '{text}'; give its value")
    return PARAMS[key], parsed


def box_of(text: str | None) -> "Box | None":
    """Raises: UserError: the text is not four numbers."""
    if text is None:
        return None
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--box: '{text}' is not left,top,right,bottom, as 4,4,20,20") from None
    return left, top, right, bottom


def one_or_all(text: str | None, names: Sequence[str]) -> list[str] | None:
    """The classes that a text lists with commas, or the one of that name, which may have some; None
    for all."""
    return None if text is None else [text] if text in names else text.split(",")


def print_json(values: object) -> None:
    print(json.dumps(values, indent=2, ensure_ascii=False))
