"""The pages of docs/ as a site: every link of theirs leads somewhere, and nothing is fetched."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.presets import preset_names
from pipeline.config.schema import Sections
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
    sections = [field.annotation for field in Sections.model_fields.values()]
    assert len(rows) == sum(len(getattr(each, "model_fields", ())) for each in sections)
    assert [name for name, _, meaning, _ in rows if not meaning] == []


def test_comments_above_a_key_and_beside_it_are_its_own(reference):
    text = (
        "# Of the section.\none:\n  # Above.\n  a: 1  # Beside.\n  b:\n  - 1\n\n# Free.\n\ntwo: 2\n"
    )
    assert reference.comments(text) == {
        "one": "Of the section.",
        "one.a": "Above. Beside.",
        "one.b": "",
        "two": "",
    }


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"type": "boolean"}, "true, false"),
        ({"type": "integer", "minimum": 1, "maximum": 1000}, "integer, ≥ 1"),
        ({"type": "number", "minimum": 1e-12, "maximum": 1e30}, "number, > 0"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "number, ≥ 0, < 1"),
        ({"type": "number", "minimum": 0, "maximum": 1}, "number, ≥ 0, ≤ 1"),
        ({"enum": ["floor", "ceil"], "type": "string"}, "`floor`, `ceil`"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "a text, or null"),
        (
            {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "integer"}},
            "two of: integer",
        ),
        (
            {"type": "array", "maxItems": 9, "items": {"type": "string"}},
            "a list, or `[]`, of: a text",
        ),
    ],
)
def test_what_a_value_may_be_is_told_in_words(reference, kind, said):
    assert reference.allowed(kind) == said


def test_the_page_of_presets_has_every_one():
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "docs/presets.md").read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == preset_names()


def test_the_page_of_stages_has_every_one_in_their_order():
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/stages.md").read_text(), re.MULTILINE)
    assert rows == list(read_yaml(ROOT / "dvc.yaml")["stages"])
