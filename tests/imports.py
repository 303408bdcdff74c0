"""Which file of this project imports which, read from its source."""

import ast
from functools import cache
from pathlib import Path

from tests.project import ROOT

PACKAGES = ("pipeline", "analysis", "stages")


def files() -> list[Path]:
    """Return every module of the project's packages, relative to the root."""
    return sorted(
        p.relative_to(ROOT) for package in PACKAGES for p in (ROOT / package).rglob("*.py")
    )


def file_of(module: str) -> Path | None:
    """Return the file of a dotted name, relative to the root; None if it is not the project's."""
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if module.split(".")[0] in PACKAGES and (ROOT / candidate).exists():
            return candidate
    return None


@cache
def modules_named(path: Path) -> frozenset[str]:
    """Return every dotted name that a file imports; for `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


def imported(path: Path) -> set[Path]:
    """Return the project's files that a file imports, without itself."""
    return {found for name in modules_named(path) if (found := file_of(name))} - {path}
