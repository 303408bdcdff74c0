"""The pages on the command line and on Python, and the notebook: what they show is, and runs."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.config.replicates import main_replicates
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.published import save_model
from tests.project import ROOT
from tests.tiny_project import CODES, GRID, make_project, with_params

DIGITS = 10


def test_the_page_of_commands_is_made_of_todays():
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "docs/command_line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run `python docs/command_line.py`"


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A project of ten classes, as the default has."""
    folder = make_project(tmp_path_factory.mktemp("digits"))
    params = with_params(decoding={"iterations": 8})
    config = TransformerConfig(GRID**2, CODES, DIGITS, 1, 16, 2, 32, 0.1)
    torch.manual_seed(0)
    for replicate in main_replicates(params, "transformer"):
        weights = MaskGitTransformer(config).state_dict()
        save_model(folder / replicate.folder, "transformer", config, weights)
    (folder / "params.yaml").write_text(json.dumps(params.model_dump()))
    shutil.rmtree(folder / "data/images")  # of three classes
    (folder / "docs").mkdir()
    return folder


def test_every_block_of_the_page_on_python_runs_in_its_order(digits, capsys, monkeypatch):
    monkeypatch.chdir(digits)
    page = (ROOT / "docs/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    names: dict = {}
    for block in blocks:
        # The pictures of the tiny project have 8 pixels a side, the default's 28.
        exec(block.replace("(4, 4, 12, 14)", "(1, 1, 4, 6)"), names)
    shown = re.findall(r"\n\n```\n(.*?)```", page, re.DOTALL)
    printed = capsys.readouterr().out
    assert shown and all(output in printed for output in shown)
    assert names["few"].shape == (4, 1, 8, 8) and names["wide"].shape == (1, 1, 8, 16)


def test_the_notebook_runs_and_was_run(digits, monkeypatch):
    cells = json.loads((ROOT / "docs/maskgit.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    monkeypatch.chdir(digits / "docs")
    names: dict = {}
    for cell in code:
        exec("".join(cell["source"]).replace("(2, 12, 26, 26)", "(1, 2, 7, 7)"), names)
    assert len(names["canvases"]) == 8
