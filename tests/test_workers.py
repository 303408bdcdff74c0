"""Batches that are made by this process or by several workers, with a stand-in for Ray."""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch

from pipeline.evaluation.feature_files import cached_features, extraction, features_path
from pipeline.evaluation.features import ClassifierExtractor
from pipeline.evaluation.images import ArrayImages, CenterCrops, mapped_images
from pipeline.experiments import temperature
from pipeline.experiments.ablation import measuring
from pipeline.runtime import workers as module
from pipeline.runtime.arrays import parts_folder, write_array
from pipeline.runtime.errors import UserError
from pipeline.runtime.home import Project
from pipeline.runtime.site import Site
from pipeline.runtime.workers import Alone, Maker, Several, workers_of
from pipeline.weights.published import load_model
from tests.tiny_project import ALONE, CPU, folders_of, with_params


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class FakeRay:
    """Ray in this process: what is asked is done when somebody waits, once all have started, and
    the latest first. What travels is pickled.

    Args:
        lost: how many answers are those of workers that were lost.
        dead: how many of the first workers are lost, all with their node.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, lost: int = 0, dead: int = 0):
        self.lost, self.dead = lost, dead
        self.started, self.killed, self.made = [], [], []

    def put(self, value: Any) -> bytes:
        return cloudpickle.dumps(value)

    def remote(self, kind: type) -> Any:
        def start(*args: Any) -> Any:
            self.started.append(args)
            return _Handle(kind(*args), self, len(self.started))

        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=start))

    def wait(self, answers: list, num_returns: int) -> tuple[list, list]:
        first = min(answers, key=lambda answer: answer.__name__ == "make")
        chosen = answers[-1] if first.__name__ == "make" else first
        return [chosen], [answer for answer in answers if answer is not chosen]

    def get(self, answer: Callable[[], Any]) -> Any:
        return answer()

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


class _Handle:
    def __init__(self, worker: Any, ray: FakeRay, number: int):
        self._worker, self._ray, self._dies = worker, ray, number <= ray.dead

    def __getattr__(self, name: str) -> Any:
        def ask(*args: Any) -> Callable[[], Any]:
            def answer() -> Any:
                if name == "make" and (self._ray.lost or self._dies):
                    self._ray.lost -= not self._dies
                    raise RayError("the worker died\nat length")
                if name == "make":
                    with args[2].opened() as (path, _):
                        self._ray.made.append((id(self._worker), path.name))
                there = (cloudpickle.loads(x) if isinstance(x, bytes) else x for x in args)
                return getattr(self._worker, name)(*there)

            answer.__name__ = name
            return answer

        return SimpleNamespace(remote=ask)


@pytest.fixture
def use_ray(monkeypatch):
    """Puts a stand-in in Ray's place."""

    def use(ray: FakeRay) -> FakeRay:
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(module, "join_ray", lambda: None)
        monkeypatch.setattr(module, "require_resources", lambda *needs: None)
        return ray

    return use


def ray_params(workers: int):
    own = {"num_workers": workers, "max_failures": 2}
    size = {"batch_size": 2 * workers}
    return with_params(ray=own, training=size, tokenizer=size, classifier=size).ray


class Squares:
    """Opened once a process; makes the squares of a range."""

    opened = 0

    def __init__(self, power: int, device: torch.device):
        assert device == CPU
        self.power = power
        Squares.opened += 1

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if start > 90:
            raise UserError("no number is that large; use a smaller one")
        return np.arange(start, stop) ** self.power


BATCHES = [(start, min(start + 4, 22)) for start in range(0, 22, 4)]


def squares(path: Path, workers: Alone, batches=BATCHES) -> np.ndarray:
    write_array(path, workers, Maker(Squares, 2), batches, "squares")
    return np.load(path)


def test_one_worker_is_this_process_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it would fail
    alone = workers_of(ray_params(1))
    assert type(alone) is Alone and alone.device == CPU


@pytest.mark.parametrize("count", [2, 4, 99])
def test_several_workers_leave_the_bytes_of_one_and_no_parts(tmp_path, use_ray, count):
    squares(tmp_path / "alone.npy", ALONE)
    ray = use_ray(FakeRay())
    found = squares(tmp_path / "several.npy", workers_of(ray_params(count)))
    assert found.tolist() == [n**2 for n in range(22)]
    assert (tmp_path / "several.npy").read_bytes() == (tmp_path / "alone.npy").read_bytes()
    assert len(ray.started) == min(count, len(BATCHES))
    names = [name for _, name in ray.made]
    assert sorted(names) == [f"{n:06d}.npy" for n in range(6)] and names != sorted(names)
    assert not parts_folder(tmp_path / "several.npy").exists()


def test_workers_stay_for_the_next_set_and_open_what_it_needs_once(tmp_path, use_ray):
    ray, workers = use_ray(FakeRay()), Several(ray_params(2))
    Squares.opened = 0
    for name in ("first", "second", "third"):
        squares(tmp_path / f"{name}.npy", workers)
    assert len(ray.started) == 2
    assert Squares.opened == len({(worker, n // 6) for n, (worker, _) in enumerate(ray.made)})


def test_workers_hold_open_what_they_used_last(tmp_path, use_ray):
    """Samples and, in between, the features of each set: the sampler is opened once a worker."""
    use_ray(FakeRay())
    workers, sampler = Several(ray_params(2)), Maker(Squares, 2)
    Squares.opened = 0
    for number in range(2 * module.KEPT):
        write_array(tmp_path / f"{number}.npy", workers, sampler, BATCHES, "samples")
        squares(tmp_path / f"features{number}.npy", workers)
    assert Squares.opened == 2 + 2 * 2 * module.KEPT


def test_workers_that_end_are_started_anew(tmp_path, use_ray):
    """Their CPUs are free for what is not made of batches."""
    ray, workers = use_ray(FakeRay()), Several(ray_params(2))
    workers.end()  # it has none yet
    assert ray.killed == []
    squares(tmp_path / "first.npy", workers)
    workers.end()
    assert len(ray.killed) == len(ray.started) == 2
    squares(tmp_path / "second.npy", workers)
    assert len(ray.started) == 4


def test_nothing_to_make_starts_nothing(tmp_path, use_ray):
    squares(tmp_path / "set.npy", ALONE)
    ray = use_ray(FakeRay())
    squares(tmp_path / "set.npy", workers_of(ray_params(2)))
    assert ray.started == []


def test_a_lost_workers_batch_is_anothers(tmp_path, use_ray, capsys):
    ray = use_ray(FakeRay(lost=2))
    assert squares(tmp_path / "set.npy", Several(ray_params(2))).tolist() == [
        n**2 for n in range(22)
    ]
    assert len(ray.started) == 4
    assert capsys.readouterr().out.splitlines() == 2 * [
        "a worker was lost, another takes its place: RayError: the worker died"
    ]


def test_a_lost_node_is_counted_once(tmp_path, use_ray):
    ray = use_ray(FakeRay(dead=4))
    numbers = squares(tmp_path / "set.npy", Several(ray_params(6)))
    assert numbers.tolist() == [n**2 for n in range(22)]
    assert len(ray.started) == 10


def test_too_many_lost_workers_are_one_line_and_what_is_made_is_kept(tmp_path, use_ray):
    path = tmp_path / "set.npy"
    use_ray(FakeRay())
    with pytest.raises(UserError, match="that large"):
        squares(path, Several(ray_params(2)), [*BATCHES[:2], (99, 100), *BATCHES[3:]])
    kept = sorted(part.name for part in parts_folder(path).glob("*.npy"))
    use_ray(FakeRay(lost=3))
    with pytest.raises(UserError, match=r"lost, and 2 before it \(ray\.max_failures\)") as error:
        squares(path, Several(ray_params(2)))
    assert "\n" not in str(error.value)
    ray = use_ray(FakeRay())
    squares(path, Several(ray_params(2)))
    assert 0 < len(ray.made) == len(BATCHES) - len(kept) < len(BATCHES)


def test_an_error_ends_what_others_are_at(tmp_path, use_ray):
    """The latest is answered first: the others have not begun."""
    ray = use_ray(FakeRay())
    with pytest.raises(UserError, match=r"^no number is that large; use a smaller one$"):
        squares(tmp_path / "set.npy", Several(ray_params(4)), [*BATCHES[:3], (99, 100)])
    assert len(ray.killed) == 3 and ray.made[-1][1] == "000003.npy"


def test_a_node_that_does_not_see_the_folder_is_named(tmp_path, use_ray, monkeypatch):
    use_ray(FakeRay())
    folder = tmp_path / "on the head alone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    workers = workers_of(ray_params(2))
    monkeypatch.setattr(module, "here", lambda: Site(Project(f"{folder} no more", "runs")))
    with pytest.raises(UserError, match=r"no more cannot be used on .* same path"):
        squares(tmp_path / "set.npy", workers)


def test_a_mapped_set_travels_by_its_name(tmp_path):
    array = np.random.default_rng(0).integers(256, size=(5000, 1, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "set.npy", array)
    images = mapped_images(tmp_path / "set.npy")
    content = cloudpickle.dumps(images)
    there = cloudpickle.loads(content)
    assert len(content) < 1000 and len(there) == 5000
    assert there.content_hash == images.content_hash
    assert torch.equal(there.read(3990, 4000), images.read(3990, 4000))
    in_memory = cloudpickle.loads(cloudpickle.dumps(ArrayImages(array[:3])))
    assert np.array_equal(next(in_memory.batches(9)), array[:3])


@pytest.mark.parametrize(("trained", "decode"), [(None, 1), (1, 1), (2, 1), (3, 2), (16, 15)])
def test_a_trials_cells_are_decoded_by_the_workers_of_its_training_but_for_one(trained, decode):
    """That one measures."""
    training = trained and SimpleNamespace(workers=SimpleNamespace(count=trained))
    trial = SimpleNamespace(training=training)
    workers = measuring._workers(trial, with_params())
    if decode == 1:
        assert type(workers) is Alone
    else:
        assert workers._ray.num_workers == decode


@pytest.mark.usefixtures("in_tiny_project")
def test_features_of_a_set_are_the_same_whoever_makes_them(tmp_path, use_ray, monkeypatch):
    monkeypatch.setattr("pipeline.evaluation.feature_files.PART", 16)
    params, root = with_params(), Path.cwd()
    images = CenterCrops(Path("data/images"), "train", params.data)
    extractor = ClassifierExtractor(load_model("models/classifier", "classifier"), CPU)
    found = []
    for count in (1, 2, 4):
        ray = use_ray(FakeRay())
        cache, maker = tmp_path / f"{count}", extraction(extractor, images, params, root)
        cached_features(images, extractor, cache, workers_of(ray_params(count)), maker)
        found.append(features_path(images, extractor, cache).read_bytes())
        assert len(ray.made) == (0 if count == 1 else 4)  # of 60 images
    assert all(a == b for a, b in pairwise(found))


@pytest.mark.usefixtures("in_tiny_project")
def test_rows_of_an_experiment_are_the_same_whoever_samples(tmp_path, use_ray):
    params = with_params()
    ray = use_ray(FakeRay())
    found = [
        temperature.temperature_rows(params, folders_of(tmp_path / f"{n}", params), workers)
        for n, workers in enumerate((ALONE, workers_of(ray_params(2))))
    ]
    assert found[0] == found[1] and len(ray.made) >= 2 * 2 * 3
