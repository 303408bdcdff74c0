"""How a command is described to the application."""

from collections.abc import Callable
from typing import NamedTuple

import typer


class Command(NamedTuple):
    """A function that is a command: its name is the function's, its help the docstring."""

    run: Callable[..., None]
    examples: tuple[str, ...]  # what stands behind `maskgit`


def add(app: typer.Typer, commands: tuple[Command, ...]) -> None:
    for command in commands:
        title = "Examples" if len(command.examples) > 1 else "Example"
        lines = "".join(f"\n  maskgit {example}" for example in command.examples)
        app.command(epilog=f"\b\n{title}:{lines}")(command.run)
