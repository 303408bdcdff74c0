"""A function fits a screen, and a file is one idea."""

import ast

import pytest

from tests.imports import files
from tests.project import ROOT

SCREEN, FILE = 50, 300  # lines


@pytest.mark.parametrize("path", files(), ids=str)
def test_functions_fit_a_screen_and_files_one_idea(path):
    text = (ROOT / path).read_text()
    assert text.count("\n") <= FILE
    functions = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {f.name: (f.end_lineno or 0) - f.lineno + 1 for f in functions}
    assert {name: lines for name, lines in lengths.items() if lines > SCREEN} == {}


def test_files_of_tests_are_one_idea_too():
    """Their functions may be longer than a screen."""
    lengths = {path.name: path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py")}
    assert {name: lines for name, lines in lengths.items() if lines > FILE} == {}
