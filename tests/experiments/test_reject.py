"""Rejection sampling against brute force, and what it measures."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.paths import SAMPLES
from pipeline.config.replicates import NETWORKS
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.experiments import reject as rejection
from pipeline.sampling import balanced_labels
from tests.evaluation.test_labels import apportioned
from tests.images import samples_in
from tests.tiny_project import (
    ALONE,
    CHANGES,
    CLASSES,
    Dies,
    check_scores,
    classified,
    folders_of,
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
    counts = apportioned(max(1, round(acceptance * len(labels))), labels.bincount().tolist())
    expected = []
    for label in set(labels.tolist()):
        members = [i for i, (own, _) in enumerate(samples) if own == label]
        best = sorted(members, key=lambda i: (-samples[i][1], i))
        expected += best[: counts.count(label)]
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
    assert rejection.select(ratings, labels, 1 / 2).tolist() == [1, 2]


def rejected(folder: Path, **sections) -> pd.DataFrame:
    params = with_params(**sections)
    folders = {
        replicate: path
        for network in NETWORKS
        for replicate, path in folders_of(folder / network, params, network).items()
    }
    return pd.DataFrame(rejection.rejection_rows(params, folders, ALONE))


def test_rejection_raises_the_recognised_share_and_random_selection_is_of_the_same_size(
    tmp_path,
):
    every = rejected(tmp_path)
    assert len(every) == 2 * 2 * 2 * 3 and set(every["seed"]) == {0, 1}
    table = every[every["seed"] == 1].set_index(["network", "selection", "acceptance"]).sort_index()
    assert (table["candidates"] == 90).all()
    for network in NETWORKS:
        kept, drawn = table.loc[network, "rejection"], table.loc[network, "random"]
        assert kept["samples"].to_dict() == {1.0: 90, 0.5: 45, 0.2: 18}
        assert drawn["samples"].to_dict() == kept["samples"].to_dict()
        for acceptance in (0.5, 0.2):
            recognised = kept.loc[acceptance, "class_accuracy"]
            assert recognised > drawn.loc[acceptance, "class_accuracy"] + 0.2
            assert recognised > kept.loc[1.0, "class_accuracy"] + 0.2
        pd.testing.assert_series_equal(kept.loc[1.0], drawn.loc[1.0])
    assert table.notna().all(axis=None)


def test_rejection_measures_what_it_keeps(tmp_path):
    params = with_params()
    rows = rejected(tmp_path).to_dict("records")
    images, _ = samples_in(SAMPLES / "autoregressive/seed1")
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
        if (row["network"], row["seed"], row["selection"], row["acceptance"])
        == ("autoregressive", 1, "rejection", 0.5)
    ]
    check_scores(row, images[best], labels[best])
    evaluator = Evaluator(params, ALONE, second=True)
    outputs = evaluator.outputs(ArrayImages(images[best]), tmp_path / "best")
    whole = evaluator.metrics(outputs, labels[best])
    shared = row.keys() & whole.keys() - {"samples"}
    assert len(shared) == 7
    assert {name: row[name] for name in shared} == pytest.approx({n: whole[n] for n in shared})


def test_a_selection_too_small_for_fid_has_an_empty_column(tmp_path):
    table = rejected(tmp_path, rejection={"acceptance": [1.0, 0.15]})
    few = table["samples"] <= 16
    assert few.sum() == 8 and table["fid_classifier"].isna().equals(few)
    assert table.drop(columns="fid_classifier").notna().all(axis=None)


def test_random_selections_differ_by_seed_and_repeat(tiny_project, tmp_path, monkeypatch):
    shutil.copytree(tiny_project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    first, again = rejected(tmp_path / "a"), rejected(tmp_path / "b")
    pd.testing.assert_frame_equal(first, again)
    shutil.rmtree(SAMPLES / "transformer/seed1")
    shutil.copytree(SAMPLES / "transformer/seed0", SAMPLES / "transformer/seed1")
    table = rejected(tmp_path / "c")
    some = table[(table["network"] == "transformer") & (table["acceptance"] < 1)]
    one, two = (
        some[some["seed"] == seed].set_index(["selection", "acceptance"]) for seed in (0, 1)
    )
    same = one["fid_classifier"] == two["fid_classifier"]
    assert same["rejection"].all() and not same["random"].any()


def test_killed_rejection_resumes_and_one_more_seed_is_measured_alone(tmp_path, monkeypatch):
    """Two selections of three shares, of two networks: six measurements of a seed and network."""
    straight, plain = rejected(tmp_path / "straight"), rejection.select
    first = straight[straight["seed"] == 0].reset_index(drop=True)
    one = {"evaluation": CHANGES["evaluation"] | {"seeds": [0]}}

    def run(most: int, **sections) -> tuple[pd.DataFrame, int]:
        counted = Dies(plain, most)
        monkeypatch.setattr(rejection, "select", counted)
        return rejected(tmp_path / "killed", **sections), most - counted.left

    with pytest.raises(KeyboardInterrupt):
        run(5, **one)
    rows, measured = run(99, **one)
    pd.testing.assert_frame_equal(rows, first)
    assert measured == 2 * 6 - 4
    rows, measured = run(99)
    pd.testing.assert_frame_equal(rows, straight)
    assert measured == 2 * 6
