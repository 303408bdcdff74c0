"""Which metrics are measured of a set of samples, and of which of its images."""

import pytest
import torch

from pipeline.evaluation.features import Features
from pipeline.evaluation.metrics import (
    distribution_metrics,
    drawn,
    manifold_metrics,
    sample_metric_names,
    sample_metrics,
)
from pipeline.evaluation.statistics import TooFew
from tests.gaussians import gaussian


def test_metrics_are_named_after_their_extractor(make_params):
    features = Features(gaussian(50, 4, 8), gaussian(50, 3, 9))
    settings = make_params(evaluation={"kid_subset_size": 20}).evaluation
    values = sample_metrics(features, features, "classifier", settings, seed=0)
    names = ("fid", "is", "kid", "precision", "recall", "density", "coverage")
    wanted = [f"{name}_classifier" for name in names]
    assert list(values) == sample_metric_names("classifier") == wanted
    assert values["precision_classifier"] == values["recall_classifier"] == 1


def test_metrics_of_few_samples_are_an_error_or_left_out_and_told(make_params, capsys):
    few, many = Features(gaussian(4, 4, 8), gaussian(4, 3, 9)), Features(gaussian(50, 4, 8))
    settings = make_params(evaluation={"kid_subset_size": 20, "neighbors": 2}).evaluation
    with pytest.raises(TooFew, match=r"4 samples .* use at least 5"):
        sample_metrics(few, many, "random", settings, seed=0)

    def measured(samples):
        how = {"extractor": "random", "evaluation": settings, "seed": 0, "skip_few": True}
        values = distribution_metrics(samples, many, **how)
        return values | manifold_metrics(samples.features, many.features, **how)

    values = measured(few)
    assert [values[f"{name}_random"] for name in ("fid", "kid")] == [None] * 2
    assert values["is_random"] >= 1 and values["precision_random"] is not None
    told = capsys.readouterr().out
    assert told.count("not measured: ") == 2 and "kid_subset_size" in told
    fewer = Features(few.features[:2], few.class_logits[:2])
    values = measured(fewer)
    names = ("precision", "recall", "density", "coverage")
    assert [values[f"{name}_random"] for name in names] == [None] * 4
    assert "evaluation.neighbors: 2 nearest neighbours need more" in capsys.readouterr().out


def test_a_part_is_drawn_in_its_order_and_the_same_again():
    features = torch.arange(100.0)[:, None]
    part = drawn(features, 10, seed=1)
    assert len(part) == 10 and (part.diff(dim=0) > 0).all()
    assert torch.equal(part, drawn(features, 10, seed=1))
    assert not torch.equal(part, drawn(features, 10, seed=2))
    assert drawn(features, 100, seed=1) is features
