"""Makes docs/command-line.md, what every command says of itself: `python docs/command_line.py`."""

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from pipeline.cli import drawing, edits, project, results, work
from pipeline.cli.app import app
from pipeline.cli.commands import Command
from pipeline.runtime.files import write_text

PAGE = Path(__file__).with_name("command-line.md")
PARTS = {
    "Before a run": project,
    "A trained model": drawing,
    "Your own pictures": edits,
    "After a run": results,
    "Outside of the DAG": work,
}
OPENING = """# The command line

`maskgit` is installed with the package; `python -m pipeline` is the same. This page is made of
what the commands say of themselves, by `python docs/command_line.py`; a test compares it, and
another takes every example.

- The option `--install-completion` makes your shell complete commands and options.
- `--json` prints what scripts read, where a command has it.
- Exit codes: 0, done; 1, an error, whose one line on stderr says how to mend it; 2, a command line
  that cannot be read; 130, Ctrl-C.
- Files are written whole or not at all, and an output whose suffix stands for no format is refused
  before any work.
- Commands that need a project look for it in the current folder. `sample`, `edit`, `inpaint`,
  `outpaint`, `reconstruct`, `save` and `demo` take a model from anywhere with `--model`: a
  project's folder, one that `maskgit save` wrote, or a repository of the Hugging Face Hub
  ([From Python](python.md#where-models-come-from)).
"""


def page() -> str:
    parts = [OPENING]
    for title, module in PARTS.items():
        parts.append(f"## {title}\n")
        parts += [described(command) for command in module.COMMANDS]
    return "\n".join(parts)


def described(command: Command) -> str:
    """What it does, its examples, and a table of what it takes."""
    name = command.run.__name__
    parser = typer.main.get_command(app).commands[name]
    examples = "".join(f"maskgit {example}\n" for example in command.examples)
    rows = [row(parameter) for parameter in parser.params]
    table = "".join(["\n| | | default |\n|---|---|---|\n", *rows]) if rows else ""
    return f"### {name}\n\n{inspect.cleandoc(parser.help)}\n\n```\n{examples}```\n{table}"


def row(parameter: Any) -> str:
    """Of an option or an argument."""
    option = parameter.param_type_name == "option"
    names = ", ".join(f"`{name}`" for name in parameter.opts) if option else parameter.name.upper()
    text = parameter.help or ""
    said = re.search(r" ?\[default: (.*?)\]", text)
    default = parameter.default
    if parameter.required:
        shown = "**needed**"
    elif said:
        shown, text = said[1], text.replace(said[0], "")
    else:
        shown = "" if default is None or default is False else f"`{default}`"
    return f"| {names} | {text} | {shown} |\n"


if __name__ == "__main__":
    write_text(PAGE, page())
