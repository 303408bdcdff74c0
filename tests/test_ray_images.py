"""Ray Train over images: tokenizer and classifiers, whose workers die or are stopped."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.config.paths import CLASSIFIER, IMAGES
from pipeline.runtime.errors import UserError
from pipeline.training.classifier import ClassifierRecipe
from tests.experiments.test_cas import cas_job
from tests.interruption import assert_same
from tests.project import ROOT
from tests.tiny_project import with_params

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_tiny_project")]
STEPS = {"steps": 6, "checkpoint_every": 2, "batch_size": 12, "bf16": False}


@pytest.fixture(scope="module")
def cluster():
    import ray

    from pipeline.runtime.ray_cluster import join_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where workers find this module
        join_ray()
    yield
    ray.shutdown()


def train(recipe: Any, folder: Path, on_row: Callable, workers: int = 2) -> dict:
    from pipeline.training.loop import TrainingJob, Workers, run_training

    job = TrainingJob(
        name=folder.name,
        recipe=recipe,
        steps=6,
        every=2,
        seed=0,
        folder=str(folder),
        workers=Workers(workers, cpus=1, use_gpu=False, max_failures=1),
    )
    return run_training(job, on_row)


def unheard(row: dict) -> None: ...


def die_once(noted: Path, row: dict) -> None:
    """As a worker that is lost at step 4, after the checkpoint of step 2."""
    with open(noted, "a") as file:
        file.write(f"{row['step']} ")
    if row["step"] == 4 and noted.read_text().count("4") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def stop(row: dict) -> None:
    if row["step"] == 4:
        raise UserError("stopped at 4")


def test_a_tokenizer_goes_on_when_a_worker_is_lost(cluster, tmp_path):
    from pipeline.training.tokenizer import TokenizerRecipe

    params = with_params(tokenizer=STEPS | {"adversarial_start": 1, "revive_after": 2})
    folders = (str(path.absolute()) for path in (IMAGES, CLASSIFIER))
    recipe = TokenizerRecipe(params.model_dump(), *folders)
    alone = train(recipe, tmp_path / "alone", unheard, workers=1)
    straight = train(recipe, tmp_path / "straight", unheard)
    noted = tmp_path / "rows"
    lost = train(recipe, tmp_path / "lost", partial(die_once, noted))
    assert noted.read_text() == "2 4 4 6 "
    assert_same(lost, straight)
    # Later ones drift: Adam divides gradients that are zero, but for rounding, by their own size.
    assert straight["history"][0] == pytest.approx(alone["history"][0], rel=1e-2)


def classifier_of(**ray: int) -> ClassifierRecipe:
    return ClassifierRecipe(
        with_params(classifier=STEPS, ray=ray).model_dump(), str(IMAGES.absolute())
    )


@pytest.fixture(scope="module")
def straight(cluster, tiny_project, tmp_path_factory) -> dict:
    """A classifier's training that nothing disturbs, without loaders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_project)
        return train(classifier_of(), tmp_path_factory.mktemp("straight"), unheard)


def test_a_classifier_goes_on_where_it_was_stopped(straight, tmp_path):
    with pytest.raises(UserError, match="stopped at 4"):
        train(classifier_of(), tmp_path / "stopped", stop)
    assert_same(train(classifier_of(), tmp_path / "stopped", unheard), straight)


def servers() -> set[int]:
    """Processes that loaders are forked from, and the loaders: ours, not those of a process that
    runs other tests meanwhile."""
    name, found = "PYTEST_XDIST_WORKER", psutil.process_iter(["pid", "cmdline", "environ"])
    return {
        p.pid
        for p in found
        if "forkserver import" in " ".join(p.info["cmdline"] or ())
        and (p.info["environ"] or {}).get(name) == os.environ.get(name)
    }


def note_servers(noted: Path, rows: Path, row: dict) -> None:
    with open(noted, "a") as file:
        file.write(f"{' '.join(map(str, servers()))}\n")
    die_once(rows, row)


def test_workers_take_the_same_steps_with_loaders_and_leave_none(straight, tmp_path):
    """Though one of them is killed at step 4."""
    before, noted, rows = servers(), tmp_path / "servers", tmp_path / "rows"
    recipe = classifier_of(loaders_per_worker=1, cpus_per_worker=2)
    lost = train(recipe, tmp_path / "lost", partial(note_servers, noted, rows))
    assert_same(lost, straight)
    assert rows.read_text() == "2 4 4 6 "
    first = noted.read_text().splitlines()[0]
    assert len(set(map(int, first.split())) - before) == 2 * 2  # a server and a loader each
    deadline = time.monotonic() + 20
    while servers() - before and time.monotonic() < deadline:
        time.sleep(0.2)
    assert servers() <= before


def test_a_classifier_of_cas_has_two_workers_and_is_measured_beside_them(cluster, tmp_path):
    from pipeline.experiments.cas import run_cas
    from pipeline.runtime.trials import Needs, run_trials

    jobs = [
        cas_job(
            with_params(classifier=STEPS, cas={"workers_per_classifier": workers}),
            "transformer",
            "randaugment",
            tmp_path / str(workers),
        )
        for workers in (1, 2)
    ]
    rows = [run_cas(jobs[0])]
    needs = Needs(2, {"CPU": 1}, 1, tmp_path, waits=True)
    run_trials(run_cas, jobs[1:], needs, stage="cas", on_done=lambda job, row: rows.append(row))
    one, two = rows
    assert two["top1"] == pytest.approx(one["top1"], abs=0.1) and two["top5"] == 1
    assert two["training_images"] == one["training_images"]
