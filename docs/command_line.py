"""Write docs/command-line.md from the help of all commands: `python docs/command_line.py`."""

import inspect
import re
from collections import Counter
from collections.abc import Container
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

```sh
maskgit sample --classes 3,5 --count 20 --output digits.png
```

Run commands in the project's folder. `python -m pipeline` is the same as `maskgit`.

- `maskgit --install-completion` makes your shell complete commands and options.
- Exit codes: 0, success; 1, an error, with one line on stderr that says how to correct it; 2, wrong
  usage; 130, Ctrl-C.

`python docs/command_line.py` makes this page.
"""


def page() -> str:
    commands, parts = typer.main.get_command(app).commands, [OPENING]
    lines = Counter(line(each) for command in commands.values() for each in command.params)
    shared = {text: None for text, count in lines.items() if count > 1}
    parts.append("## Options of several commands\n\n" + "".join(shared))
    for title, module in PARTS.items():
        parts.append(f"## {title}\n")
        parts += [
            described(name, command, shared)
            for name, command in commands.items()
            if command.callback.__module__ == module.__name__
        ]
    return "\n".join(parts)


def described(name: str, command: Any, shared: Container[str]) -> str:
    """A command's section: its help, examples, own options, and the names of shared options."""
    about = inspect.cleandoc(command.help).replace("<", "&lt;")
    examples = "".join(f"    {each.strip()}\n" for each in command.epilog.splitlines()[2:])
    own = "".join(line(each) for each in command.params if line(each) not in shared)
    also = ", ".join(names(each)[0] for each in command.params if line(each) in shared)
    parts = [f"### {name}\n\n{about}\n\n{examples}", own, f"Also: {also}.\n" if also else ""]
    return "\n".join(part for part in parts if part)


def names(parameter: Any) -> list[str]:
    if parameter.param_type_name == "option":
        return [f"`{name}`" for name in parameter.opts]
    return [f"`{parameter.name.upper()}`"]


def line(parameter: Any) -> str:
    """The line of an argument or option: its names, meaning and default."""
    text = parameter.help or ""
    said = re.search(r" ?\[default: (.*?)\]", text)
    default = parameter.default
    if said:
        shown, text = said[1], text.replace(said[0], "")
    else:
        shown = "" if default is None or default is False else f"`{default}`"
    about = [f"{text.rstrip('.')}." if text else ""]
    if parameter.required and parameter.param_type_name == "option":
        about.append("Required.")
    elif shown and not parameter.required:
        about.append(f"Default: {shown}.")
    meaning = " ".join(part for part in about if part)
    return f"- {', '.join(names(parameter))}{': ' if meaning else ''}{meaning}\n"


if __name__ == "__main__":
    write_text(PAGE, page())
