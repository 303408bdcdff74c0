"""The commands that README and docs/ show exist."""

import re
import shlex

import pytest
import typer
from dvc.cli.parser import get_main_parser

from pipeline.cli.app import app
from pipeline.runtime.files import read_yaml
from tests.project import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[tuple[str, str]]:
    """Every maskgit, make and dvc command, as (page, command on one line)."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`((?:maskgit|make|dvc) [^`]+)`", text)
        for line in lines:
            for part in re.split(r"\s(?:&&|\|)\s", line.partition(" #")[0]):
                if re.match("(maskgit |make |dvc )[a-z]", part.strip()):
                    found.append((page.relative_to(ROOT).as_posix(), " ".join(part.split())))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "text"), commands())
def test_a_command_is_one_that_its_program_has(page, text):
    program, *words = shlex.split(text.partition(" > ")[0].removesuffix("&"))
    if program == "make":
        assert words[0] in TARGETS
    elif program == "maskgit":
        command = typer.main.get_command(app).commands[words[0]]
        if len(words) > 1:
            command.make_context(words[0], words[1:], resilient_parsing="--help" in words)
    else:
        read = get_main_parser().parse_args(words)
        targets = set(getattr(read, "targets", None) or ())
        assert targets <= set(read_yaml(ROOT / "dvc.yaml")["stages"])
