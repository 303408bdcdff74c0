"""The wheel, installed in a new environment and used outside any checkout."""

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from pipeline.config.presets import preset_names
from tests.project import ROOT, Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the sdist, like `python -m build`: a file that the sdist lacks is missing."""
    clone = Project.clone(tmp_path_factory.mktemp("clone"))
    clone.run("python", "-m", "hatchling", "build", "-t", "sdist", "-d", "dist")
    clone.run("tar", "xzf", str(next((clone.folder / "dist").glob("*.tar.gz"))))
    source = next(clone.folder.glob("maskgit_pipeline-*"))
    clone.run("sh", "-c", f"cd {source} && python -m hatchling build -t wheel -d ../dist")
    return next((clone.folder / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Project:
    """An empty folder, and an environment with the wheel first on PATH. The wheel's requirements
    come from this environment, but not its copy of the project."""
    folder = tmp_path_factory.mktemp("elsewhere")
    subprocess.run((sys.executable, "-m", "venv", "--without-pip", folder / "venv"), check=True)
    python = folder / "venv/bin/python"
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", python)
    # --ignore-installed: install the wheel even if PYTHONPATH leads to a copy.
    install = (*pip, "install", "--no-deps", "--no-index", "--ignore-installed", wheel)
    subprocess.run(install, check=True)
    site = next((folder / "venv/lib").glob("python*/site-packages"))
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = Project(folder / "empty")
    empty.folder.mkdir()
    empty.env["PATH"] = f"{python.parent}:{empty.env['PATH']}"
    del empty.env["PYTHONPATH"]
    return empty


def test_it_holds_the_code_the_presets_the_dag_the_template_and_the_style(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {p.relative_to(ROOT).as_posix() for p in ROOT.glob("*/**/*.py")}
    wanted = {name for name in code if name.split("/")[0] in ("pipeline", "stages", "analysis")}
    wanted |= {f"analysis/report/{name}" for name in ("report.css", "report.html.j2")}
    wanted |= {f"pipeline/_project/presets/{name}.yaml" for name in preset_names()}
    wanted |= {"pipeline/_project/dvc.yaml"}
    shipped = (ROOT / "pipeline/api/pretrained").rglob("*.*")
    wanted |= {path.relative_to(ROOT).as_posix() for path in shipped}
    assert {name for name in names if ".dist-info/" not in name} == wanted


def test_its_commands_work_without_a_project(installed):
    where = installed.run("python", "-c", "import pipeline; print(pipeline.__file__)")
    assert "venv/lib" in where
    assert installed.run("maskgit", "--version").startswith("maskgit-pipeline ")
    assert installed.run("maskgit", "doctor").endswith("ready\n")
    listed = json.loads(installed.run("maskgit", "preset", "--json"))
    assert [preset["name"] for preset in listed] == preset_names()
    for name in ("smoke", "imagenet256"):  # imagenet256 uses a torchvision network
        assert f"preset {name}" in installed.run("maskgit", "plan", name)
    assert "the folder has no project" in installed.run("maskgit", "preset", "smoke", ok=False)
    assert not list(installed.folder.iterdir())
    installed.run("maskgit", "sample", "--count", "1", "--classes", "7")
    installed.run("maskgit", "inpaint", "samples.png", "--class", "2", "--box", "9,9,40,40")
    assert Image.open(installed.folder / "inpainted.png").size == (28, 28)
