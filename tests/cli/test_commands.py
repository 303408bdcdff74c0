"""`maskgit`: the help of every command, the exit codes, and the output for scripts."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
import typer

from pipeline.cli.app import app
from pipeline.config.presets import preset_names
from tests.analysis.synthetic import write_results
from tests.command_line import maskgit
from tests.params import write_params
from tests.project import ROOT

COMMANDS = typer.main.get_command(app).commands
LARGE = {"torch", "numpy", "pandas", "rich", "mlflow", "ray", "dvc", "PIL", "pydantic"}


@pytest.fixture
def run(capsys):
    return lambda *arguments: maskgit(*arguments, capsys=capsys)


def test_help_lists_every_command_in_one_line_each(run):
    listed = run("--help").out.split("Commands:")[1]
    assert all(f"  {name} " in listed for name in COMMANDS) and "..." not in listed
    assert len(COMMANDS) == 19
    assert run("--version").out == f"maskgit-pipeline {version('maskgit-pipeline')}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_the_command_line_takes(name, run):
    examples = run(name, "-h").out.split("Example")[1].splitlines()[1:]
    examples = [shlex.split(line)[1:] for line in examples if line.strip()]
    assert examples and {first for first, *_ in examples} == {name}
    for _, *arguments in examples:
        COMMANDS[name].make_context(name, arguments)  # raises at an unknown option


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("inpiant", "Did you mean 'inpaint'?"),
        ("sample --cuont 3", "--cuont"),
        (f"sample --seed {2**63}", "--seed"),
        ("outpaint x.png --class 0 --count 1001", "--count"),
        ("export gan x.npz", "gan"),
        ("edit x.png", "--class"),
        ("", "Usage: maskgit"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_with_2(arguments, wanted, run):
    done = run(*arguments.split())
    assert done.code == 2 and wanted in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("sample --model typo", "--model: there is no folder 'typo'"),
        ("edit x.png --class 1 --box 1,2,3", "--box: .*four integers"),
        ("edit x.png --class 1 --box ٤,4,20,20", "--box: .*four integers"),
        ("demo --host 203.0.113.1", "cannot listen on 203.0.113.1"),
        ("plan nope", ".*nope"),
        ("export transformer x.png", "--output: .*unsupported suffix"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_way_out(arguments, wanted, run):
    done = run(*arguments.split())
    assert done.code == 1 and done.err.count("\n") == 1 and not done.out
    assert re.match(f"error: {wanted}", done.err)


def test_a_preset_is_listed_and_is_written_in_a_project_and_nowhere_else(
    run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    listed, shown = json.loads(run("preset", "--json").out), run("preset").out
    assert [preset["name"] for preset in listed] == preset_names()
    assert all(preset["what"] in shown and preset["cost"] in shown for preset in listed)
    done = run("preset", "smoke")
    assert done.code == 1 and not list(tmp_path.iterdir()) and "dvc.yaml" in done.err
    Path("dvc.yaml").touch()
    assert run("preset", "smoke").code == 0
    assert json.loads(run("params").out)["preset"] == "smoke"
    assert run("preset", "smok").code == 1


def test_the_summary_has_every_seed_as_json_and_their_means_as_text(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    rows = pd.read_csv(write_results(tmp_path / "results") / "evaluation/rows.csv")
    few = rows.assign(nll=math.nan, rfid_classifier=math.nan)  # too few images for FID
    few.to_csv("results/evaluation/rows.csv", index=False)
    values = json.loads(run("summary", "--json").out)
    transformer = values["networks"]["transformer"]
    assert transformer["fid_classifier"] == {"0": 3.5, "1": 3.52, "2": 3.54}
    assert transformer["nll"] == {"0": None, "1": None, "2": None}
    found = [transformer["cas_top1_none"][seed] for seed in "012"]
    assert found == pytest.approx([0.4, 0.5, 0.6]) and values["tokenizer"]["psnr"] == 18.75
    text = run("summary").out
    fid = r"FID .classifier. +3\.520 \(3\.500 to 3\.540\) +4\.530 \(4\.500 to 4\.560\) +0\.250\n"
    assert re.search(fid, text)
    assert re.search(r"CAS top-1 without +0\.500 .* 0\.200 .* 0\.700 ", text)
    assert "PSNR 18.8 dB, rFID (classifier) –, " in text


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_130(project, tmp_path):
    process = subprocess.Popen(
        (sys.executable, "-m", "pipeline", "sample", "--model", project, "--count", "1000000"),
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stderr=subprocess.PIPE,
        # As in a foreground shell: a process started with & ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    time.sleep(8)  # by now, the command is drawing
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [(["--help"], set()), (["preset"], {"pydantic"}), (["plan", "smoke"], LARGE - {"ray", "dvc"})],
)
def test_commands_import_only_what_they_need(arguments, allowed):
    code = (
        f"import sys; sys.argv = ['maskgit', *{arguments}]\n"
        "from pipeline.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = (sys.executable, "-c", code)
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    tops = {name.split(".")[0] for name in done.stderr.split()}
    assert not tops & (LARGE - allowed)
