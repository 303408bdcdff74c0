"""Which packages may import which."""

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import files, imported, modules_named

# From the ground up: a module imports from its own floor's folder and from floors below.
FLOORS = (
    "runtime",
    "data",
    "prepare",
    "paper",
    "config",
    "weights",
    "evaluation",
    "training",
    "experiments",
    "api",
    "tools",
    "command line",
    "stages",
)
# Leads to the Python API without importing it; no other module imports it by name.
DOOR = Path("pipeline/__init__.py")
# Subfolders whose files are the paper's, too.
PAPER = ("transformer", "tokenizer", "decoding")
SCHEDULES = Path("pipeline/schedules.py")  # a leaf that training and decoding import


def floor(path: Path) -> str:
    if path.parts[0] == "stages":
        return "stages"
    inner = path.parts[1:]
    if path.name == "__main__.py" or inner[0] == "cli":
        return "command line"
    if path == DOOR:
        return "api"
    return "paper" if len(inner) == 1 or inner[0] in PAPER else inner[0]


PIPELINE = [path for path in files() if path.parts[0] in ("pipeline", "stages")]


@pytest.mark.parametrize("path", PIPELINE, ids=str)
def test_no_module_imports_from_a_higher_floor(path):
    own = FLOORS.index(floor(path))
    above = {str(p) for p in imported(path) if FLOORS.index(floor(p)) > own}
    # A package's __init__ is imported with each of its modules and imports them in turn.
    assert above == set()


def folder(path: Path) -> Path:
    """Return a file's package; the command line and the Python API are packages of their own."""
    return path if path.name == "__main__.py" or path in (DOOR, SCHEDULES) else path.parent


@pytest.mark.parametrize("room", [folder, lambda path: path], ids=["folders", "files"])
def test_nothing_imports_itself_through_another(room):
    graph: dict[Path, set[Path]] = {}
    for path in files():
        graph.setdefault(room(path), set()).update(room(other) for other in imported(path))
    TopologicalSorter({own: others - {own} for own, others in graph.items()}).prepare()


@pytest.mark.parametrize(
    "path", [p for p in PIPELINE if floor(p) == "paper" and p.name != "__init__.py"], ids=str
)
def test_the_paper_knows_no_orchestration(path):
    tops = {name.split(".")[0] for name in modules_named(path)}
    assert not tops & {"ray", "dvc", "mlflow"}


def test_analysis_reads_result_files_and_no_models():
    """The analysis may use params, paths and writing of files, but no code of the paper."""
    allowed = {"runtime", "config"}
    for path in files():
        if path.parts[0] == "analysis":
            reached = {floor(p) for p in imported(path) if p.parts[0] == "pipeline"}
            assert reached <= allowed, path
