"""Makes docs/command-line.md from the help of every command: `python docs/command_line.py`."""

import inspect
import re
from pathlib import Path
from typing import Any

import typer

from pipeline.cli import drawing, project, results
from pipeline.cli.app import app
from pipeline.runtime.files import write_text

PAGE = Path(__file__).with_name("command-line.md")
PARTS = {
    "Before a run, and on a cluster": project,
    "With a trained model": drawing,
    "After a run": results,
}
OPENING = """# The command line

`maskgit` is installed with the package; `python -m pipeline` is the same. This page shows the help
of every command (`python docs/command_line.py` makes it).

- The option `--install-completion` makes your shell complete commands and options.
- `--json` prints what scripts read, where a command has it.
- Exit codes: 0, done; 1, an error, whose one line on stderr says how to mend it; 2, a command line
  that cannot be read; 130, Ctrl-C.
- Files are written whole or not at all, and an output with an unsupported suffix is refused before
  any work.
- Commands that need a project look for it in the current folder. `sample`, `edit`, `inpaint`,
  `outpaint`, `reconstruct`, `save` and `demo` take a model from anywhere with `--model`: a
  project's folder, one that `maskgit save` wrote, or a repository of the Hugging Face Hub
  ([From Python](python.md#where-models-come-from)).
"""


def page() -> str:
    commands, parts = typer.main.get_command(app).commands, [OPENING]
    for title, module in PARTS.items():
        parts.append(f"## {title}\n")
        parts += [
            described(name, command)
            for name, command in commands.items()
            if command.callback.__module__ == module.__name__
        ]
    return "\n".join(parts)


def described(name: str, command: Any) -> str:
    """What a command does, its examples, and a table of its arguments and options."""
    examples = "".join(f"{line.strip()}\n" for line in command.epilog.splitlines()[2:])
    rows = [row(parameter) for parameter in command.params]
    table = "".join(["\n| | | default |\n|---|---|---|\n", *rows]) if rows else ""
    return f"### {name}\n\n{inspect.cleandoc(command.help)}\n\n```\n{examples}```\n{table}"


def row(parameter: Any) -> str:
    """An argument or option."""
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
