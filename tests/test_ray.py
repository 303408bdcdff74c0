"""Ray itself: data-parallel training against one worker, and the sweep as a submitted job."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.runtime.files import write_json
from tests.params import make_params
from tests.project import ROOT, Project

pytestmark = pytest.mark.slow


@pytest.fixture
def tokens_dir(tmp_path) -> Path:
    """A token cache of random grids: 64 training and 8 validation images of 4 classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "tokens"
    folder.mkdir()
    shards = {}
    for split, count in (("train", 64), ("val", 8)):
        np.save(folder / f"{split}-00000.npy", rng.integers(64, size=(count, 1, 49)).astype("u2"))
        np.save(folder / f"{split}-labels.npy", (np.arange(count) % 4).astype("i4"))
        shards[split] = [{"file": f"{split}-00000.npy", "count": count}]
    write_json(folder / "manifest.json", {"shards": shards})
    return folder


def _small_params():
    small = {"layers": 2, "hidden": 32, "heads": 2, "mlp": 64, "dropout": 0.0}
    training = {"steps": 6, "batch_size": 16, "bf16": False, "checkpoint_every": 3}
    return make_params(transformer=small, training=training)


def _job(params, tokens_dir: Path, run_dir: Path):
    from pipeline.training.transformer import TransformerTask
    from pipeline.training.transformer.job import TrainingJob

    return TrainingJob(
        params=params.model_dump(),
        tokens_dir=str(tokens_dir),
        num_classes=4,
        task=TransformerTask,
        seed=0,
        name="transformer",
        run_dir=str(run_dir),
    )


def test_workers_are_set_up_before_they_load_the_libraries(monkeypatch):
    import ray

    from pipeline.runtime.cluster import join_ray

    @ray.remote
    def state() -> tuple[int, int, bool]:
        import gc
        import logging
        import sys

        return gc.get_threshold()[0], logging.getLogger("ray.tune").level, "torch" in sys.modules

    monkeypatch.chdir(ROOT)
    join_ray()
    try:
        threshold, level, loaded = ray.get(state.remote())
    finally:
        ray.shutdown()
    assert threshold > 700 and level == logging.WARNING and not loaded


def test_two_workers_train_as_one_with_the_same_global_batch(tokens_dir, tmp_path, monkeypatch):
    """Without dropout and in float32, DDP over two workers is the same optimisation."""
    import ray

    from pipeline.runtime.cluster import join_ray
    from pipeline.training.transformer.ray_train import fit

    monkeypatch.chdir(ROOT)
    params = _small_params()
    join_ray()
    try:
        one = fit(_job(params, tokens_dir, tmp_path / "one"), workers=1)
        two = fit(_job(params, tokens_dir, tmp_path / "two"), workers=2)
        again = fit(_job(params, tokens_dir, tmp_path / "two"), workers=2)
    finally:
        ray.shutdown()

    assert one["step"] == two["step"] == 6
    for name, weight in one["task"]["model"].items():
        torch.testing.assert_close(two["task"]["model"][name], weight, rtol=1e-4, atol=1e-5)
    val = [[row["val_nll"] for row in state["history"]] for state in (one, two)]
    assert val[0] == pytest.approx(val[1], rel=1e-4)
    # A finished run of that name is taken up, not trained again.
    assert again["history"] == two["history"]


def test_training_goes_on_without_ray_trains_list_of_checkpoints(tokens_dir, tmp_path, monkeypatch):
    """A kill, or a full disk, may leave the list missing or cut short, and an upload half done."""
    import ray

    from pipeline.runtime.cluster import join_ray
    from pipeline.runtime.errors import UserError
    from pipeline.training.transformer.ray_train import LISTING, fit

    monkeypatch.chdir(ROOT)
    noted = tmp_path / "steps"

    def stop(row):
        raise UserError(f"stopped at {row['step']}")

    def note(row):
        with open(noted, "a") as file:
            file.write(f"{row['step']}\n")

    def run(name: str, on_row=note):
        return fit(_job(_small_params(), tokens_dir, tmp_path / name), workers=1, on_row=on_row)

    join_ray()
    try:
        whole = run("whole", on_row=lambda row: None)
        with pytest.raises(UserError, match="stopped at 3"):
            run("missing", on_row=stop)
        (uploaded,) = (tmp_path / "missing").glob("checkpoint_*/checkpoint.pt")
        half = tmp_path / "missing/checkpoint_9999/checkpoint.pt"
        half.parent.mkdir()
        half.write_bytes(uploaded.read_bytes()[:-1000])
        shutil.copytree(tmp_path / "missing", tmp_path / "cut")
        listing = tmp_path / "cut" / LISTING
        listing.write_bytes(listing.read_bytes()[:100])
        (tmp_path / "missing" / LISTING).unlink()
        missing, cut = run("missing"), run("cut")
        assert noted.read_text() == "6\n6\n"  # neither began again
        (tmp_path / "cut" / LISTING).unlink()
        finished = run("cut")
    finally:
        ray.shutdown()
    assert noted.read_text() == "6\n6\n"
    for state in (missing, cut, finished):
        assert state["history"] == whole["history"]
        for name, weight in whole["task"]["model"].items():
            assert torch.equal(state["task"]["model"][name], weight)


def test_sweep_stops_where_a_finished_trial_cannot_be_logged(tmp_path, monkeypatch):
    """As when the tracking server dies: no trial is begun after that, and the error comes out."""
    import ray

    from pipeline.experiments.ablation.trial import Trial
    from pipeline.experiments.tuning import run_trials
    from pipeline.runtime.cluster import join_ray
    from pipeline.runtime.errors import UserError

    monkeypatch.chdir(ROOT)
    params = make_params(ray={"storage_path": str(tmp_path / "runs")})

    def trial(seed: int) -> Trial:
        """Nothing to measure, and a model that is there but cannot be opened: ends at once."""
        (tmp_path / f"{seed}/model").mkdir(parents=True)
        folder = str(tmp_path / str(seed))
        values = {"params": params.model_dump(), "root": str(tmp_path / "project")}
        values |= {"folder": folder, "training_folder": folder}
        return Trial(seed=seed, iterations=[], **values)

    trials, logged = [trial(seed) for seed in range(12)], []

    def log(trial: Trial) -> None:
        logged.append(trial.name)
        raise UserError("the tracking server is gone")

    join_ray()
    try:
        with pytest.raises(UserError, match="the tracking server is gone"):
            run_trials(trials, params, on_done=log)
    finally:
        ray.shutdown()
    assert len(logged) == 1
    assert sum(trial.failure.read() is not None for trial in trials) < len(trials)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_submitted_sweep_comes_back_into_the_project(tmp_path):
    """`make submit` on loopback: a head, a job, and the same rows as without one."""
    project = Project.clone(tmp_path / "project")
    project.run("python", "-m", "pipeline", "preset", "smoke")
    project.set(sweep__schedules=["cosine", "linear"], sweep__iterations=[2])
    project.run("dvc", "repro", "cache_tokens", "schedules")
    project.stage("sweep")
    rows = project.folder / "results/sweep/rows.csv"
    expected = rows.read_bytes()
    shutil.rmtree(project.folder / "runs/sweep")
    rows.unlink()

    ports = {
        name: _free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")
    }
    # Ray notes a head's address in its folder: in one of its own, no other head is met.
    temp = f"/tmp/rt{os.getpid()}"
    env = project.env | {"RAY_AUTH_MODE": "token", "RAY_TMPDIR": temp}
    project.env = env
    start = "import ray; ray.init(address='local', num_cpus=1)"  # writes the token, if new
    project.run("python", "-c", start)
    head = subprocess.Popen(
        [
            *("ray", "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"),
            *(f"--{name}={port}" for name, port in ports.items()),
            f"--temp-dir={temp}",
        ],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        _wait_for_port(ports["dashboard-port"])
        _wait_for_port(ports["dashboard-agent-listen-port"])  # jobs start through it
        venv = Path(shutil.which("ray", path=env["PATH"])).parents[1]
        (venv / ".ready").touch()
        project.run("make", "submit", f"ADDRESS={address}", f"VENV={venv}", "-o", f"{venv}/.ready")
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
    assert rows.read_bytes() == expected
    lock = (project.folder / "dvc.lock").read_text()
    assert "results/sweep/rows.csv" in lock
    assert "up to date" in project.run("dvc", "status", "sweep")


def _wait_for_port(port: int) -> None:
    for _ in range(120):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(3)
                return
        time.sleep(0.5)
    raise AssertionError(f"no head on port {port}")
