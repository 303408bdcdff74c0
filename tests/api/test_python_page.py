"""The code in docs/python.md and in the notebook runs."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.api.opening import SHIPPED
from tests.project import ROOT


@pytest.fixture
def digits(tmp_path) -> Path:
    """A folder with the model that ships with the package, from the default run."""
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    (tmp_path / "docs").mkdir()
    return tmp_path


def test_every_block_of_the_page_on_python_runs_in_its_order(digits, capsys, monkeypatch):
    monkeypatch.chdir(digits)
    page = (ROOT / "docs/python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    names: dict = {}
    for block in blocks:
        exec(block, names)
    shown = re.findall(r"\n\n```\n(.*?)```", page, re.DOTALL)
    printed = capsys.readouterr().out
    assert shown and all(output in printed for output in shown)
    assert names["few"].shape == (4, 1, 28, 28) and names["wide"].shape == (1, 1, 28, 56)


def test_the_notebook_runs_and_was_run(digits, monkeypatch):
    cells = json.loads((ROOT / "docs/maskgit.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    monkeypatch.chdir(digits / "docs")
    names: dict = {}
    for cell in code:
        exec("".join(cell["source"]), names)
    assert len(names["canvases"]) == 8
