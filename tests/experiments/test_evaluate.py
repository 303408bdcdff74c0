"""The stage of Table 1: how it measures samples, reconstructions and real images."""

import contextlib
import math
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from scipy.spatial.distance import cdist

from pipeline.autoregressive import token_nll
from pipeline.config.params import Params
from pipeline.config.paths import SAMPLES, TOKENIZER, TOKENS
from pipeline.config.replicates import NETWORKS, Replicate, replicates
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.evaluation import metrics
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.reconstruction import rebuild
from pipeline.experiments.evaluate import measuring as evaluate
from pipeline.experiments.evaluate.measuring import drop_samples, evaluate_all
from pipeline.masking import masked_nll
from pipeline.sampling import Sampler, balanced_labels
from pipeline.weights.published import load_model
from tests import tiny_project as tiny
from tests.images import samples_in

COUNT = 80  # in 8 batches
pytestmark = pytest.mark.usefixtures("in_tiny_project")


def params(**evaluation):
    return tiny.with_params(evaluation={"samples": COUNT} | evaluation, cas={"samples": COUNT})


@pytest.fixture(scope="module")
def straight(tiny_project, tmp_path_factory) -> tuple[list[dict], dict[str, bytes]]:
    """Return the rows of an evaluation and the samples that it published."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tiny_project)
        tiny.write_tokens()
        return evaluated(tmp_path_factory.mktemp("straight"), params()), published()


def folders_in(folder: Path, given: Params) -> dict[Replicate, Path]:
    every = [r for network in NETWORKS for r in replicates(given, network)]
    return {r: folder / r.network / r.name for r in every}


def evaluated(folder: Path, given: Params) -> list[dict]:
    evaluator = Evaluator(given, tiny.ALONE, second=True)
    return evaluate_all(given, folders_in(folder, given), folder, evaluator)


def published() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in SAMPLES.rglob("*") if path.is_file()}


def test_every_replicate_and_set_is_measured_in_the_same_way(straight, tmp_path):
    given, (rows, _) = params(), straight
    smoothings = [(value, seed) for value in (0.1, 0.2) for seed in (0, 1)]
    wanted = [(network, *own) for network in NETWORKS for own in smoothings]
    keys = [(row["images"], row.get("label_smoothing"), row.get("seed")) for row in rows]
    assert keys == [*wanted, ("reconstruction", None, None), ("real", None, None)]
    common = set.intersection(*map(set, rows))
    assert common == set(rows[-1]) and len(common) > 20
    tokenizer, held_out = load_model(TOKENIZER, "tokenizer"), TokenCache(TOKENS, "val").everything()
    for row, replicate in zip(rows, folders_in(tmp_path, given), strict=False):
        model, masked = load_model(replicate.folder, row["images"]), row["images"] == "transformer"
        own = {"label_smoothing", "seed", "nll", "parameters", "steps"}
        if replicate.main:
            images, labels = samples_in(SAMPLES / row["images"] / f"seed{row['seed']}")
            assert images.shape == (COUNT, 1, tiny.SIDE, tiny.SIDE)
            tiny.check_scores(row, images, torch.from_numpy(labels))
            last = balanced_labels(COUNT, tiny.CLASSES)[70:], mix(row["seed"], "batch", 7)
            drawn = Sampler(model, tokenizer)(given.decoding_settings(), *last)
            assert (images[70:] == drawn.numpy()).all()
            if masked:
                for suffix, near in (("", images), ("_real", tiny.validation(tiny.VAL)[0].numpy())):
                    own.add(name := f"nearest_distance_classifier{suffix}")
                    both = (
                        tiny.classified(near)[0],
                        tiny.classified(tiny.training_images().numpy())[0],
                    )
                    assert row[name] == pytest.approx(cdist(*both).min(axis=1).mean(), rel=1e-4)
        assert set(row) - common == own
        assert row["steps"] == (3 if masked else tiny.GRID**2)
        how = {"schedule": "cosine", "seed": row["seed"]}
        nll = masked_nll(model, *held_out, **how) if masked else token_nll(model, *held_out)
        assert row["nll"] == pytest.approx(nll, rel=1e-6)
    images, labels = tiny.validation(tiny.VAL)
    rebuilt = rebuild(tokenizer, images, tiny.CPU)[0].numpy()
    tiny.check_scores(rows[-1], images.numpy(), labels)
    tiny.check_scores(rows[-2], rebuilt, labels)
    assert rows[-2]["rfid_classifier"] == pytest.approx(
        tiny.frechet(rebuilt, images.numpy()), rel=1e-3
    )
    assert len({row["fid_classifier"] for row in rows}) == len(rows)  # each model has its own
    # Of the 24 validation images.
    few = {"fid_classifier_std", "fid_random_std", "fid_infinity_classifier"}
    for row in rows:
        assert {k for k, v in row.items() if v is None} == (set() if "seed" in row else few)
        assert all(math.isfinite(v) for k, v in row.items() if k != "images" and v is not None)


def test_means_are_over_the_main_replicates():
    rows = [
        {"images": "transformer", "label_smoothing": smoothing, "seed": seed, "is": 2}
        | {"fid": fid, "kid": fid if seed else None, "fid_std": 1.0}
        for smoothing, seed, fid in ((0.1, 0, 1.0), (0.1, 1, 4.0), (0.2, 0, 9.0), (0.2, 1, 9.0))
    ]
    rows.append({"images": "real", "fid": 0.5})
    means = evaluate.mean_metrics(rows, params())
    assert means == {"transformer": {"is": 2, "fid": 2.5, "kid": None}, "real": {"fid": 0.5}}


def drawn(folder: Path, given: Params, most: int = 9) -> list[int]:
    """Return the batches that each network draws in an evaluation that is killed after `most`."""
    draw, counts, samplers = Sampler.__call__, Counter[int](), []

    def counted(self, *arguments):
        if counts[id(self)] == most:
            raise KeyboardInterrupt
        counts[id(self)] += 1
        samplers.append(self)  # so that no other object gets its id
        return draw(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(Sampler, "__call__", counted)
        evaluated(folder, given)
    return list(counts.values())


def test_a_killed_evaluation_makes_no_batch_twice_and_a_new_seed_is_measured_alone(
    straight, tmp_path
):
    """A replicate has eight batches. The kill comes after three of the first replicate."""
    assert drawn(tmp_path, params(seeds=[0]), most=3) == [3]
    assert drawn(tmp_path, params(seeds=[0])) == [5] + [8] * 3
    assert drawn(tmp_path, params()) == [8] * 4
    assert drawn(tmp_path, params()) == [] and evaluated(tmp_path, params()) == straight[0]


def test_samples_that_are_not_kept_are_published_with_the_same_bytes(straight, tmp_path):
    """The run ends, or is killed before or while it drops the samples. The next run draws only what
    was dropped."""
    given = params(keep_samples=False, seeds=[0])
    folders = folders_in(tmp_path, given)

    def again() -> list[int]:
        """Return the batches that each network draws after DVC deleted the published files."""
        shutil.rmtree(SAMPLES)
        found = drawn(tmp_path, given)
        assert published() == {path: of for path, of in straight[1].items() if "seed0" in path}
        return found

    assert again() == [8] * 4
    replicate, folder = next(iter(folders.items()))
    for file in replicate.samples.iterdir():
        assert os.path.samefile(folder / "samples" / file.name, file)
    assert again() == []  # killed after they were published
    drop_samples(dict(list(folders.items())[:1]))
    assert again() == [8]  # killed after the first was dropped
    drop_samples(folders)
    assert not list(tmp_path.rglob("samples*"))


def test_real_images_are_scored_in_disjoint_sets(tmp_path, capsys):
    """Rejection keeps 9 or 12 of 99 candidates (33 in each class). There are too few validation
    images for sets of 40 or 99."""
    given = tiny.with_params(
        evaluation={"samples": 99},
        cas={"samples": 99},
        sweep={"samples": 40},
        temperature={"samples": 40},
        editing={"images": tiny.VAL},
        rejection={"acceptance": [4 / 33, 3 / 33]},
    )
    metrics.say_once.cache_clear()
    rows = evaluate.real_rows(given, Evaluator(given, tiny.ALONE), tmp_path)
    wanted = [(9, 0), (9, 1), (12, 0), (12, 1), (tiny.VAL, 0)]
    assert [(row["samples"], row["subset"]) for row in rows] == wanted
    assert [list(row) for row in rows] == [evaluate.real_columns(given)] * len(rows)
    images, labels = tiny.validation(tiny.VAL)
    tiny.check_scores(rows[-1], images.numpy(), labels)
    assert all(row["fid_classifier"] is None for row in rows[:-1])  # of 16 dimensions
    assert capsys.readouterr().out.count("not measured: FID") == 2  # once for a size
    halves = [row["class_accuracy"] for row in rows if row["samples"] == tiny.VAL // 2]
    assert sum(halves) / 2 == pytest.approx(rows[-1]["class_accuracy"])
