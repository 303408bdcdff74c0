"""DVC as its users expect it: experiments, metrics, plots, models and a remote."""

import json

import pytest
from mlflow import MlflowClient

from pipeline.runtime.files import read_yaml, tree_hash
from tests.project import ROOT, Project


@pytest.mark.soak
def test_an_experiment_in_a_copy_leaves_its_runs_in_the_project(smoke):
    smoke.run("git", "add", "--all")  # the copy is of what git knows
    smoke.run("git", "commit", "--quiet", "--message", "smoke")
    before = set((smoke.folder / "runs/schedules").iterdir())
    smoke.run(
        *("dvc", "exp", "run", "--temp", "-n", "square-one"),
        *("-S", "training.mask_schedule=square", "schedules"),
    )
    assert len(set((smoke.folder / "runs/schedules").iterdir()) - before) == 1
    client = MlflowClient(f"sqlite:///{smoke.folder / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "maskgit"]
    named = "attributes.run_name = 'square-one'"
    (run,) = client.search_runs([experiment.experiment_id], named)
    assert run.info.status == "FINISHED" and run.data.params["training.mask_schedule"] == "square"
    files = client.list_artifacts(run.info.run_id)
    assert [file.path for file in files] == ["params.yaml"]
    shown = json.loads(smoke.run("dvc", "exp", "show", "--json"))
    assert "square-one" in json.dumps(shown)


@pytest.mark.slow
def test_metrics_are_few(finished):
    shown = json.loads(finished.run("dvc", "metrics", "show", "--json"))
    (files,) = [revision["data"] for revision in shown.values()]
    assert list(files) == ["results/metrics.json"]
    values = files["results/metrics.json"]["data"]
    assert set(values) == {"tokenizer", "MaskGIT", "VQGAN", "sweep", "editing"}
    assert sum(map(len, values.values())) <= 13  # columns of `dvc metrics show`
    assert all(isinstance(v, str | int | float) for of in values.values() for v in of.values())


@pytest.mark.slow
def test_the_sweep_is_coloured_by_schedule_with_titled_axes(finished):
    plots = json.loads(finished.run("dvc", "plots", "show", "--json"))
    (sweep,) = plots["data"]["Sweep (as Figure 8)"]
    spec = sweep["content"]
    titles = [spec["encoding"][axis]["title"] for axis in ("x", "y", "color")]
    assert titles == ["T", "FID (classifier), mean over seeds", "mask schedule"]
    rows = spec["data"]["values"]
    assert {row["schedule"] for row in rows} == {"cosine", "linear", "square_root"}
    assert {float(row["iterations"]) for row in rows} == {2, 4}


@pytest.mark.slow
def test_models_are_artifacts(smoke):
    """As docs/dvc.md explains."""
    artifacts = read_yaml(ROOT / "dvc.yaml")["artifacts"]
    for entry in artifacts.values():
        assert entry["type"] == "model" and (smoke.folder / entry["path"]).is_dir()
    smoke.run("git", "add", "dvc.lock", "params.yaml")
    smoke.run("git", "commit", "-q", "-m", "a run worth keeping")
    smoke.run("git", "tag", "-a", "maskgit@v0.1.0", "-m", "as in the report")
    smoke.run("dvc", "artifacts", "get", ".", "maskgit", "-o", "elsewhere")
    smoke.run("dvc", "get", ".", "models/transformer", "-o", "there")
    expected = tree_hash(smoke.folder / "models/transformer")
    assert tree_hash(smoke.folder / "elsewhere") == expected
    assert tree_hash(smoke.folder / "there") == expected


@pytest.mark.slow
def test_a_remote_gives_a_clone_what_was_computed(smoke, finished, tmp_path):
    """Push here and pull there as docs/dvc.md explains: then nothing runs, and DVC has not changed
    a .gitignore file."""
    changed = finished.run("git", "status", "--porcelain").splitlines()
    assert not [line for line in changed if line.endswith(".gitignore")]
    smoke.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    smoke.run("dvc", "push", "-q")
    paths = ("dvc.lock", "params.yaml", "results", "analysis/figures", ".dvc/config")
    smoke.run("git", "add", *paths)
    smoke.run("git", "commit", "-q", "-m", "a run worth keeping")
    smoke.run("git", "clone", "-q", str(smoke.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.env |= {"PARAMS_READ": str(tmp_path)}
    assert not (clone.folder / "models/transformer").exists()
    assert (clone.folder / "results/metrics.json").exists()
    clone.run("dvc", "pull", "-q")
    for made in ("models", "data/images", "results/sweep/rows.csv", "analysis/report.html"):
        assert tree_hash(clone.folder / made) == tree_hash(smoke.folder / made), made
    assert "Running stage" not in clone.run("dvc", "repro")
