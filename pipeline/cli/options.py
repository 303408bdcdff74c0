"""Defines the Typer application and the options that several commands share. Other modules add
the commands."""

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.config.paths import CODE, OUTPUTS
from pipeline.runtime.dag import DVC_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_new
from pipeline.runtime.limits import SEED
from pipeline.runtime.project import lies_in

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

app = typer.Typer(
    name="maskgit",
    help="Run the MaskGIT pipeline (Chang et al., CVPR 2022), and use its models and results.",
    epilog="\b\nA first run, in the project's folder:\n"
    "  maskgit doctor         check that this machine is ready\n"
    "  dvc repro              train, measure, and make the report\n"
    "  maskgit summary        print the main results\n"
    "  maskgit sample         draw pictures with the model",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes half a second to import, and wraps examples
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def examples(*lines: str) -> str:
    """Format example commands for the end of a command's help. Puts `maskgit` before each line."""
    title = "Examples" if len(lines) > 1 else "Example"
    return f"\b\n{title}:" + "".join(f"\n  maskgit {line}" for line in lines)


OWN = "[default: the model's setting]"
PNG = "A .png file. [default: named after the command]"


def box_of(text: str) -> tuple[int, ...]:
    """Parse a box of four whole numbers: left, top, right, bottom. Raises a `UserError` for any
    other text."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError("--box", f"'{text}' is not four integers", "write four, such as 4,4,20,20")
    return tuple(map(int, parts))


def setting_of(text: str) -> tuple[str, Any]:
    """Parse NAME=VALUE. VALUE is JSON or any other text. Raises a `UserError` if = is missing."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError("--set", f"'{text}' has no =", "write NAME=VALUE, such as sampler=halton")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


Model = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="A project's folder, a folder saved by `maskgit save`, or owner/name on Hugging Face. "
        "[default: this project's trained model, else the model shipped with maskgit]",
    ),
]
Replicate = Annotated[
    int | None, typer.Option(metavar="SEED", help="Training seed. [default: the run's first seed]")
]
Picture = Annotated[
    Path, typer.Argument(metavar="PICTURE", help="Picture, cut to its centred square and resized.")
]
Class = Annotated[
    str, typer.Option("--class", "--classes", metavar="CLASS", help="Name or number of a class.")
]
Box = Annotated[
    Any,
    typer.Option(
        parser=box_of,
        metavar="X0,Y0,X1,Y1",
        help="Left, top, right and bottom of the region to redraw, in pixels.",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="MASK", help="A mask of PICTURE's size: white is redrawn, black is kept."),
]
Count = Annotated[
    int,
    typer.Option(min=1, max=1000, metavar="N", help="Number of results; several become one grid."),
]
Seed = Annotated[
    int, typer.Option(min=0, max=SEED, metavar="SEED", help="The same seed gives identical images.")
]
Iterations = Annotated[
    int | None, typer.Option("--iterations", "-T", metavar="T", help=f"Decoding iterations. {OWN}")
]
Schedule = Annotated[str | None, typer.Option(metavar="NAME", help=f"Mask schedule. {OWN}")]
Temperature = Annotated[float | None, typer.Option(help=f"Choice temperature. {OWN}")]
Guidance = Annotated[float | None, typer.Option(help=f"Classifier-free guidance scale. {OWN}")]
Rounding = Annotated[
    Literal["floor", "ceil"] | None,
    typer.Option(help=f"Rounding of the number of masked tokens: floor or ceil. {OWN}"),
]
Settings = Annotated[
    list[Any] | None,
    typer.Option(
        "--set",
        parser=setting_of,
        metavar="NAME=VALUE",
        help="Another decoding setting (docs/python.md), such as sampler=halton.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Png = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=PNG)]


def open_model(place: str | None, replicate: int | None) -> "MaskGIT":
    """Open the model at `place`, the value of --model. Raises a `UserError` if no model is there,
    or if the training seed `replicate` has no model."""
    if place and "/" not in place and not os.path.exists(place):
        way_out = "give an existing folder, or a repository on the Hub as owner/name"
        raise UserError("--model", f"there is no folder '{place}'", way_out)
    from pipeline.api.model import MaskGIT

    with warnings_as_notes():
        return MaskGIT.from_pretrained(place, seed=replicate)


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print each warning of this project (for example, about a barely trained model) as one line,
    and hide the warnings of libraries."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if warning.category.__module__.startswith("pipeline."):
            print(f"note: {warning.message}", file=sys.stderr)


def output_format(path: Path, *formats: str, reads: Sequence[Path | None] = ()) -> None:
    """Check that a command may write its output to `path`. Raises a `UserError` if the suffix is
    not in `formats` ("" allows a new or empty folder), or if the path belongs to the project,
    cannot be written, or is one of the command's input files (`reads`)."""
    suffix = path.suffix.lower()
    if suffix not in formats:
        known = " or ".join(name or "no suffix (a folder of PNGs)" for name in formats)
        raise UserError("--output", f"{path} has an unsupported suffix", f"use {known}")
    if DVC_FILE.exists():
        for folder in (*OUTPUTS, *CODE):
            if lies_in(path, folder):
                reason = f"{path} lies in {folder}, which belongs to the project"
                raise UserError("--output", reason, "choose another path")
    if any(os.path.realpath(path) == os.path.realpath(file) for file in reads if file):
        raise UserError("--output", f"{path} is an input picture", "choose another file")
    if not suffix:
        require_new(path)
    parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    writable = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    if not writable or (suffix and path.exists() and not path.is_file()):
        way_out = "choose another file, or change the permissions of the folder"
        raise UserError("--output", f"{path} cannot be written", way_out)


def print_json(values: object) -> None:
    print(json.dumps(values, indent=2, ensure_ascii=False))
