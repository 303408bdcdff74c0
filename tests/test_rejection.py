"""Rejection sampling against brute force, and what it measures."""

import itertools

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.paths import SAMPLES
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages
from pipeline.experiments import reject as rejection
from pipeline.sampling import balanced_labels
from tests.tiny_project import (
    CLASSES,
    CPU,
    check_scores,
    classified,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40),
    st.floats(0.01, 1),
)
def test_selection_keeps_the_top_share_of_each_class(samples, acceptance):
    """Ratings of a few values only, so that many are equal."""
    labels, ratings = (torch.tensor(column) for column in zip(*samples, strict=True))
    kept = rejection.select(ratings.double(), labels, acceptance).tolist()
    expected = []
    for label in set(labels.tolist()):
        members = [i for i, (own, _) in enumerate(samples) if own == label]
        best = sorted(members, key=lambda i: (-samples[i][1], i))
        expected += best[: max(1, round(acceptance * len(members)))]
    assert kept == sorted(expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=3), min_size=1, max_size=9))
def test_ratings_are_the_log_odds_of_the_class(values):
    logits = torch.tensor(values)
    labels = balanced_labels(len(values), 3)
    p = scipy.special.softmax(logits.double().numpy(), axis=1)[range(len(values)), labels]
    np.testing.assert_allclose(
        rejection.class_log_odds(logits, labels), scipy.special.logit(p), atol=1e-6
    )


def test_the_surest_are_told_apart():
    logits = torch.tensor([[40.0, 0.0], [50.0, 0.0], [45.0, 0.0], [0.0, 60.0]])
    labels = torch.tensor([0, 0, 0, 1])
    assert logits.double().log_softmax(dim=1)[:3, 0].unique().tolist() == [0.0]
    ratings = rejection.class_log_odds(logits, labels)
    assert rejection.select(ratings, labels, 1 / 3).tolist() == [1, 3]


def rejected(**sections) -> pd.DataFrame:
    return pd.DataFrame(rejection.rejection_rows(with_params(**sections), CPU))


def test_rejection_raises_the_recognised_share_and_random_selection_is_of_the_same_size():
    table = rejected().set_index(["network", "selection", "acceptance"]).sort_index()
    assert len(table) == 2 * 2 * 3
    assert (table["candidates"] == 90).all()
    for network in rejection.NETWORKS:
        kept, drawn = table.loc[network, "rejection"], table.loc[network, "random"]
        assert kept["samples"].to_dict() == {1.0: 90, 0.5: 45, 0.2: 18}
        assert drawn["samples"].to_dict() == kept["samples"].to_dict()
        for acceptance in (0.5, 0.2):
            recognised = kept.loc[acceptance, "class_accuracy"]
            assert recognised > drawn.loc[acceptance, "class_accuracy"] + 0.2
            assert recognised > kept.loc[1.0, "class_accuracy"] + 0.2
        pd.testing.assert_series_equal(kept.loc[1.0], drawn.loc[1.0])
    assert table.notna().all(axis=None)


def test_rejection_measures_what_it_keeps():
    params = with_params()
    rows = rejection.rejection_rows(params, CPU)
    images = np.load(SAMPLES / "autoregressive/images.npy")
    labels = balanced_labels(90, CLASSES)
    _, logits = classified(images)
    ratings = scipy.special.log_softmax(logits, axis=1)[range(90), labels]
    best = sorted(
        itertools.chain.from_iterable(
            sorted(range(c, 90, CLASSES), key=lambda i: -ratings[i])[:15] for c in range(CLASSES)
        )
    )
    (row,) = [
        row
        for row in rows
        if (row["network"], row["selection"], row["acceptance"])
        == ("autoregressive", "rejection", 0.5)
    ]
    check_scores(row, images[best], labels[best])
    whole = Evaluator(params, CPU).measure(ArrayImages(images[best]), labels[best])
    shared = row.keys() & whole.keys() - {"samples"}
    assert len(shared) == 9
    assert {name: row[name] for name in shared} == pytest.approx({n: whole[n] for n in shared})


def test_a_selection_too_small_for_fid_is_a_line_and_empty_columns(capsys):
    table = rejected(rejection={"acceptance": [1.0, 0.15]})
    few = table["samples"] <= 16
    assert few.sum() == 4
    empty = ["fid_classifier", "fid_classifier_std"]
    assert table.loc[few, empty].isna().all(axis=None)
    assert table.loc[~few, empty].notna().all(axis=None)
    assert table.drop(columns=empty).notna().all(axis=None)
    line = "not measured: FID: 12 samples cannot give a covariance of 16-dimensional features"
    assert capsys.readouterr().out.count(line) == 4


def test_random_selections_differ_by_seed_and_repeat():
    first, again = rejected(), rejected()
    pd.testing.assert_frame_equal(first, again)
    other = pd.DataFrame(
        rejection.rejection_rows(with_params().model_copy(update={"seed": 1}), CPU)
    )
    some = (first["acceptance"] < 1) & (first["selection"] == "random")
    assert (first.loc[some, "fid_classifier"] != other.loc[some, "fid_classifier"]).all()
