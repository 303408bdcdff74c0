"""Every command that a page shows is one that works: its options exist, its params and targets too,
and where that takes no training and no other machine it is run as it stands."""

import re
import sys
import tomllib
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.config.params import load_params
from pipeline.config.presets import apply_preset
from pipeline.runtime.files import read_yaml
from tests.documented import Command, commands, python_blocks
from tests.project import ROOT, Project

# Run by the slow test below, in this order, in a project whose smoke run has ended.
RUN = [
    "dvc repro",
    "dvc metrics show",
    "dvc plots show",
    "dvc exp show",
    "dvc exp show --only-changed",
    "dvc status",
    "dvc dag --mermaid",
    "make help",
    "make clean",
    "make docs",
    "python docs/command_line.py",
    "python docs/params.py",
    "python docs/scale/report.py",
    "python -m analysis",
    "maskgit export transformer samples.npz",
    "maskgit params",
    "maskgit plan evening --tflops 0.1",
    "maskgit plan imagenet256 --tflops 150 --tflops-float32 40",
    "maskgit plan photos --images 300 --classes 3 --tflops 0.18",
    "maskgit preset",
    "maskgit doctor",
    "maskgit report",
    "maskgit sample --classes 3,7 --count 20",
    "maskgit sample --classes 3,7 --count 20 --output samples.png",
    "maskgit scale --help",
    "maskgit summary",
    "maskgit sync",
    "maskgit register",
    "git add dvc.lock params.yaml results analysis/figures",
    "maskgit preset imagenet256",
    "maskgit preset photos",
    "git add dvc.lock params.yaml results analysis/figures .dvc/config",
    "git checkout params.yaml",
    "maskgit preset smoke",
]
# Only read, by what they begin with, and why.
READ = {
    "make repro": "the default run takes 20 minutes",
    "make smoke": "the same as the project that the others run in",
    "make test": "the tests themselves",
    "make check": "the tests themselves",
    "pytest": "the tests themselves",
    "make bench": "takes ten minutes",
    "python -m tests.speed_of_workers": "needs two idle cores and the default run",
    "python -m tests.speed_of_others": "needs two idle cores, for ten minutes or more",
    "python -m tests.rounding PROJECT": "takes minutes (tests/test_rounding.py does the same)",
    "python -m tests.job_elsewhere PROJECT --kill-node": "runs all stages again, for five minutes",
    "make env": "installs",
    "python3 -m venv": "installs",
    ". .venv/bin/activate": "changes the shell that it is typed into",
    "pip install": "installs",
    "pre-commit install": "writes a hook of git's",
    "export ": "changes the shell that it is typed into",
    "mkdir ": "a folder outside of the project",
    "chmod ": "the same",
    "make ui": "serves until it is stopped (tests/test_ui.py opens it)",
    "mlflow server": "serves until it is stopped",
    "ray get-auth-token": "makes the reader's token (tests/ray_head.py's heads have one)",
    "ray start": "serves until it is stopped (tests/test_submit.py runs it)",
    "make submit": "needs a Ray that waits for jobs (tests/test_submit.py)",
    "kubectl ": "needs Kubernetes (tests/test_deploy.py reads the file)",
    "maskgit submit --address": "needs the cluster before it (tests/test_submit.py)",
    "podman build": "fetches an image, and PyTorch for a GPU",
    "sbatch ": "needs SLURM (tests/test_slurm.py runs the script)",
    "dvc commit": "takes what the reader knows to be the same",
    "dvc push": "needs a remote (tests/test_dvc_use.py has one)",
    "dvc pull": "needs a remote (tests/test_dvc_use.py has one)",
    "dvc remote add": "the path is the reader's (tests/test_dvc_use.py)",
    "git tag": "the tag is the reader's (tests/test_dvc_use.py)",
    "dvc get": "needs a commit with a run in it (tests/test_dvc_use.py)",
    "dvc artifacts get": "needs a commit with a run in it (tests/test_dvc_use.py)",
    "dvc exp apply": "needs the experiment before it (tests/test_dvc_use.py)",
    "dvc exp remove": "needs the experiment before it (tests/test_dvc_use.py)",
    "dvc metrics diff": "needs a commit with a run in it (tests/test_dvc_use.py)",
    "git commit": "the commit is the reader's",
    "make plots": "installs",
    "mlflow models serve": "serves until it is stopped (tests/test_registry.py)",
    "curl ": "asks the server before it (tests/test_registry.py does)",
    "python -c": "reads the answer of that server",
    "dvc exp run": "trains for minutes or days (tests/test_rerun.py runs it small)",
    "dvc repro ": "trains for minutes, or names what the reader does",
    "maskgit measure": "PATH is the reader's (tests/test_measure.py)",
    "maskgit sample --classes 207,88": "needs the release's weights",
    "maskgit sample --classes cat": "has the reader's classes (tests/test_cli_models.py)",
    "maskgit inpaint cat.jpg": "has the reader's picture (tests/test_cli_models.py)",
    "maskgit report --open": "opens a browser",
    "maskgit scale ": "trains for an hour (tests/test_scale.py runs it small)",
}
CLICK = {"ray": "ray.scripts.scripts", "mlflow": "mlflow.cli"}  # where their command lines are
OTHERS = (  # whose options are not looked at
    *(
        "python",
        "python3",
        "git",
        "pytest",
        "pre-commit",
        "podman",
        "kubectl",
        "sbatch",
        "curl",
        "mkdir",
        "chmod",
    ),
    *("export", "."),
)
SPOKEN_OF = ("python -m pipeline", "dvc exp run")
IDS = [f"{command.page}: {command.text}" for command in commands()]


def reason(text: str) -> str | None:
    """Why a command is only read."""
    return next((why for start, why in READ.items() if text.startswith(start)), None)


@pytest.mark.parametrize("command", commands(), ids=IDS)
def test_a_command_is_run_or_there_is_a_reason(command):
    spoken_of = command.text in SPOKEN_OF or re.fullmatch(r"maskgit \w+", command.text)
    assert spoken_of or command.text in RUN or reason(command.text), command.text


def test_the_lists_hold_no_command_that_no_page_shows():
    shown = [command.text for command in commands()]
    assert [text for text in RUN if text not in shown] == []
    assert [start for start in READ if not any(text.startswith(start) for text in shown)] == []


@pytest.mark.parametrize("command", commands(), ids=IDS)
def test_a_command_is_one_that_its_program_has(command, tmp_path):
    words = command.words
    match words[:3]:
        case ["make", target, *_]:
            assert target in makefile_targets()
        case ["maskgit", *_]:
            parse_maskgit(words[1:])
        case ["python", "-m", module]:
            path = ROOT / module.replace(".", "/")
            assert path.is_dir() or path.with_suffix(".py").exists()
        case ["python" | "python3", script, *_] if script.endswith(".py"):
            assert (ROOT / script).exists()
        case ["dvc", *_]:
            parse_dvc(command, tmp_path)
        case ["pip", "install", *_]:
            check_install(words)
        case [program, *_] if program in CLICK:
            parse_click(program, words[1:])
        case [program, *_]:
            assert program in OTHERS


@cache
def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def parse_click(program: str, words: list[str]) -> None:
    command = import_module(CLICK[program]).cli
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    command.make_context(program, list(words))  # exits, or raises, at an option that is none


def parse_maskgit(words: list[str]) -> None:
    import typer

    from pipeline.cli.app import app

    name, *options = words
    command = typer.main.get_command(app).commands[name]
    if options and "--help" not in options:
        command.make_context(name, options)


def parse_dvc(command: Command, folder: Path) -> None:
    """DVC's own parser reads it; its targets are stages, and its -S values that params may have."""
    from dvc.cli.parser import get_main_parser
    from dvc.utils.hydra import apply_overrides

    read = get_main_parser().parse_args(command.words[1:])
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    assert set(getattr(read, "targets", None) or ()) <= set(stages)
    if changes := getattr(read, "set_param", None):
        apply_preset(preset_of(command), folder / "params.yaml")
        apply_overrides(folder / "params.yaml", changes)
        load_params(folder / "params.yaml")


def preset_of(command: Command) -> str:
    """The last preset that the page takes before the command; the default's where it takes none."""
    shown = [other.text for other in commands() if other.page == command.page]
    before = "\n".join(shown[: shown.index(command.text)])
    taken = re.findall(r"maskgit preset (\w+)", before)
    if command.page == "docs/fidelity.md":
        return "imagenet256"  # "from one of these presets"
    return taken[-1] if taken else "mnist5k"


def check_install(words: list[str]) -> None:
    """What pip is told to install is this project, with extras that it has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.findall(r"\[(.+?)\]", words[-1])
    assert {extra for names in extras for extra in names.split(",")} <= set(
        project["optional-dependencies"]
    )
    for option, value in pairwise(words):
        assert option not in ("-c", "-r") or (ROOT / value).exists()


@pytest.mark.slow
def test_commands_run_as_they_stand(finished, tmp_path_factory):
    project: Project = finished.copy(tmp_path_factory.mktemp("documented") / "project")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "smoke")
    venv = Path(sys.executable).parents[1]
    for text in RUN:
        words = Command("", text).words
        if words[0] == "maskgit":  # the same, of this folder
            words[:1] = ["python", "-m", "pipeline"]
        if words[0] == "make":  # with the environment that the tests run in
            words += [f"VENV={venv}", "--assume-old", f"{venv}/.ready"]
        project.run(*words)
    assert (project.folder / "samples.png").exists() and (project.folder / "site").exists()
    (program,) = python_blocks("README.md")
    project.run("python", "-c", program)
    assert (project.folder / "sample.png").exists()
