"""Ray itself: data-parallel training against one worker, and the sweep as a submitted job."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.training.loop import TrainingJob, run_training
from pipeline.training.loop.ray_train import fit
from tests.images import write_token_cache
from tests.interruption import assert_same
from tests.params import make_params
from tests.project import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Ray on this machine, whose workers find the tests."""
    import ray

    from pipeline.runtime.ray_cluster import join_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        join_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def tokens_dir(tmp_path_factory) -> Path:
    """A token cache of random grids: 64 training and 8 validation images of 4 classes."""
    rng = np.random.default_rng(0)
    counts = {"train": 64, "val": 8}
    grids = {split: [rng.integers(64, size=(n, 1, 49))] for split, n in counts.items()}
    labels = {split: np.arange(n) % 4 for split, n in counts.items()}
    return write_token_cache(tmp_path_factory.mktemp("cache") / "tokens", grids, labels, codes=64)


def _small_params(steps: int = 6):
    small = {"layers": 2, "hidden": 32, "heads": 2, "mlp": 64, "dropout": 0.0}
    training = {"steps": steps, "batch_size": 16, "bf16": False, "checkpoint_every": 3}
    return make_params(transformer=small, training=training)


def _job(params, tokens_dir: Path, folder: Path, workers: int = 1):
    from pipeline.training.transformer import TransformerTask
    from pipeline.training.transformer.job import TransformerRecipe, transformer_job

    return transformer_job(
        params,
        TransformerRecipe(TransformerTask, params.model_dump(), str(tokens_dir), 4, seed=0),
        network="transformer",
        name="transformer",
        folder=folder,
        workers=workers,
    )


def test_workers_are_set_up_before_they_load_the_libraries():
    import ray

    @ray.remote
    def state() -> tuple[int, bool, bool]:
        import gc
        import logging
        import sys

        told = logging.getLogger("ray.tune").isEnabledFor(logging.ERROR)
        return gc.get_threshold()[0], told, "torch" in sys.modules

    threshold, told, loaded = ray.get(state.remote())
    assert threshold > 700 and not told and not loaded


@pytest.fixture(scope="module")
def straight(tokens_dir, tmp_path_factory) -> tuple[TrainingJob, dict[str, Any]]:
    """A training of two workers that nothing disturbs, and how it ended."""
    job = _job(_small_params(), tokens_dir, tmp_path_factory.mktemp("straight"), workers=2)
    return job, fit(job)


def test_two_workers_train_as_one_with_the_same_global_batch(tokens_dir, straight, tmp_path):
    """Without dropout and in float32, DDP over two workers is the same optimisation."""
    from pipeline.runtime import trials

    job, two = straight
    one = run_training(_job(_small_params(), tokens_dir, tmp_path / "one"))  # in this process
    again = fit(job)

    for name, weight in one["task"]["model"].items():
        torch.testing.assert_close(two["task"]["model"][name], weight, rtol=1e-4, atol=1e-5)
    val = [[row["val_nll"] for row in state["history"]] for state in (one, two)]
    assert val[0] == pytest.approx(val[1], rel=1e-4)
    # A finished run of that name is taken up, not trained again.
    assert again["history"] == two["history"]
    (machine,) = trials.machines()  # each once
    assert machine["host"] == platform.node() and machine["device"] == "cpu"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_ends_several_workers_in_a_line_and_they_go_on_after_it(
    tokens_dir, straight, tmp_path, capfd
):
    """The checkpoint is written by Ray's thread while they train."""
    params = _small_params()
    (small := tmp_path / "small").mkdir()
    command = ("mount", "-t", "tmpfs", "-o", "size=16M", "tmpfs", small)
    subprocess.run(command, check=True)
    try:
        filler = small / "filler"
        filler.write_bytes(bytes(os.statvfs(small).f_bavail * 4096 - 300_000))
        with pytest.raises(UserError, match="make room"):
            fit(_job(params, tokens_dir, small / "run", workers=2))
        said = capfd.readouterr()
        assert "Traceback" not in said.out + said.err
        filler.unlink()
        found = fit(_job(params, tokens_dir, small / "run", workers=2))
        assert not list((small / "run").rglob("*.tmp"))
    finally:
        subprocess.run(("umount", "-l", small), check=True)
    _, undisturbed = straight
    assert_same(found, undisturbed)


class Noted:
    """Trainings of one worker of Ray Train in copies of one that was stopped, and the steps of
    which they told."""

    def __init__(self, tokens_dir: Path, folder: Path):
        self.tokens_dir, self.folder = tokens_dir, folder
        self.steps = folder / "steps"

    def place(self, name: str) -> Path:
        """Of a copy: its run directory's name is the same in all, as where a project is moved."""
        return self.folder / name / "train_transformer/run"

    def copy(self, stopped: Path, name: str) -> Path:
        return shutil.copytree(stopped, self.place(name))

    def job(self, name: str) -> TrainingJob:
        return _job(_small_params(9), self.tokens_dir, self.place(name))

    def go_on(self, name: str, stop_at: int | None = None) -> dict[str, Any]:
        steps = self.steps

        def note(row: dict[str, float]) -> None:
            if row["step"] == stop_at:
                raise UserError(f"stopped at {stop_at}")
            with open(steps, "a") as file:
                file.write(f"{row['step']}\n")

        steps.write_text("")
        return fit(self.job(name), on_row=note)


@pytest.fixture(scope="module")
def stopped(tokens_dir, tmp_path_factory) -> Path:
    """A training with the checkpoints of steps 3 and 6: a row comes before its checkpoint."""
    noted = Noted(tokens_dir, tmp_path_factory.mktemp("stopped"))
    with pytest.raises(UserError, match="stopped at 9"):
        noted.go_on("run", stop_at=9)
    return noted.place("run")


@pytest.fixture(scope="module")
def whole(tokens_dir, tmp_path_factory) -> dict[str, Any]:
    """How it ends where nothing stops it, without Ray."""
    return run_training(Noted(tokens_dir, tmp_path_factory.mktemp("whole")).job("run"))


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(
    tokens_dir, stopped, whole, tmp_path
):
    noted = Noted(tokens_dir, tmp_path)
    noted.copy(stopped, "run")
    assert_same(noted.go_on("run"), whole)
    assert noted.steps.read_text() == "9\n"
    assert not list(noted.place("run").rglob("*.tmp"))
