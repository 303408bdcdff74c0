"""The Typer application, to which each module adds its commands, and options of several
commands."""

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
    help="MaskGIT (Chang et al., CVPR 2022), reproduced as a pipeline: its runs, models, results.",
    epilog="\b\nA first run, in the project's folder:\n"
    "  maskgit doctor         is this machine ready?\n"
    "  dvc repro              train, measure, and make the report\n"
    "  maskgit summary        what came out\n"
    "  maskgit sample         pictures of the model",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes half a second to import, and wraps examples
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def examples(*lines: str) -> str:
    """The epilog of a command's help.

    Args:
        lines: what stands after `maskgit`.
    """
    title = "Examples" if len(lines) > 1 else "Example"
    return f"\b\n{title}:" + "".join(f"\n  maskgit {line}" for line in lines)


OWN = "[default: the run's own]"
PNG = "A .png. [default: named after the command]"


def box_of(text: str) -> tuple[int, ...]:
    """Parse a box of four numbers: left, top, right, bottom. Raises a `UserError` if they are not a
    box."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError("--box", f"'{text}' is not four whole numbers", "write --box 4,4,20,20")
    return tuple(map(int, parts))


Model = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="A project's folder, one that `maskgit save` wrote, or owner/name on the Hub. "
        "[default: this project's or, if nothing was trained here, the one in this package]",
    ),
]
Replicate = Annotated[
    int | None, typer.Option(metavar="SEED", help="One of evaluation.seeds. [default: the first]")
]
Picture = Annotated[
    Path, typer.Argument(metavar="PICTURE", help="Cut to its centred square and resized.")
]
Class = Annotated[
    str, typer.Option("--class", "--classes", metavar="CLASS", help="Its name or its number.")
]
Box = Annotated[
    Any,
    typer.Option(
        parser=box_of,
        metavar="X0,Y0,X1,Y1",
        help="Left, top, right, bottom of the part, in pixels.",
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(metavar="MASK", help="A picture of the same size, light where it is drawn again."),
]
Count = Annotated[
    int,
    typer.Option(min=1, max=1000, metavar="N", help="How many results; two or more make a grid."),
]
Seed = Annotated[
    int, typer.Option(min=0, max=SEED, metavar="SEED", help="The same seed gives the same bytes.")
]
Iterations = Annotated[
    int | None, typer.Option("--iterations", "-T", metavar="T", help=f"Decoding steps. {OWN}")
]
Schedule = Annotated[str | None, typer.Option(metavar="NAME", help=f"Mask schedule. {OWN}")]
Temperature = Annotated[float | None, typer.Option(help=f"Choice temperature. {OWN}")]
Guidance = Annotated[float | None, typer.Option(help=f"Classifier-free guidance. {OWN}")]
Rounding = Annotated[
    Literal["floor", "ceil"] | None,
    typer.Option(help=f"How the number of tokens that stay masked is rounded. {OWN}"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Png = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help=PNG)]


def open_model(place: str | None, replicate: int | None) -> "MaskGIT":
    """Open a model. Raises a `UserError` if there is no model, or none of that replicate."""
    if place and "/" not in place and not os.path.exists(place):
        way_out = "give a folder, or the name of a repository on the Hub, owner/name"
        raise UserError("--model", f"there is no folder '{place}'", way_out)
    from pipeline.api.model import MaskGIT

    with warnings_as_notes():
        return MaskGIT.from_pretrained(place, seed=replicate)


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print the project's own warnings in a line each, such as that a model is of an earlier run;
    hide warnings of libraries."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    for warning in caught:
        if warning.category.__module__.startswith("pipeline."):
            print(f"note: {warning.message}", file=sys.stderr)


def output_format(path: Path, *formats: str, reads: Sequence[Path | None] = ()) -> None:
    """Check the path of an output before its content is computed.

    Args:
        formats: the suffixes that are written; "" for a folder.
        reads: the files that the command reads, which the output must not replace.

    Raises:
        UserError: the suffix is another, DVC would delete the output, or it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in formats:
        known = ", ".join(name or "no suffix (a folder of PNGs)" for name in formats)
        raise UserError("--output", f"{path} has an unsupported suffix", f"use {known}")
    if DVC_FILE.exists():
        for folder in (*OUTPUTS, *CODE):
            if lies_in(path, folder):
                reason = f"{path} lies in {folder}, which belongs to the project"
                raise UserError("--output", reason, "name another place")
    if any(os.path.realpath(path) == os.path.realpath(file) for file in reads if file):
        raise UserError("--output", f"{path} is the picture that is read", "name another file")
    if not suffix:
        require_new(path)
    parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    writable = parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)
    if not writable or (suffix and path.exists() and not path.is_file()):
        way_out = "name another file, or change the permissions of its folder"
        raise UserError("--output", f"{path} cannot be written", way_out)


def print_json(values: object) -> None:
    print(json.dumps(values, indent=2, ensure_ascii=False))
