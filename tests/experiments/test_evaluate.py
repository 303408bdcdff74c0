"""The stage of Table 1: what is measured of samples, reconstructions and real images."""

import contextlib
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.autoregressive import token_nll
from pipeline.config.params import Params
from pipeline.config.paths import SAMPLES, TOKENIZER, TOKENS
from pipeline.config.replicates import NETWORKS, Replicate, replicates
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.reconstruction import rebuild
from pipeline.experiments.evaluate import measuring as evaluate
from pipeline.experiments.evaluate.measuring import drop_samples, evaluate_all
from pipeline.masking import masked_nll
from pipeline.sampling import Sampler
from pipeline.weights.published import load_model
from tests.images import samples_in, write_token_cache
from tests.tiny_project import (
    ALONE,
    CLASSES,
    CODES,
    CPU,
    GRID,
    SIDE,
    VAL,
    Dies,
    check_scores,
    frechet,
    validation,
    with_params,
)

COUNT = 80  # in 8 batches


def params(**evaluation):
    sizes = {"samples": COUNT, "kid_subset_size": 10, "halves": 3, "seeds": [0, 1]}
    return with_params(evaluation=sizes | evaluation, cas={"samples": COUNT})


@pytest.fixture(autouse=True)
def tokens(in_tiny_project):
    """A cache of noise."""
    if not TOKENS.exists():
        draw, labels, splits = np.random.default_rng(0), np.arange(VAL) % CLASSES, ("train", "val")
        noise = {split: [draw.integers(0, CODES, (VAL, 1, GRID**2))] for split in splits}
        write_token_cache(TOKENS, noise, dict.fromkeys(splits, labels), CODES)


def folders_in(folder: Path, given: Params) -> dict[Replicate, Path]:
    every = [r for network in NETWORKS for r in replicates(given, network)]
    return {r: folder / r.network / r.name for r in every}


def evaluated(folder: Path, given: Params) -> list[dict]:
    return evaluate_all(given, folders_in(folder, given), folder, ALONE)


def test_every_replicate_and_set_is_measured_in_the_same_way(tmp_path):
    rows = evaluated(tmp_path, params())
    keys = [(row["images"], row.get("label_smoothing"), row.get("seed")) for row in rows]
    smoothings = [(value, seed) for value in (0.1, 0.2) for seed in (0, 1)]
    networks = ("transformer", "autoregressive")
    wanted = [(network, *own) for network in networks for own in smoothings]
    assert keys == [*wanted, ("reconstruction", None, None), ("real", None, None)]
    common = set.intersection(*map(set, rows))
    assert common == set(rows[-1]) and len(common) > 20
    for row in rows[:-2]:
        own = {"label_smoothing", "seed", "nll", "parameters", "steps"}
        if row["label_smoothing"] == 0.1 and row["images"] == "transformer":
            own |= {"nearest_distance_classifier", "nearest_distance_classifier_real"}
        assert set(row) - common == own
        assert row["steps"] == (3 if row["images"] == "transformer" else GRID**2)
        folder = SAMPLES / row["images"] / f"seed{row['seed']}"
        if row["label_smoothing"] == 0.1:
            images, labels = samples_in(folder)
            assert images.shape == (COUNT, 1, SIDE, SIDE)
            check_scores(row, images, torch.from_numpy(labels))
    images, labels = validation(VAL)
    check_scores(rows[-1], images.numpy(), labels)
    assert len({row["fid_classifier"] for row in rows}) == len(rows)  # no model is another's
    held_out = TokenCache(TOKENS, "val").everything()
    for row, replicate in zip(rows, folders_in(tmp_path, params()), strict=False):
        model = load_model(replicate.folder, replicate.network)
        options = {"schedule": "cosine", "seed": replicate.seed}
        nll = (
            masked_nll(model, *held_out, **options)
            if replicate.network == "transformer"
            else token_nll(model, *held_out)
        )
        assert row["nll"] == pytest.approx(nll, rel=1e-6)
    assert len({row["nll"] for row in rows[:-2]}) == 8
    # Of the 24 validation images.
    few = {"fid_classifier_std", "fid_random_std", "fid_infinity_classifier"}
    for row in rows:
        assert {k for k, v in row.items() if v is None} == (set() if "seed" in row else few)
        assert all(math.isfinite(v) for k, v in row.items() if k != "images" and v is not None)


def test_means_are_over_the_main_replicates_and_rfid_is_against_the_same_images(tmp_path):
    given = params()
    rows = evaluated(tmp_path, given)
    means = evaluate.mean_metrics(rows, given)
    assert list(means) == ["transformer", "autoregressive", "reconstruction", "real"]
    main = [r["fid_classifier"] for r in rows[:2]]
    assert [r["label_smoothing"] for r in rows[:2]] == [0.1, 0.1]
    assert means["transformer"]["fid_classifier"] == pytest.approx(sum(main) / 2)
    assert means["transformer"]["samples"] == COUNT and means["autoregressive"]["steps"] == GRID**2
    assert not any(
        k.endswith("_std") or k in evaluate.IDENTITY for of in means.values() for k in of
    )
    images, labels = validation(VAL)
    rebuilt = rebuild(load_model(TOKENIZER, "tokenizer"), images, CPU)[0].numpy()
    check_scores(rows[-2], rebuilt, labels)
    assert rows[-2]["rfid_classifier"] == pytest.approx(frechet(rebuilt, images.numpy()), rel=1e-3)


@contextlib.contextmanager
def drawing(most: int) -> Iterator[list[int]]:
    """Counts the batches that each network draws; killed in the batch of a network after so
    many."""
    draw, counts = Sampler.__call__, Counter[int]()

    def counted(self, *arguments):
        if counts[id(self)] == most:
            raise KeyboardInterrupt
        counts[id(self)] += 1
        samplers.append(self)  # so that no other has its id
        return draw(self, *arguments)

    samplers, found = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "__call__", counted)
        yield found
    found += counts.values()


def test_a_killed_evaluation_makes_no_batch_twice_and_a_new_seed_is_measured_alone(tmp_path):
    """Of eight batches a replicate the first three of the first are there after the kill."""
    straight, killed = evaluated(tmp_path / "straight", params()), tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt), drawing(3):
        evaluated(killed, params(seeds=[0]))
    with drawing(9) as drawn:
        assert evaluated(killed, params(seeds=[0])) == [r for r in straight if r.get("seed") != 1]
    assert drawn == [5] + [8] * 3
    with drawing(9) as drawn:
        assert evaluated(killed, params()) == straight
    assert drawn == [8] * 4
    with drawing(0):
        assert evaluated(killed, params()) == straight


def published() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in SAMPLES.rglob("*") if path.is_file()}


@pytest.mark.parametrize("links", [True, False], ids=["links", "another file system"])
def test_samples_that_are_not_kept_are_published_with_the_same_bytes(tmp_path, monkeypatch, links):
    """Of a run that ends, and of one that is killed before or while they are dropped; nothing is
    drawn again before."""
    straight, wanted = evaluated(tmp_path / "kept", params()), published()
    kept = list((tmp_path / "kept").rglob("samples*"))
    assert len([folder for folder in kept if folder.name == "samples"]) == 4
    assert not [file for file in kept if file.name.startswith("samples.npy")]
    given, run = params(keep_samples=False), tmp_path / "dropped"
    folders = folders_in(run, given)
    if not links:
        monkeypatch.setattr(os, "link", Dies(os.link, calls=0, error=OSError))

    def again() -> list[int]:
        """Batches that each network draws, where DVC has deleted what is published."""
        shutil.rmtree(SAMPLES)
        with drawing(9) as drawn:
            assert evaluated(run, given) == straight
        assert published() == wanted
        return drawn

    assert again() == [8] * 8
    replicate, folder = next(iter(folders.items()))
    for file in replicate.samples.iterdir():
        assert os.path.samefile(folder / "samples" / file.name, file) == links
    assert again() == []  # killed after they were published
    drop_samples(dict(list(folders.items())[:1]))
    assert again() == [8]  # killed after the first was dropped
    drop_samples(folders)
    assert published() == wanted and not list(run.rglob("samples*"))
    assert again() == [8] * 4


def test_real_images_are_scored_in_disjoint_sets(tmp_path):
    """Of 99 candidates, 33 a class, rejection keeps 9 or 12; of the sizes 40 and 99 there are not
    as many validation images."""
    given = with_params(
        evaluation={"samples": 99},
        cas={"samples": 99},
        sweep={"samples": 40},
        temperature={"samples": 40},
        editing={"images": VAL},
        rejection={"acceptance": [4 / 33, 3 / 33]},
    )
    rows = evaluate.real_rows(given, ALONE, tmp_path)
    wanted = [(9, 0), (9, 1), (12, 0), (12, 1), (VAL, 0)]
    assert [(row["samples"], row["subset"]) for row in rows] == wanted
    assert [list(row) for row in rows] == [evaluate.real_columns(given)] * len(rows)
    images, labels = validation(VAL)
    check_scores(rows[-1], images.numpy(), labels)
    assert all(row["fid_classifier"] is None for row in rows[:-1])  # of 16 dimensions
    halves = [row["class_accuracy"] for row in rows if row["samples"] == VAL // 2]
    assert sum(halves) / 2 == pytest.approx(rows[-1]["class_accuracy"])
