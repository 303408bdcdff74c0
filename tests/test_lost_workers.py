"""Workers of Ray that are lost while they make batches, with a stand-in for Ray."""

from functools import partial
from pathlib import Path

import pytest

from pipeline.runtime import workers as module
from pipeline.runtime.batches import Several, parts_folder
from pipeline.runtime.errors import UserError
from tests.fake_ray import BATCHES, FakeRay, put_in_rays_place, ray_params, squares


@pytest.fixture
def use_ray(monkeypatch):
    """Puts a stand-in in Ray's place."""
    return partial(put_in_rays_place, monkeypatch)


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


def test_a_second_lost_node_is_counted_once_too():
    """Its workers are at the batches of the first."""
    workers, batches = Several(ray_params(2)), [Path(f"{number}.npy") for number in range(4)]
    for names, order in (("abcd", batches), ("efgh", batches[::-1])):
        workers._idle = [*names, "elsewhere"]
        for name, path in zip(names, order, strict=True):
            workers._idle.remove(name)
            workers._count(name, path)
    assert workers._lost == 2


def test_workers_that_a_batch_kills_are_counted_each(tmp_path, use_ray):
    ray = use_ray(FakeRay(deadly="000005.npy"))
    with pytest.raises(UserError, match="lost, and 2 before it"):
        squares(tmp_path / "set.npy", Several(ray_params(6)))
    assert [name for _, name in ray.made].count("000005.npy") == 3


def test_workers_that_are_lost_later_are_counted_each(tmp_path, use_ray, monkeypatch):
    monkeypatch.setattr(module, "TOGETHER", -1.0)
    use_ray(FakeRay(dead=3))
    with pytest.raises(UserError, match="lost, and 2 before it"):
        squares(tmp_path / "set.npy", Several(ray_params(6)))


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
