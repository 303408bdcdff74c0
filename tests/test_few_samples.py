"""Samples that are too few for a metric are refused before a network is trained for them."""

import re
import shutil
from contextlib import nullcontext

import pytest

from pipeline.evaluation.fid import TooFew
from pipeline.evaluation.metrics import require_enough
from pipeline.experiments.evaluate import measuring
from pipeline.prepare.split import require_training_images
from pipeline.runtime.errors import UserError
from stages import prepare, sweep
from tests.errors import one_line
from tests.tiny_project import ALONE, save_resnet, with_params, write_features


@pytest.fixture
def project(tiny_project, tmp_path, monkeypatch):
    """A copy of the tiny project, as the working directory; of 60 training images."""
    monkeypatch.chdir(shutil.copytree(tiny_project, tmp_path / "copy"))


def kept(samples: int, architecture: str = "small", **evaluation) -> None:
    """The sweep does what it does before its first trial."""
    params = with_params(
        classifier={"architecture": architecture},
        sweep={"samples": samples},
        temperature={"samples": samples},
        editing={"images": samples},
        evaluation=evaluation,
    )
    sweep._require_reference(params)


def refused(said: str, *args, **kwargs) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(said)}") as error:
        kept(*args, **kwargs)
    one_line(error)


def test_the_sweep_counts_the_features_that_params_cannot(project):
    save_resnet()
    network = "torchvision:resnet18"
    with pytest.raises(TooFew, match="60 reference images cannot give a covariance"):
        write_features(with_params())
    refused("sweep.samples: 512 samples give no covariance of the 512-dim", 512, network)


def test_evaluate_counts_them_before_it_draws(project, tmp_path, monkeypatch):
    save_resnet()
    with pytest.raises(TooFew):  # the classifier's features are written before their covariance
        write_features(with_params())
    monkeypatch.setattr("pipeline.evaluation.evaluator.reference_statistics", lambda *_: None)
    monkeypatch.setattr(measuring, "CenterCrops", _ended)
    network = {"architecture": "torchvision:resnet18"}
    for samples, said in ((512, "evaluation.samples: 512 samples give no cov"), (513, None)):
        params = with_params(classifier=network, evaluation={"samples": samples})
        expected = UserError if said else StopIteration  # it goes on, with the first real images
        with pytest.raises(expected, match=said):
            measuring.evaluate_all(params, {}, tmp_path / "run", ALONE)


def _ended(*_):
    raise StopIteration


def test_the_sweep_counts_the_training_images(project):
    kept(100, kid_subset_size=60)
    refused("evaluation.kid_subset_size: subsets of 61 cannot be", 100, kid_subset_size=61)
    refused("evaluation.neighbors: 60 nearest neighbours need more than 60", 100, neighbors=60)


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
    for count, dimensions, neighbors, said in (
        (64, 64, 3, "FID with the 64 features of evaluation.extractor wants 65"),
        (49, 10, 3, "evaluation.kid_subset_size 50 wants 50"),
        (60, 10, 60, "evaluation.neighbors 60 wants 61"),
    ):
        with pytest.raises(UserError, match=f"^data.source: {count} training .*{said}; ") as error:
            require_training_images(count, dimensions, 50, neighbors)
        one_line(error)
    monkeypatch.setattr(prepare, "Stage", lambda *_: nullcontext(None))
    monkeypatch.setattr(prepare, "stratified_split", lambda *_: {"train": [0, 1], "val": [2]})
    monkeypatch.setattr(prepare, "write_shards", lambda *_: pytest.fail("shards are written"))
    with pytest.raises(UserError, match="2 training images are too few"):
        prepare.main(with_params())
