"""Write constraints.txt with the package versions of this environment, in which the tests passed:
`python deploy/constraints.py`.

Only packages that the project needs are listed. Any build of PyTorch is allowed.
"""

import platform
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
OF_ANY_BUILD = ("torch", "torchvision")
HEADER = f"""\
# The package versions with which the tests passed
# (Python {sys.version_info.major}.{sys.version_info.minor}, {platform.system()}).
# To install these versions:
# `pip install -c constraints.txt -e '.[pipeline,test,docs]'`. Any build of torch and torchvision
# works, for CPUs or GPUs. Written by deploy/constraints.py.
"""


def installed() -> dict[str, str]:
    """The version of each package that the project and its extras need, directly or indirectly."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(text) for text in sum(extras, project["dependencies"])]
    versions: dict[str, str] = {}
    done: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        if (key := f"{requirement.name.lower()}{sorted(requirement.extras)}") in done:
            continue
        done.add(key)
        found = metadata.distribution(requirement.name)
        versions[found.metadata["Name"]] = found.version
        needs = [Requirement(text) for text in found.requires or ()]
        wanted += [need for need in needs if applies(need, requirement.extras)]
    return versions


def applies(need: Requirement, extras: set[str]) -> bool:
    """Whether the requirement applies to this environment and these extras."""
    return need.marker is None or any(
        need.marker.evaluate({"extra": extra}) for extra in ("", *extras)
    )


def pin(name: str, version: str) -> str:
    if name in OF_ANY_BUILD:
        version = ".".join(version.split("+")[0].split(".")[:2]) + ".*"
    return f"{name}=={version}"


if __name__ == "__main__":
    lines = [pin(*each) for each in sorted(installed().items(), key=lambda each: each[0].lower())]
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")
