"""The commands that README and docs/ show: their programs have them, and the quick ones run."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import typer
from dvc.cli.parser import get_main_parser

from pipeline.cli.app import app
from pipeline.runtime.files import read_yaml
from tests.project import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# Run in this order in a project whose smoke run has ended.
QUICK = [
    *("dvc repro", "dvc metrics show", "dvc plots show", "dvc exp show", "dvc status"),
    *("make help", "make docs", "python docs/command_line.py", "python docs/params.py"),
    *("python -m analysis", "maskgit export transformer samples.npz", "maskgit params"),
    *("maskgit plan photos --images 300 --classes 3", "maskgit preset", "maskgit doctor"),
    *("maskgit report", "maskgit sample --classes 3,7 --count 20", "maskgit summary"),
    *("maskgit sync", "maskgit preset photos", "git checkout params.yaml", "make clean"),
]


def commands() -> list[tuple[str, str]]:
    """Every command of maskgit, make and dvc: the page, and the command in one line."""
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


@pytest.mark.soak
@pytest.mark.slow
def test_the_quick_commands_run_as_they_stand(finished, tmp_path):
    shown = {text for _, text in commands()}
    assert {text for text in QUICK if text.startswith(("maskgit ", "make "))} - shown <= {
        f"maskgit {name}" for name in ("params", "report", "sync")
    }
    project = finished.copy(tmp_path / "project")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "smoke")
    venv = Path(sys.executable).parents[1]
    for text in QUICK:
        words = text.split()
        if words[0] == "maskgit":  # the same, of this folder
            words[:1] = ["python", "-m", "pipeline"]
        if words[0] == "make":  # with the environment that the tests run in
            words += [f"VENV={venv}", "--assume-old", f"{venv}/.ready"]
        project.run(*words)
    assert (project.folder / "samples.png").exists() and (project.folder / "site").exists()
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "README.md").read_text())
    (program,) = (block for block in blocks if "import" in block)
    project.run("python", "-c", program)
