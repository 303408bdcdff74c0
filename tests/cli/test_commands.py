"""`maskgit`: every command explains itself; how each ends; what scripts read."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import typer

from pipeline.cli.app import app
from pipeline.config.presets import preset_names
from pipeline.runtime.files import write_json
from tests.command_line import maskgit
from tests.project import ROOT
from tests.tiny_project import with_params

COMMANDS = typer.main.get_command(app).commands
EDIT = ["edit", "x.png", "--class", "1"]
LARGE = {"torch", "numpy", "pandas", "rich", "mlflow", "ray", "dvc", "PIL", "pydantic"}


@pytest.fixture
def run(capsys):
    return lambda *arguments: maskgit(*arguments, capsys=capsys)


def test_help_lists_every_command_in_one_line_each(run):
    done = run("--help")
    assert done.code == 0 and len(COMMANDS) == 19
    listed = done.out.split("Commands:")[1]
    assert all(f"  {name} " in listed for name in COMMANDS) and "..." not in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_that_the_command_line_takes(name, run):
    examples = [
        line.strip().removeprefix("maskgit ")
        for line in run(name, "-h").out.split("Example")[1].splitlines()[1:]
        if line.strip()
    ]
    assert examples
    for example in examples:
        first, *arguments = shlex.split(example)
        assert first == name
        COMMANDS[name].make_context(name, arguments)  # raises at an unknown option


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["inpiant"], "Did you mean 'inpaint'?"),
        (["sample", "--cuont", "3"], "--cuont"),
        (["sample", "--count", "many"], "--count"),
        (["sample", "--count", "0"], "--count"),
        (["sample", "--seed", str(2**63)], "--seed"),
        (["sample", "--rounding", "up"], "--rounding"),
        (["outpaint", "x.png", "--class", "0", "--count", "1001"], "--count"),
        (["plan", "--images", "0"], "--images"),
        (["demo", "--port", "99999"], "--port"),
        (["export", "gan", "x.npz"], "gan"),
        (["edit", "x.png"], "--class"),
        ([], "Usage: maskgit"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_with_2(arguments, wanted, run):
    done = run(*arguments)
    assert done.code == 2 and wanted in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["sample", "--schedule", "cosin"], "--schedule: .*did you mean cosine?"),
        (["sample", "--schedule", "x"], "--schedule: .*use one of exponential"),
        (
            ["edit", "x.png", "--class", "1", "--box", "20,20,10,10"],
            "--box: .*right must be larger",
        ),
        ([*EDIT, "--box", "1,2,3"], "--box: .*four whole numbers"),
        ([*EDIT, "--box", "٤,4,20,20"], "--box: .*four whole numbers"),
        (["demo", "--host", "no such host"], "cannot listen on no such host"),
        (["plan", "nope"], ".*nope"),
    ],
)
def test_a_wrong_value_is_one_line_with_the_way_out(arguments, wanted, run):
    done = run(*arguments)
    assert done.code == 1 and done.err.count("\n") == 1 and not done.out
    assert re.match(f"error: {wanted}", done.err)


def test_the_version_is_the_packages(run):
    from importlib.metadata import version

    assert run("--version").out == f"maskgit-pipeline {version('maskgit-pipeline')}\n"


def test_a_preset_is_written_in_a_project_and_nowhere_else(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("preset", "smoke")
    assert done.code == 1 and not list(tmp_path.iterdir()) and "dvc.yaml" in done.err
    Path("dvc.yaml").touch()
    assert run("preset", "smoke").code == 0
    assert json.loads(run("params").out)["preset"] == "smoke"
    assert run("preset", "smok").code == 1


def test_presets_are_listed_with_what_they_are_and_cost(run):
    listed = json.loads(run("preset", "--json").out)
    assert [preset["name"] for preset in listed] == preset_names()
    lines = run("preset").out.splitlines()
    for preset in listed:
        at = next(i for i, line in enumerate(lines) if line.startswith(preset["name"] + " "))
        assert preset["what"] in lines[at] and preset["cost"] in lines[at + 1]


def test_the_summary_as_json_has_every_seed_and_as_text_their_means(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = with_params()
    Path("params.yaml").write_text(params.model_dump_json())
    main, networks = params.training.label_smoothing, ("transformer", "autoregressive")
    metrics = dict.fromkeys(
        ("is_classifier", "precision_classifier", "recall_classifier", "class_accuracy"), 0.5
    )
    rows = [
        {"images": n, "label_smoothing": s, "seed": seed, "fid_classifier": seed + s, "nll": None}
        | metrics
        for n in networks
        for s in (main, 0.2)
        for seed in (0, 1)
    ]
    cas = [
        {"images": n, "seed": 0, "augmentation": "none", "top1": 0.5} for n in (*networks, "real")
    ]
    for stage, table in (("evaluation", rows), ("cas", cas)):
        Path("results", stage).mkdir(parents=True)
        pd.DataFrame(table).to_csv(f"results/{stage}/rows.csv", index=False)
    write_json("results/tokenizer/metrics.json", {"psnr": 20.0, "code_usage": 1.0})
    write_json("results/prepare/metrics.json", {"classes": 10, "largest_class": 0.1})
    values = json.loads(run("summary", "--json").out)
    transformer = values["networks"]["transformer"]
    assert transformer["fid_classifier"] == {"0": main, "1": 1 + main}
    assert transformer["nll"] == {"0": None, "1": None}
    assert transformer["cas_top1_none"] == {"0": 0.5} and values["tokenizer"]["psnr"] == 20.0
    text = run("summary").out
    low, high = f"{main:.2f}", f"{1 + main:.2f}"
    assert f"FID (classifier) {main + 0.5:.2f} ({low} to {high}, 2 seeds)" in text
    assert "PSNR 20.0 dB, rFID (classifier) –, 100% of codes used" in text
    assert "real images  CAS top-1 0.500 (1 seed) without RandAugment" in text


def test_the_report_is_found_or_said_to_be_missing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("report")
    assert done.code == 1 and "dvc repro" in done.err
    Path("analysis").mkdir()
    Path("analysis/report.html").touch()
    assert run("report").out == f"{tmp_path / 'analysis/report.html'}\n"


def start(*command: str, **options) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        (sys.executable, "-m", "pipeline", *command),
        env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_130(project, tmp_path):
    # As in a foreground shell: what one starts with & has Ctrl-C ignored.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    count = ("--count", "1000000", "--output", str(tmp_path / "a.npz"))
    process = start("sample", "--model", str(project), *count, cwd=tmp_path, **heard)
    time.sleep(8)  # within its work
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


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "wanted"), [("in", "inpaint"), ("sample --sch", "--schedule")])
def test_the_shell_completes_commands_and_options(typed, wanted, monkeypatch):
    monkeypatch.setenv("_MASKGIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"maskgit {typed}")
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
    out, err = start(cwd=ROOT).communicate()
    assert (out.split(), err) == ([wanted], "")
