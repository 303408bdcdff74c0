"""The commands that README and the pages of docs/ tell people to type."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from tests.project import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
PROGRAMS = "make|dvc|python3?|maskgit|pip|pytest|mkdocs|ray|mlflow|podman|pre-commit|git"
FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(rf"`((?:{PROGRAMS}) [^`]+)`")
ENVIRONMENT = re.compile(r"^([A-Z_]+=\S+ +)+")
OUTSIDE_QUOTES = r"""(?=(?:[^'"]|'[^']*'|"[^"]*")*$)"""
COMMENT = re.compile(rf"(?:^|\s)#.*{OUTSIDE_QUOTES}", re.MULTILINE)
BETWEEN = re.compile(rf"\s(?:&&|\|)\s{OUTSIDE_QUOTES}")


class Command(NamedTuple):
    page: str
    text: str  # in one line, without its comment and what is set before it

    @property
    def words(self) -> list[str]:
        """As the shell gives them to the program."""
        return shlex.split(self.text.partition(" > ")[0])


def commands() -> list[Command]:
    """Every command of every page, in the order of reading, each once a page."""
    return [
        Command(page.relative_to(ROOT).as_posix(), text)
        for page in PAGES
        for text in dict.fromkeys(in_page(page))
    ]


def in_page(page: Path) -> list[str]:
    """What stands in blocks of sh, a command a line or between `&&`, and in the text as code."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in re.finditer(rf"{FENCE.pattern}|{SPAN.pattern}", text, FENCE.flags):
        block, span = match.groups()
        lines = whole_lines(block) if block else [span]
        found += [part for line in lines for part in parts(line)]
    return found


def whole_lines(block: str) -> list[str]:
    """The lines of a block, without comments; those that go on in the next are put together."""
    lines = [""]
    for line in block.replace("\\\n", " ").splitlines():
        lines[-1] += COMMENT.sub("", line) if is_whole(lines[-1]) else line
        if is_whole(lines[-1]):
            lines.append("")
        else:
            lines[-1] += "\n"
    return lines


def is_whole(line: str) -> bool:
    """Whether every quote of it is closed."""
    try:
        shlex.split(line)
    except ValueError:
        return False
    return True


def parts(line: str) -> list[str]:
    """The commands of a line of the shell."""
    bare = (ENVIRONMENT.sub("", part.strip()) for part in BETWEEN.split(line))
    return [" ".join(part.removesuffix("&").split()) for part in bare if part]


def python_blocks(page: str) -> list[str]:
    """The blocks of Python of a page that are whole programs: that import the project."""
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if "import" in block]
