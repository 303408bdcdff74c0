"""The project's other files: the tested versions in constraints.txt, and the Containerfile."""

import re
import tomllib

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


def test_a_tested_version_is_one_that_the_project_allows():
    """The pins name no build, such as `+cpu`, which only one package index has."""
    for text in (*PROJECT["dependencies"], *(t for extra in OPTIONAL.values() for t in extra)):
        wanted = Requirement(text)
        (pin,) = TESTED[wanted.name.lower().replace("_", "-")]
        assert wanted.specifier.contains(pin.version.removesuffix(".*")), text
        assert "+" not in pin.version


def test_the_container_copies_and_installs_what_there_is():
    recipe = (ROOT / "Containerfile").read_text()
    for line in re.sub(r"\\\n\s*", "", recipe).splitlines():
        if line.startswith("COPY"):
            *sources, target = line.split()[1:]
            assert target == "./" and all((ROOT / source).exists() for source in sources)
    extras = re.findall(r"'\.\[(.+?)\]'", recipe)
    assert {name for names in extras for name in names.split(",")} <= set(OPTIONAL)
    python = re.search(r"python:(\d\.\d+)", recipe)[1]
    assert f"Python {python}" in (ROOT / "constraints.txt").read_text()
