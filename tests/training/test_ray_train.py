"""Ray Train itself: data-parallel training against one worker, a lost worker, a full disk."""

import os
import platform
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.paths import TOKENS
from pipeline.training.loop.run import _fit as fit
from pipeline.training.loop.training import Workers, train
from pipeline.training.transformer import TransformerTask, TransformerTraining
from tests.errors import refused
from tests.interruption import ALONE, RunDirCheckpoints, weight_bytes
from tests.params import make_params
from tests.transformer_task import random_tokens, tiny_params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def project(ray, tmp_path_factory) -> Iterator[None]:
    """The working directory is a project with a token cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        TOKENS.parent.mkdir(parents=True)
        random_tokens(TOKENS)
        yield


def training(folder: Path, log: Any = None, **changes) -> TransformerTraining:
    params = tiny_params(make_params, **{"steps": 6} | changes)
    return TransformerTraining(
        name="transformer",
        params=params,
        task_type=TransformerTask,
        seed=0,
        folder=folder,
        workers=Workers.of(params.ray, 2),
        log=log,
    )


@dataclass
class DiesOnce:
    """A log that kills the first worker at step 4. By then Ray's controller, which polls every two
    seconds, has the checkpoint of step 2."""

    rows: Path

    def log_training(self, row: dict[str, float]) -> None:
        with open(self.rows, "a") as file:
            file.write(f"{row['step']} ")
        if row["step"] == 4 and self.rows.read_text().count("4") == 1:
            time.sleep(6)
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> tuple[TransformerTraining, dict[str, Any]]:
    """Train two workers without a disturbance; return how it ended."""
    undisturbed = training(tmp_path_factory.mktemp("straight") / "run")
    return undisturbed, fit(undisturbed)


def test_two_workers_train_as_one_with_the_same_global_batch(straight, tmp_path):
    """Without dropout and in float32, DDP over two workers equals one worker."""
    from pipeline.runtime import trials

    undisturbed, two = straight
    task = undisturbed.task(ALONE, torch.device("cpu"))
    one = train(undisturbed, task, RunDirCheckpoints(tmp_path / "one"))
    for name, weight in one["task"]["model"].items():
        torch.testing.assert_close(two["task"]["model"][name], weight, rtol=1e-4, atol=1e-5)
    val = [[row["val_nll"] for row in state["history"]] for state in (one, two)]
    assert val[0] == pytest.approx(val[1], rel=1e-4)
    # A finished run of that name is taken up, not trained again.
    assert fit(undisturbed)["history"] == two["history"]
    (machine,) = trials.machines()  # each once
    assert machine["host"] == platform.node() and machine["device"].startswith("cpu")


def test_a_training_goes_on_when_a_worker_is_lost(straight, tmp_path):
    rows = tmp_path / "rows"
    resumed, state = fit(training(tmp_path / "run", log=DiesOnce(rows))), straight[1]
    assert resumed["history"] == state["history"]
    assert weight_bytes(resumed["task"]["model"]) == weight_bytes(state["task"]["model"])
    assert rows.read_text() == "2 4 4 6 "


@pytest.mark.soak
def test_workers_end_together_when_the_training_diverges(tmp_path):
    with refused("transformer", way_out="learning rate", match="step"):
        fit(training(tmp_path / "run", lr=1e30, warmup_steps=0, grad_clip=None))
