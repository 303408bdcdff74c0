"""Only public names of Ray, MLflow, DVC and torch, except those whose reason stands beside them."""

import ast
from pathlib import Path

import pytest

from tests.imports import files
from tests.project import ROOT

LIBRARIES = {"ray", "mlflow", "dvc", "torch"}
NOT_PUBLIC = {"dvc_data", "dvc_objects", "sqlite3"}  # whole packages: DVC's inside, MLflow's tables
NOT_PUBLIC |= {"ray.experimental", "ray.autoscaler.v2"}


def private_names(source: str) -> dict[str, int]:
    """The private names of libraries in a module, with the line of each."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(chain := ast.unparse(node), str):
            names = [chain] if chain.replace(".", "").replace("_", "").isalnum() else []
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [f"ray.{node.value}"] if node.value in ("_base_exc",) else []
        for name in names:
            first, *rest = name.split(".")
            private = any(part.startswith("_") and not part.startswith("__") for part in rest)
            outside = any(f"{name}.".startswith(f"{package}.") for package in NOT_PUBLIC)
            if (first in LIBRARIES and private) or outside:
                found[name] = node.lineno
    return found


def test_private_names_are_found():
    source = "import ray\nfrom torch._x import y\nfrom dvc_data import z\nray.a._b.c\nray.a.b\n"
    assert private_names(source).keys() == {"torch._x.y", "dvc_data.z", "ray.a._b", "ray.a._b.c"}


@pytest.mark.parametrize("path", [p for p in files() if p.parts[0] == "pipeline"], ids=str)
def test_a_private_name_has_its_reason_beside_it(path: Path):
    source = (ROOT / path).read_text()
    lines = source.splitlines()
    for name, line in private_names(source).items():
        above = lines[max(0, line - 4) : line]
        assert any("#" in text for text in above), f"{path}:{line} {name}"
