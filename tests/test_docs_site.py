"""The pages of docs/ as a site: every link of theirs leads somewhere, and nothing is fetched."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.params import Params
from pipeline.config.presets import preset_names
from pipeline.runtime.dag import flatten
from pipeline.runtime.files import read_yaml
from tests.project import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        (sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)),
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    return folder


def test_every_page_is_built_without_a_warning(site):
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} == pages | {"404"}


def test_pages_load_nothing_from_elsewhere(site):
    for page in site.glob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?([^\"' >]+)", page.read_text()
        )
        assert [address for address in loaded if "//" in address] == [], page.name


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("params_page", ROOT / "docs/params.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_params_is_made_of_todays(reference):
    assert reference.PAGE.read_text() == reference.page(), "run `python docs/params.py`"


def test_every_param_says_what_it_means(reference):
    rows = re.findall(
        r"^\| `(\w+)` \| `.+?` \| (.+?) \| (.*?) \| (.+?) \|$", reference.page(), re.M
    )
    assert len(rows) == len(flatten(Params().model_dump()))
    assert [name for name, _, meaning, _ in rows if not meaning] == []


def test_the_page_of_presets_has_every_one():
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs/presets.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == preset_names()


def test_the_page_of_stages_has_every_one_in_their_order():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/stages.md").read_text(), re.MULTILINE)
    assert rows == list(read_yaml(ROOT / "dvc.yaml")["stages"])
