"""Batches that are made by this process or by several workers, with a stand-in for Ray."""

import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from pipeline.runtime.home import Project
from pipeline.runtime.site import Site

from pipeline.evaluation.feature_files import cached_features, extraction, features_path
from pipeline.evaluation.features import ClassifierExtractor
from pipeline.evaluation.images import CenterCrops
from pipeline.experiments import temperature
from pipeline.experiments.ablation import measuring
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.runtime import workers as module
from pipeline.runtime.batches import Alone, Maker, Several, parts_folder, workers_of, write_files
from pipeline.runtime.errors import UserError
from pipeline.weights.published import load_model
from tests.fake_ray import (
    BATCHES,
    FakeRay,
    Squares,
    put_in_rays_place,
    ray_params,
    squares,
)
from tests.tiny_project import ALONE, CPU, folders_of, with_params


@pytest.fixture
def use_ray(monkeypatch):
    """Puts a stand-in in Ray's place."""
    return partial(put_in_rays_place, monkeypatch)


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
        write_files({tmp_path / f"{number}.npy": BATCHES}, workers, sampler, "samples")
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


@pytest.mark.parametrize(("each", "decode"), [(1, 1), (2, 1), (4, 3), (16, 15)])
def test_a_trials_cells_are_decoded_by_its_workers_but_for_one(make_params, each, decode):
    """That one measures."""
    params = make_params(
        training={"batch_size": 16},
        sweep={"workers_per_trial": each},
        ray={"num_workers": 16},
        tokenizer={"batch_size": 16},
        classifier={"batch_size": 48},
    )
    workers = measuring._workers(SimpleNamespace(workers=trial_workers(params)), params)
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
