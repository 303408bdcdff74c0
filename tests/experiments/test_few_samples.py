"""Samples that are too few for a metric are refused before a network is trained for them."""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest

from pipeline.evaluation.metrics import require_enough
from pipeline.prepare.split import require_training_images
from pipeline.runtime.errors import UserError
from stages import prepare, sweep
from tests.errors import one_line
from tests.tiny_project import with_params


@pytest.fixture
def project(tiny_project, tmp_path, monkeypatch):
    """A copy of the tiny project, as the working directory; of 60 training images."""
    monkeypatch.chdir(shutil.copytree(tiny_project, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("key", "evaluation"),
    [
        ("", {"kid_subset_size": 60}),
        ("evaluation.kid_subset_size", {"kid_subset_size": 61}),
        ("evaluation.neighbors", {"neighbors": 60}),
    ],
)
def test_the_sweep_counts_the_training_images_before_its_first_trial(project, key, evaluation):
    params = with_params(sweep={"samples": 100}, evaluation=evaluation)
    with pytest.raises(UserError, match=f"^{key}: ") if key else nullcontext() as error:
        sweep.require_reference(params)
    if key:
        one_line(error)


def test_the_sweep_refuses_statistics_of_other_features_before_it_trains(project, tmp_path):
    path = tmp_path / "adm.npz"
    np.savez(path, mu=np.zeros(10), sigma=np.eye(10))
    params = with_params(evaluation={"reference_statistics": str(path)})
    with pytest.raises(UserError, match="are of 10-dimensional features"):
        sweep.require_reference(params)


def test_numbers_that_suffice_pass(make_params):
    settings = make_params(evaluation={"kid_subset_size": 40, "neighbors": 39}).evaluation
    require_enough("samples", 40, (40, 39), settings)
    for samples, reference in ((39, (40, 30)), (40, (39, 30)), (40, (40, 40))):
        with pytest.raises(UserError):
            require_enough("samples", samples, reference, settings)


def test_images_too_few_for_a_metric_are_refused_before_any_is_written(monkeypatch, project):
    """Six stages would train before the sweep found out."""
    require_training_images(65, dimensions=64, subset=50, neighbors=3)
    require_training_images(50, dimensions=0, subset=50, neighbors=3)
    for count, dimensions, neighbors, key in (
        (64, 64, 3, "evaluation.extractor"),
        (49, 10, 3, "evaluation.kid_subset_size"),
        (60, 10, 60, "evaluation.neighbors"),
    ):
        with pytest.raises(UserError, match=key):
            require_training_images(count, dimensions, 50, neighbors)
    monkeypatch.setattr(prepare, "Stage", lambda *_: nullcontext(None))
    monkeypatch.setattr(prepare, "stratified_split", lambda *_: {"train": [0, 1], "val": [2]})
    monkeypatch.setattr(prepare, "write_shards", lambda *_: pytest.fail("shards are written"))
    with pytest.raises(UserError, match="2 training images are too few"):
        prepare.main(with_params())
