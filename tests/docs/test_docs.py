"""README and the pages of docs/: links lead somewhere, and what they list and quote is so today."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.config.presets import preset_names, preset_params
from pipeline.runtime.dag import flatten
from pipeline.runtime.files import read_json, read_yaml
from tests.project import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS.glob("*.md")]


def script(name: str) -> ModuleType:
    """A script of docs/, which no package holds."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    built = subprocess.run(
        (sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)),
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    pages = {path.stem: path.read_text() for path in tmp_path.glob("*.html")}
    assert pages.keys() == {path.stem for path in DOCS.glob("*.md")} | {"404"}
    source = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?([^\"' >]+)")
    assert [url for text in pages.values() for url in source.findall(text) if "//" in url] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_to_files(page: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pytest.mark.parametrize("name", ["params", "command_line"])
def test_a_page_that_a_script_makes_is_that_of_today(name):
    made = script(name)
    assert made.PAGE.read_text() == made.page(), f"run `python docs/{name}.py`"


def test_the_pages_of_presets_and_stages_have_every_one():
    rows = re.findall(r"^\| (`.+?) \|", (DOCS / "presets.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == preset_names()
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "stages.md").read_text(), re.MULTILINE)
    assert rows == list(read_yaml(ROOT / "dvc.yaml")["stages"])


# The default run whose numbers README quotes, kept in docs/default


def test_readme_quotes_the_run_that_is_kept():
    page = (ROOT / "README.md").read_text()
    assert script("readme").written(page) == page


def test_the_run_that_is_kept_had_the_params_of_now_and_took_the_time_that_is_promised():
    values = flatten(preset_params("mnist5k").model_dump())
    sources = {path.stem: read_json(path) for path in (DOCS / "default/sources").glob("*.json")}
    assert len(sources) >= 15
    assert 5 * 60 < sum(source["seconds"] for source in sources.values()) < 20 * 60
    for stage, source in sources.items():
        kept = source["params"]
        assert kept and kept == {key: values[key] for key in kept}, stage
