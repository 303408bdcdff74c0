"""The files that the analysis reads and writes: sidecars, repeated bytes, damage, the command."""

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from analysis.report.provenance import STAGES
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import read_yaml
from tests.synthetic_results import FILES, analyse, write_results, write_source

ROOT = Path(__file__).parents[1]
# Too few validation images for any; nothing to be crossed.


def test_every_table_has_a_sidecar_with_the_hashes_of_what_it_was_made_from(outputs):
    tables = [*(outputs / "tables").glob("*.csv"), *(outputs / "timings").glob("*.csv")]
    recorded = {path.name.removesuffix(".sources.json") for path in (outputs / "sources").iterdir()}
    assert tables and recorded == {table.stem for table in tables}
    for table in tables:
        sources = json.loads((outputs / f"sources/{table.stem}.sources.json").read_text())
        assert sources["files"] and sources["stages"]
        for name, digest in sources["files"].items():
            content = (outputs.parent / "results" / name).read_bytes()
            assert digest == hashlib.sha256(content).hexdigest()
    sources = json.loads((outputs / "sources/table1.sources.json").read_text())
    assert set(sources["files"]) == {
        "evaluation/rows.csv",
        "evaluation/metrics.json",
        "evaluation/real.csv",
        "cas/rows.csv",
        "temperature/rows.csv",
    }
    assert sources["stages"]["evaluate"]["run_id"] == "run-of-evaluate"
    assert sources["stages"]["cas"] is None  # it recorded nothing


def test_the_stages_behind_a_result_file_are_those_of_the_dag():
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    makers = {}
    for stage, declared in stages.items():
        for out in declared.get("outs", []) + declared.get("metrics", []):
            makers[out if isinstance(out, str) else next(iter(out))] = stage

    def behind(stage: str) -> set[str]:
        deps = map(Path, stages[stage]["deps"])
        direct = {maker for dep in deps for out, maker in makers.items() if dep.is_relative_to(out)}
        return direct.union({stage}, *(behind(other) for other in direct))

    for name, expected in STAGES.items():
        maker = makers.get(f"results/{name}")
        assert maker == expected[-1], name
        assert behind(maker) == set(expected), name


def imports(folder: Path) -> set[str]:
    """Every module of this project that the code of a folder imports."""
    trees = [ast.parse(path.read_text()) for path in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name for name in names if name.startswith(("analysis", "pipeline", "stages"))}


def test_the_analysis_reaches_no_code_that_made_the_results():
    from_outside = {name for name in imports(ROOT / "analysis") if not name.startswith("analysis")}
    allowed = ("pipeline.config.", "pipeline.runtime.")
    assert [name for name in from_outside if not name.startswith(allowed)] == []


def test_exhibits_do_not_know_the_report():
    known = imports(ROOT / "analysis/exhibits")
    assert known and not any(name.startswith("analysis.report") for name in known)


def test_same_results_give_the_same_bytes_whatever_the_order_of_the_rows(results, params, tmp_path):
    write_source(results, "evaluate")
    first = analyse(results, tmp_path / "first", params)
    for name in FILES:
        if name.endswith(".csv"):
            rows = pd.read_csv(results / name, keep_default_na=False)
            rows.sample(frac=1, random_state=3).to_csv(results / name, index=False)
    second = analyse(results, tmp_path / "second", params)
    assert len(set(first)) == len(first)
    for path, again in zip(first, second, strict=True):
        # The hashes in the sidecars are of the files themselves, which differ now.
        assert path.parent.name == "sources" or path.read_bytes() == again.read_bytes(), path
    written = {path for path in (tmp_path / "first").rglob("*") if path.is_file()}
    assert written | {results / "metrics.json"} == set(first)


def test_nothing_is_written_where_a_file_is_missing(results, params, tmp_path):
    (results / "reconstruction/pictures.npz").unlink()
    with pytest.raises(UserError, match=r"pictures\.npz: missing; run `dvc repro`"):
        analyse(results, tmp_path / "out", params)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".csv")])
def test_a_missing_column_is_named(results, params, tmp_path, name):
    rows = pd.read_csv(results / name)
    column = {"sweep/rows.csv": "nll", "cas/rows.csv": "top1", "speed_timings.csv": "low"}.get(
        name, rows.columns[0]
    )
    rows.drop(columns=column).to_csv(results / name, index=False)
    with pytest.raises(UserError, match=rf"{name}: no column {column}"):
        analyse(results, tmp_path / "out", params)


def broken(folder: Path, *_) -> None:
    (folder / "tables").mkdir()
    (folder / "tables/table1.csv").write_text("new")
    raise ZeroDivisionError


def test_a_failure_while_drawing_leaves_the_old_report_whole(
    results, params, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    for name in ("tables/table1.csv", "figures/old.png", "report.html"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("old")
    before = sorted(out.rglob("*"))
    monkeypatch.setattr("analysis.report.build._make", broken)
    with pytest.raises(ZeroDivisionError):
        analyse(results, out, params)
    assert sorted(out.rglob("*")) == before and not (results / "metrics.json").exists()
    assert all(path.read_text() == "old" for path in before if path.is_file())


def test_real_images_and_crossed_schedules_may_be_none(results, make_tables):
    for name in ("evaluation/real.csv", "sweep/crossing.csv"):
        pd.read_csv(results / name).head(0).to_csv(results / name, index=False)
    tables = make_tables()
    assert "No schedules were crossed" in (tables / "crossing.md").read_text()
    assert "schedule" in pd.read_csv(tables / "crossing.csv").columns
    assert "real images" not in set(pd.read_csv(tables / "table3.csv")["schedule"])
    assert not [path for path in tables.glob("*.md") if "nan" in path.read_text()]


def test_metrics_without_a_set_are_named(results, params, tmp_path):
    path = results / "evaluation/metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics["transformer"]))
    with pytest.raises(UserError, match=r"metrics.json .*it has no transformer"):
        analyse(results, tmp_path / "out", params)


@pytest.mark.slow
def test_command_without_results_fails_in_one_line(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    run = _run(tmp_path, "-m", "analysis")
    assert run.returncode == 1
    assert run.stderr == "error: results/sweep/rows.csv: missing; run `dvc repro` to make it\n"


@pytest.mark.slow
def test_command_needs_no_cluster_no_server_and_no_network_of_its_own(tmp_path):
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    write_results(tmp_path / "results")
    program = (
        "import sys; from analysis.__main__ import main; code = main(); "
        "print([m for m in ('ray', 'mlflow', 'dvc', 'torchvision') if m in sys.modules]); "
        "sys.exit(code)"
    )
    run = _run(tmp_path, "-c", program)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("[]\n") and "analysis/report.html" in run.stdout
    assert (tmp_path / "analysis/report.html").stat().st_size < 6_000_000


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "HOME": str(folder), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
