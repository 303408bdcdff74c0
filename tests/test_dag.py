"""The whole DAG at smoke size, run for real: what it makes, runs again, and loses to a kill."""

import re
import time

import pandas as pd
import pytest

from pipeline.runtime.files import file_hash, tree_hash
from pipeline.training.ray_train.fit import CHECKPOINT, LISTING
from tests.project import Project

pytestmark = pytest.mark.slow

STAGES = {
    "prepare",
    "train_classifier",
    "train_tokenizer",
    "cache_tokens",
    "train_transformer",
    "train_autoregressive",
    "sweep",
    "evaluate",
    "cas",
    "temperature",
    "edit",
    "reject",
    "reconstruct",
    "speed",
    "analysis",
}
# Times, dates and run ids, which no second run repeats.
NOT_REPEATED = re.compile(
    r"timings|results/sources|analysis/sources|analysis/report\.html|figures/figure4\.png"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Project:
    """A clone in which `dvc repro` ran once with the smoke preset. Tests copy it to change it."""
    project = Project.clone(tmp_path_factory.mktemp("smoke") / "project")
    project.run("python", "-m", "pipeline", "preset", "smoke")
    started = time.monotonic()
    project.log = project.run("dvc", "repro")
    project.seconds = time.monotonic() - started
    return project


def would_run(project: Project) -> set[str]:
    return set(re.findall(r"Running stage '(\w+)'", project.run("dvc", "repro", "--dry")))


def test_every_stage_ran_and_left_its_results(finished):
    ran = re.findall(r"Running stage '(\w+)'", finished.log)
    assert set(ran) == STAGES and len(ran) == len(STAGES)
    for path in (
        "data/images/manifest.json",
        "results/prepare/contact_sheet.png",
        "results/tokenizer/reconstructions.png",
        "data/tokens/manifest.json",
        "models/transformer/model.safetensors",
        "results/evaluation/samples.png",
        "analysis/tables/table3.md",
        "analysis/tables/table3.tex",
        "analysis/figures/figure8.png",
        "analysis/figures/figure10.png",
        "analysis/report.html",
    ):
        assert (finished.folder / path).stat().st_size > 0, path


def test_sweep_rows_are_tidy_and_named_after_their_extractor(finished):
    rows = pd.read_csv(finished.folder / "results/sweep/rows.csv")
    assert len(rows) == 3 * 2 * 1
    assert not rows.duplicated(["schedule", "iterations", "seed"]).any()
    assert {"fid_classifier", "is_classifier", "precision_classifier", "nll"} <= set(rows.columns)
    assert "fid" not in rows.columns
    assert rows.notna().all().all()


def test_stages_print_no_warnings(finished):
    noise = [line for line in finished.log.splitlines() if re.search(r"[Ww]arning|Traceback", line)]
    assert noise == []


def test_workers_say_how_far_they_are_and_nothing_else(finished):
    said = [line for line in finished.log.splitlines() if "pid=" in line]
    assert len(said) > 10
    assert [line for line in said if not re.search(r"\d+/\d+  loss |: \S+ done", line)] == []


def test_second_repro_runs_nothing(finished):
    started = time.monotonic()
    log = finished.run("dvc", "repro")
    assert "Running stage" not in log
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"analysis__dpi": 60}, {"analysis"}),
        ({"mlflow__experiment": "other"}, set()),
        ({"rejection__acceptance": [0.9]}, {"reject", "analysis"}),
        ({"cas__seeds": [0, 1]}, {"cas", "analysis"}),
        ({"autoregressive__steps": 21}, {"train_autoregressive", "analysis"}),
        ({"sweep__seeds": [1]}, {"sweep", "analysis"}),
    ],
)
def test_a_changed_param_runs_only_what_lists_it(finished, tmp_path, change, expected):
    """DVC's dry run names the stages that the change itself reaches."""
    project = finished.copy(tmp_path / "project")
    project.set(**change)
    assert would_run(project) == expected


def test_a_changed_sweep_runs_the_sweep_and_what_depends_on_it(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.set(sweep__samples=120)
    log = project.run("dvc", "repro")
    assert re.findall(r"Running stage '(\w+)'", log) == ["sweep", "analysis"]


def test_dvc_shows_metrics_plots_and_experiments(finished):
    assert "class_accuracy" in finished.run("dvc", "metrics", "show")
    assert "transformer" in finished.run("dvc", "dag")
    plots = finished.run("dvc", "plots", "show", "--json")
    assert "figure8.png" in plots and "val_nll" in plots


def test_summary_names_the_extractor_and_where_results_are(finished):
    summary = finished.run("python", "-m", "pipeline", "summary")
    assert "FID (classifier)" in summary and "analysis/report.html" in summary


def test_samples_are_exported_for_evaluators_elsewhere(finished, tmp_path):
    import numpy as np

    def export(name: str, *options: str) -> None:
        path = str(tmp_path / name)
        finished.run("python", "-m", "pipeline", "export", "transformer", path, *options)

    export("pngs")
    assert len(list((tmp_path / "pngs").glob("*.png"))) == 100
    for options, count in (((), 100), (("--all",), 200)):
        export("adm.npz", *options)
        with np.load(tmp_path / "adm.npz") as archive:
            assert archive["arr_0"].shape == (count, 16, 16, 3)
            assert archive["arr_1"].tolist() == [i % 10 for i in range(count)]


def test_mlflow_has_a_child_per_trial_with_fid_at_each_T(finished):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskgit")
    runs = client.search_runs([experiment.experiment_id])
    assert {r.info.status for r in runs} == {"FINISHED"}
    (sweep,) = [r for r in runs if r.info.run_name == "sweep"]
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == sweep.info.run_id]
    assert {r.info.run_name for r in children} == {
        "cosine/seed0",
        "linear/seed0",
        "square_root/seed0",
    }
    for child in children:
        points = client.get_metric_history(child.info.run_id, "fid_classifier")
        assert sorted(p.step for p in points) == [2, 4]
        assert child.data.metrics["best_iterations"] in (2, 4)
    assert sweep.data.tags["git.commit"] and sweep.data.tags["dvc.stage"] == "sweep"


def locked_hashes(project: Project) -> dict[str, str]:
    """What DVC recorded of every output, but for the files that hold times, dates and run ids."""
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load(project.folder / "dvc.lock")["stages"]
    outs = [out for stage in stages.values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if not NOT_REPEATED.search(out["path"])}


def test_two_clones_give_the_same_bytes(finished, tmp_path):
    """Every model, token, sample, result, table and figure, from another folder."""
    other = Project.clone(tmp_path / "elsewhere")
    other.run("python", "-m", "pipeline", "preset", "smoke")
    other.run("dvc", "repro")
    hashes = locked_hashes(finished)
    assert len(hashes) > 40
    assert locked_hashes(other) == hashes


def _kill(project: Project, stage: str, ready) -> None:
    project.kill_stage_when(stage, ready)
    deadline = time.monotonic() + 90  # Ray's agents notice within about a minute
    while project.strays() and time.monotonic() < deadline:
        time.sleep(1)
    assert project.strays() == []


@pytest.mark.parametrize(
    ("stage", "longer", "kept"),
    [
        ("train_tokenizer", {"tokenizer__steps": 60}, (CHECKPOINT, b"")),
        # Until Ray Train lists a checkpoint, it may be uploaded in part only.
        ("train_transformer", {"training__steps": 400}, (LISTING, b"checkpoint_dir_name")),
    ],
    ids=["tokenizer", "transformer"],
)
def test_killed_training_goes_on_and_ends_with_the_same_bytes(
    finished, tmp_path, stage, longer, kept
):
    import shutil

    project = finished.copy(tmp_path / "project")
    network, runs = stage.removeprefix("train_"), project.folder / "runs" / stage
    model = project.folder / "models" / network
    history = project.folder / "results" / network / "history.csv"
    file, text = kept
    project.set(**longer)  # smoke's own might be over before the kill
    project.stage(stage)
    expected = tree_hash(model), file_hash(history)
    shutil.rmtree(runs)
    shutil.rmtree(model)

    _kill(project, stage, lambda: any(text in path.read_bytes() for path in runs.rglob(file)))
    log = project.stage(stage)

    assert "going on from step" in log
    assert (tree_hash(model), file_hash(history)) == expected


def test_killed_sweep_redoes_no_finished_trial(finished, tmp_path):
    import shutil

    project = finished.copy(tmp_path / "project")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    trials = project.folder / "runs/sweep"
    shutil.rmtree(trials)
    rows.unlink()

    def one_trial_done():
        return any(len(list(t.glob("cells/*.json"))) == 2 for t in trials.glob("*"))

    _kill(project, "sweep", one_trial_done)
    cells = {p: p.stat().st_mtime_ns for p in trials.rglob("cells/*.json")}
    log = project.stage("sweep")

    # More than one where all three ran at once and were told to end after the first had.
    assert re.search(r"3 trials, [123] finished before", log)
    assert {p: p.stat().st_mtime_ns for p in cells} == cells
    assert rows.read_bytes() == expected


@pytest.mark.parametrize(
    ("stage", "count"),
    [("sweep", "3 trials, 3"), ("cas", "6 classifiers, 6")],
    ids=["sweep", "cas"],
)
def test_what_is_finished_needs_no_cluster(finished, tmp_path, stage, count):
    project = finished.copy(tmp_path / "project")
    rows = project.folder / f"results/{stage}/rows.csv"
    expected = rows.read_bytes()
    rows.unlink()
    log = project.stage(stage, RAY_ADDRESS="127.0.0.1:9")
    assert f"{count} finished before" in log
    assert rows.read_bytes() == expected


def test_a_larger_grid_runs_only_what_is_new(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.set(sweep__schedules=["cosine", "linear", "square_root", "cubic"])
    project.set(sweep__iterations=[2, 3, 4])
    before = project.folder / "runs/sweep"
    # Paths hold the copy's own folder, the key does not: trials are found where they were.
    cells = {p: p.stat().st_mtime_ns for p in before.rglob("cells/*.json")}

    log = project.run("dvc", "repro", "sweep")

    assert re.findall(r"Running stage '(\w+)'", log) == ["sweep"]
    rows = pd.read_csv(project.folder / "results/sweep/rows.csv")
    assert len(rows) == 4 * 3
    assert {p: p.stat().st_mtime_ns for p in cells} == cells
    assert len(re.findall(r"\w+/seed0 20/20", log)) <= 1  # cubic alone was trained


def test_sweep_of_distributed_trials_does_not_starve(finished, tmp_path):
    project = finished.copy(tmp_path / "project")
    project.set(sweep__schedules=["cosine", "cubic"], sweep__workers_per_trial=2)
    project.stage("sweep", timeout=400)
    assert len(pd.read_csv(project.folder / "results/sweep/rows.csv")) == 2 * 2
