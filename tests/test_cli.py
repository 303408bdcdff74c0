"""`maskgit`: every command is there and explains itself; how each ends, what scripts read."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import typer

from pipeline.cli import drawing, edits, project, results, work
from pipeline.cli.app import app
from pipeline.config.presets import preset_names
from pipeline.runtime.files import write_json
from tests.command_line import maskgit
from tests.project import ROOT
from tests.tiny_project import with_params

COMMANDS = [c for module in (project, drawing, edits, results, work) for c in module.COMMANDS]
BEFORE = ["export", "measure", "params", "plan", "preset", "sample", "submit"]


@pytest.fixture
def run(capsys):
    return lambda *arguments: maskgit(*arguments, capsys=capsys)


def test_the_commands_of_before_are_there_and_those_that_were_asked_for(run):
    names = {command.run.__name__ for command in COMMANDS}
    assert names >= {*BEFORE, "summary", "sync"}
    assert names >= {"edit", "inpaint", "outpaint", "reconstruct", "doctor", "report", "ui"}
    done = run("--help")
    assert done.code == 0
    for name in names:
        assert f"  {name} " in done.out
    assert "..." not in done.out.split("Commands:")[1]  # each says itself in one line


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.run.__name__)
def test_every_help_has_examples_that_the_command_line_takes(command, run):
    name = command.run.__name__
    shown = run(name, "-h").out
    assert command.examples
    for example in command.examples:
        assert f"\n    maskgit {example}\n" in shown
        first, *arguments = shlex.split(example)
        assert first == name
        parser = typer.main.get_command(app).commands[name]
        parser.make_context(name, arguments)  # would exit at an option that is none


def test_the_version_is_the_packages(run):
    from importlib.metadata import version

    assert run("--version").out == f"maskgit-pipeline {version('maskgit-pipeline')}\n"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["inpiant"], "No such command 'inpiant'. Did you mean 'inpaint'?"),
        (["sample", "--cuont", "3"], "--cuont"),
        (["sample", "--count", "many"], "--count"),
        *(([c, "--seed", str(2**63)], "--seed") for c in ("sample", "edit", "inpaint", "outpaint")),
        (["export", "gan", "x.npz"], "gan"),
        (["edit", "x.png"], "--class"),
        ([], "Usage: maskgit"),
    ],
)
def test_a_command_line_that_is_none_ends_with_2(arguments, wanted, run):
    done = run(*arguments)
    assert done.code == 2 and wanted in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["sample", "--model", ""], "--model"),
        (["sample", "--model="], "--model"),
        (["sample", "-o", ""], "-o"),
        (["edit", "x.png", "--class", "1", "--mask", ""], "--mask"),
        (["measure", ""], "measure"),
        (["save", ""], "save"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(arguments, name, run):
    done = run(*arguments)
    assert done.code == 1 and done.err.startswith(f"error: {name}: what is given is empty")
    assert done.err.count("\n") == 1 and not done.out


def test_a_preset_is_written_in_a_project_and_nowhere_else(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("preset", "smoke")
    assert done.code == 1 and not list(tmp_path.iterdir())
    assert done.err.startswith("error: there is no project in ") and "dvc.yaml" in done.err
    Path("dvc.yaml").touch()
    assert run("preset", "smoke").out == "params.yaml now holds preset smoke; `dvc repro` runs it\n"
    assert json.loads(run("params").out)["preset"] == "smoke"
    assert json.loads(run("params", "--json").out) == json.loads(run("params").out)
    done = run("preset", "smok")
    assert (done.code, done.err) == (1, f"error: no preset 'smok'; one of {names()}\n")


def names() -> str:
    return ", ".join(preset_names())


def test_presets_are_listed_with_what_they_are_and_cost(run):
    listed = json.loads(run("preset", "--json").out)
    assert [preset["name"] for preset in listed] == preset_names()
    smoke = next(preset for preset in listed if preset["name"] == "smoke")
    assert smoke["what"] == "every stage of the DAG, as small as it can be"
    assert smoke["cost"] == "2 to 3 minutes on 2 CPU cores"
    assert all("not said" not in (preset["what"], preset["cost"]) for preset in listed)
    lines = run("preset").out.splitlines()
    for preset in listed:
        at = next(i for i, line in enumerate(lines) if line.startswith(preset["name"] + " "))
        assert preset["what"] in lines[at] and preset["cost"] in lines[at + 1]


def test_the_summary_as_json_has_every_seed(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = with_params()
    Path("params.yaml").write_text(params.model_dump_json())
    main, networks = params.training.label_smoothing, ("transformer", "autoregressive")
    rows = [
        {"images": n, "label_smoothing": s, "seed": seed, "fid_classifier": seed + s, "nll": None}
        for n in networks
        for s in (main, 0.2)
        for seed in (0, 1)
    ]
    cas = [{"images": n, "seed": 0, "augmentation": "none", "top1": 0.5} for n in networks]
    for stage, table in (("evaluation", rows), ("cas", cas)):
        Path("results", stage).mkdir(parents=True)
        pd.DataFrame(table).to_csv(f"results/{stage}/rows.csv", index=False)
    write_json("results/tokenizer/metrics.json", {"psnr": 20.0})
    values = json.loads(run("summary", "--json").out)
    transformer = values["networks"]["transformer"]
    assert transformer["fid_classifier"] == {"0": main, "1": 1 + main}
    assert transformer["nll"] == {"0": None, "1": None}
    assert transformer["cas_top1_none"] == {"0": 0.5} and values["tokenizer"] == {"psnr": 20.0}


def test_the_report_is_found_or_said_to_be_missing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("report")
    assert done.code == 1 and "report.html is missing; run `dvc repro`" in done.err
    Path("analysis").mkdir()
    Path("analysis/report.html").touch()
    assert run("report").out == f"{tmp_path / 'analysis/report.html'}\n"
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    assert "there is no browser here" in run("report", "--open").err


def start(*command: str, **options) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        (sys.executable, "-m", "pipeline", *command),
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_130(tmp_path):
    # As in a foreground shell: what one starts with & has Ctrl-C ignored.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start("plan", "imagenet512", cwd=tmp_path, **heard)
    time.sleep(6)  # within its work
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")


@pytest.mark.slow
def test_help_imports_nothing_large():
    code = "import sys; from pipeline.cli.app import app; print(*sys.modules)"
    command = (sys.executable, "-c", code)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    tops = {name.split(".")[0] for name in done.stdout.split()}
    assert not tops & {"torch", "numpy", "pandas", "rich", "mlflow", "ray", "dvc", "PIL"}


@pytest.mark.slow
def test_a_preset_is_chosen_without_torch(tmp_path):
    """It takes a second to import, three times as long as all the rest of the command."""
    (tmp_path / "dvc.yaml").touch()
    code = (
        "import sys; from pipeline.cli.app import main; "
        "sys.argv = ['maskgit', 'preset', 'smoke']; main(); print('torch' in sys.modules)"
    )
    command = (sys.executable, "-c", code)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=env, check=True
    )
    assert done.stdout.split()[-1] == "False"
    assert (tmp_path / "params.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "wanted"), [("in", "inpaint"), ("sample --sch", "--schedule")])
def test_the_shell_completes_commands_and_options(typed, wanted, monkeypatch):
    monkeypatch.setenv("_MASKGIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"maskgit {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    out, err = start(cwd=ROOT).communicate()
    assert (out.split(), err) == ([wanted], "")
