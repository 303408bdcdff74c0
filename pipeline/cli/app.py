"""The application: its commands, and how each ends.

Exit codes: 0, done; 1, an error, whose line says how to mend it; 2, a command line that cannot be
read; 130, Ctrl-C. Commands import what they need as they run, so that `--help` answers at once.
"""

import re
import sys
from itertools import pairwise
from typing import Annotated

import typer

from pipeline.cli import drawing, edits, project, results, work
from pipeline.cli.commands import add
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.process import reader_may_leave
from pipeline.runtime.project import require_here

# Arguments of the Python API that commands take as options of the same name.
OPTIONS = (
    *("classes", "count", "box", "mask", "sides", "pixels"),
    *("iterations", "schedule", "temperature", "guidance"),
)
INTERRUPTED = 130

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
for module in (project, drawing, edits, results, work):
    add(app, module.COMMANDS)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"maskgit-pipeline {version('maskgit-pipeline')}")
        raise typer.Exit


@app.callback()
def before(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    with reader_may_leave():
        try:
            require_here()
            _refuse_empty(sys.argv)
            app(prog_name="maskgit")
        except UserError as error:
            sys.exit(f"error: {_in_terms_of_options(error)}")
        except SystemExit as stop:
            if stop.code == INTERRUPTED:
                print("error: interrupted", file=sys.stderr)
            if stop.code:
                raise
        except Exception as error:
            sys.exit(f"error: {bug(error, 'maskgit')}")


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty argument, as `--model "$FOLDER"` has where that variable is not set. As a
    path it would be the current folder."""
    for before, argument in pairwise(arguments):
        if not argument or re.fullmatch("--[a-z-]+=", argument):
            raise UserError(
                f"{argument[:-1] or before}: what is given is empty, as an unset variable of the "
                f"shell is; give a value, or leave it out"
            )


def _in_terms_of_options(error: UserError) -> str:
    name, colon, _ = str(error).partition(":")
    return (
        f"--{error}"
        if isinstance(error, ArgumentError) and colon and name in OPTIONS
        else str(error)
    )
