"""What goes wrong outside: one clear line, exit code 1, nothing made is lost."""

import pytest

from tests.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A clone with tokens cached at smoke size."""
    project = Project.clone(tmp_path_factory.mktemp("failures") / "project")
    project.run("python", "-m", "pipeline", "preset", "smoke")
    project.run("dvc", "repro", "cache_tokens", "schedules")
    return project


def error_line(output: str) -> str:
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in output
    return line


def test_unreachable_tracking_server(project):
    output = project.stage("cache_tokens", ok=False, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "MLflow server http://127.0.0.1:9 is unreachable" in error_line(output)
    assert (project.folder / "data/tokens/manifest.json").exists()


def test_unknown_param_stops_before_any_work(project, tmp_path):
    copy = project.copy(tmp_path / "project")
    copy.set(training__learning_rate=1e-3)
    line = error_line(copy.stage("train_transformer", ok=False))
    assert "training.learning_rate" in line and "unknown key" in line


def test_more_workers_than_the_cluster_has(project, tmp_path):
    copy = project.copy(tmp_path / "project")
    copy.set(ray__num_workers=4096, training__batch_size=4096)
    line = error_line(copy.stage("train_transformer", ok=False))
    assert "ray.num_workers" in line and "4096" in line


def test_nan_loss_under_ray_names_the_steps_and_keeps_the_checkpoint(project, tmp_path):
    copy = project.copy(tmp_path / "project")
    copy.set(training__lr=1e30, training__warmup_steps=0, training__grad_clip=None)
    line = error_line(copy.stage("train_transformer", ok=False))
    assert "loss became" in line and "between steps" in line
    assert not (copy.folder / "models/transformer").exists()


def test_failed_trial_names_itself_and_is_marked_failed(project, tmp_path):
    from mlflow import MlflowClient

    copy = project.copy(tmp_path / "project")
    copy.set(training__lr=1e30, training__warmup_steps=0, training__grad_clip=None)
    copy.set(sweep__schedules=["cosine"])
    line = error_line(copy.stage("sweep", ok=False))
    assert "cosine/seed0" in line and "loss became" in line
    client = MlflowClient(f"sqlite:///{copy.folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("maskgit")
    status = {
        r.info.run_name: r.info.status for r in client.search_runs([experiment.experiment_id])
    }
    assert status["cosine/seed0"] == status["sweep"] == "FAILED"


def test_missing_input_says_what_to_run(project, tmp_path):
    import shutil

    copy = project.copy(tmp_path / "project")
    shutil.rmtree(copy.folder / "models/tokenizer")
    line = error_line(copy.stage("cache_tokens", ok=False))
    assert "models/tokenizer is missing" in line and "dvc repro" in line


def test_ray_cluster_that_is_not_there(project):
    output = project.stage("train_transformer", ok=False, RAY_ADDRESS="127.0.0.1:9")
    assert "cannot join Ray at '127.0.0.1:9'" in error_line(output)
