"""The files around the code: versions that were tested, the container's recipe, the citation."""

import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement

from tests.project import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
TESTED = {
    requirement.name.lower().replace("_", "-"): requirement.specifier
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
    for requirement in [Requirement(line)]
}


@pytest.mark.parametrize(
    "text", [*PROJECT["dependencies"], *(text for extra in OPTIONAL.values() for text in extra)]
)
def test_a_tested_version_is_one_that_the_project_allows(text):
    wanted = Requirement(text)
    (pin,) = TESTED[wanted.name.lower().replace("_", "-")]
    assert wanted.specifier.contains(pin.version.removesuffix(".*"))


def test_tested_versions_are_those_of_any_build():
    """No `+cpu`, which only one index has; a build of torch for any device fits."""
    assert not [name for name, specifier in TESTED.items() if "+" in str(specifier)]
    for name in ("torch", "torchvision"):
        assert re.fullmatch(r"==\d+\.\d+\.\*", str(TESTED[name]))


def test_the_container_copies_and_installs_what_there_is():
    recipe = (ROOT / "Containerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", recipe).splitlines()
    words = {line.split()[0] for line in lines if line and not line.startswith("#")}
    assert words == {"FROM", "ARG", "RUN", "WORKDIR", "ENV", "COPY", "CMD"}
    for line in lines:
        if line.startswith("COPY"):
            *sources, target = line.split()[1:]
            assert target == "./" and all((ROOT / source).exists() for source in sources)
    extras = re.findall(r"'\.\[(.+?)\]'", recipe)
    assert {name for names in extras for name in names.split(",")} <= set(OPTIONAL)
    python = re.search(r"python:(\d\.\d+)", recipe)[1]
    assert f"Python {python}" in (ROOT / "constraints.txt").read_text()


def test_the_citation_and_the_changes_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0" and citation["license"] == PROJECT["license"]
    assert citation["version"] == PROJECT["version"]
    assert citation["preferred-citation"]["title"] == citation["references"][0]["title"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_hooks_before_a_commit_run_what_make_check_does():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = {hook["entry"].removeprefix(".venv/bin/").split(" --")[0] for hook in hooks}
    check = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert {"ruff check", "ruff format", "mypy"} <= entries
    assert all(name in check for name in ("ruff check", "ruff format", "mypy"))
