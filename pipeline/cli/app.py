"""The entry point of `maskgit`, which turns an error into one line and an exit code.

Exit codes: 0, success; 1, an error (one line says how to correct the error); 2, wrong usage;
130, Ctrl-C. Commands import their tools when they run, so that `--help` answers at once.
"""

import sys
from typing import Annotated

import typer

from pipeline.cli import drawing, project, results  # noqa: F401  (importing adds the commands)
from pipeline.cli.options import app
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.process import reader_may_leave

INTERRUPTED = 130


def print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"maskgit-pipeline {version('maskgit-pipeline')}")
        raise typer.Exit


@app.callback()
def before(
    version: Annotated[
        bool,
        typer.Option("--version", callback=print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


def main() -> None:
    with reader_may_leave():
        try:
            app(prog_name="maskgit")
        except UserError as error:
            sys.exit(f"error: {error}")
        except SystemExit as stop:
            if stop.code == INTERRUPTED:
                print("error: interrupted", file=sys.stderr)
            if stop.code:
                raise
        except Exception as error:
            sys.exit(f"error: {bug(error, 'maskgit')}")
