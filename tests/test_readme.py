"""README: its numbers are those of a run, kept beside it; its links and commands lead somewhere."""

import importlib.util
import re
import subprocess

import pandas as pd
import pytest

from pipeline.config.presets import preset_params
from pipeline.runtime.dag import flatten
from pipeline.runtime.files import read_json
from tests.project import ROOT

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
]


@pytest.fixture(scope="module")
def readme():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs/readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_blocks_are_those_of_the_run_that_is_kept(readme):
    page = (ROOT / "README.md").read_text()
    for name, text in readme.blocks().items():
        assert f"<!-- {name} -->\n{text}\n<!-- end -->" in page
    assert readme.written(page) == page


def test_the_run_that_is_kept_is_of_the_default(readme):
    params = preset_params("mnist5k")
    said = (readme.DEFAULT / "summary.txt").read_text()
    sweep = params.sweep
    cells = f"{len(sweep.schedules) * len(sweep.iterations)} cells of {len(sweep.seeds)} seeds"
    assert f"Preset {params.preset}: " in said and cells in said
    assert f"{len(params.evaluation.seeds)} seeds)" in said


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs/default/sources").glob("*.json")), ids=lambda path: path.stem
)
def test_the_run_that_is_kept_had_the_params_of_now(path):
    values, kept = flatten(preset_params("mnist5k").model_dump()), read_json(path)["params"]
    assert kept and kept == {key: values[key] for key in kept}


def test_the_run_that_is_kept_fits_into_the_time_that_is_promised():
    sources = [read_json(path) for path in (ROOT / "docs/default/sources").glob("*.json")]
    assert len(sources) == 15 and 5 * 60 < sum(each["seconds"] for each in sources) < 20 * 60


def test_a_scoreboard_lists_every_claim_under_its_verdict(readme):
    board = pd.DataFrame(
        {
            "claim": ["a", "b", "c"],
            "verdict": ["undecided", "shown here", "undecided"],
            "p_holm": [float("nan"), 0.00001, 0.31],
            "n": [1, 3, 3],
        }
    )
    assert readme.scoreboard(board).splitlines() == [
        "<b>Shown here</b> (1 of 3)",
        "",
        "- b (p < 0.0001, n = 3)",
        "",
        "<details><summary><b>Undecided: too few seeds, or too little difference, to tell</b> "
        "(2 of 3)</summary>",
        "",
        "- a (not tested, n = 1)",
        "- c (p = 0.31, n = 3)",
        "",
        "</details>",
    ]


def test_what_made_the_kept_results_is_kept_where_git_sees_it(readme, tmp_path, monkeypatch):
    for name in ("results/sources", "analysis/timings", "analysis/figures"):
        (tmp_path / "project" / name).mkdir(parents=True)
    project, kept = tmp_path / "project", tmp_path / "docs/default"
    (project / "results/sources/sweep.json").write_text("{}")
    (project / "results/sources/.gitignore").write_text("/sweep.json")  # DVC's
    (project / "analysis/timings/scoreboard.csv").write_text("claim\n")
    for name in readme.FIGURES:
        (project / f"analysis/figures/{name}.png").write_bytes(b"")
    said = subprocess.CompletedProcess((), 0, stdout="said")
    monkeypatch.setattr(readme.subprocess, "run", lambda *_, **__: said)
    monkeypatch.setattr(readme, "HERE", tmp_path / "docs")
    monkeypatch.setattr(readme, "DEFAULT", kept)
    kept.parent.mkdir()
    readme.take(project)
    assert [path.name for path in (kept / "sources").iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    path = ROOT / page
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        if "://" not in link:
            assert (path.parent / link).exists(), link
