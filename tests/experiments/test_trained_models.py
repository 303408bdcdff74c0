"""Measurements and pictures of trained models: edited images, rejected samples, images from a part
of their tokens, and samples at other choice temperatures."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics.functional.image import peak_signal_noise_ratio

from analysis.exhibits.editing import EDITS
from pipeline import editing
from pipeline.config.paths import CLASSIFIER, SAMPLES, TOKENIZER
from pipeline.config.replicates import NETWORKS, main_replicates
from pipeline.data.images.pixels import as_float
from pipeline.data.seeds import generator, mix
from pipeline.decoding.iterative import decode, predictor
from pipeline.decoding.settings import DecodingSettings
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.evaluation.metrics import disjoint
from pipeline.evaluation.reconstruction import rebuild
from pipeline.experiments import edit, reconstruct, reject, temperature
from pipeline.perceptual import classifier_distance
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model
from tests.evaluation.test_evaluator import apportioned
from tests.images import samples_in
from tests.tiny_project import (
    ALONE,
    CLASSES,
    CPU,
    GRID,
    SIDE,
    VAL,
    check_scores,
    classified,
    drawn_in_tens,
    folders_of,
    validation,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


def edited_images(count: int = 23) -> tuple[Tensor, Tensor]:
    """Return the edited validation images, balanced over the classes, and their labels."""
    images, labels = validation(VAL)
    chosen = next(disjoint(labels, count, seed=0))
    counts = labels[chosen].bincount()
    assert counts.max() - counts.min() <= 1
    return images[chosen], labels[chosen]


def composites(task: str, seed: int | None, **sections: dict) -> Tensor:
    """Return all images as edited by the replicate of a seed, or by the baseline."""
    params = with_params(**sections)
    replicate = main_replicates(params, "transformer")[seed or 0]
    editor = edit.Editor(params, replicate, CPU)
    return torch.cat([editor(*batch) for batch in editor.batches(task, seed)])


def test_every_task_method_and_replicate_is_scored(tmp_path):
    """Distances are means over the unknown pixels of each image. The perceptual distance of a pixel
    is that of its cell. Original images have no distance."""
    params = with_params(editing={"iterations": 1})
    folders, baseline = folders_of(tmp_path, params), tmp_path / "nearest"
    rows = edit.edit_rows(params, folders, baseline, ALONE)
    originals, labels = edited_images()
    methods = [("original", None), ("nearest", None), ("maskgit", 0), ("maskgit", 1)]
    keys = [(row["task"], row["method"], row["seed"]) for row in rows]
    assert keys == [(task, *method) for task in edit.TASKS for method in methods]
    assert list(edit.TASKS) == list(EDITS)  # which the report knows
    classifier = load_model(CLASSIFIER, "classifier")
    maps = classifier.outputs(as_float(originals)).maps
    for row in rows:
        assert row["images"] == 23
        if row["task"] not in ("inpaint_center", "outpaint_bottom"):
            continue
        if row["method"] == "original":
            check_scores(row, originals.numpy(), labels)
            assert "psnr_hole" not in row
            continue
        made = composites(row["task"], row["seed"], editing={"iterations": 1})
        check_scores(row, made.numpy(), labels)
        unknown, distance = edit.TASKS[row["task"]]((SIDE, SIDE)), 0.0
        mse = (as_float(originals) - as_float(made))[..., unknown].double().pow(2).mean(dim=(1, 2))
        assert row["psnr_hole"] == pytest.approx((-10 * mse.log10()).mean().item(), rel=1e-4)
        for pair in zip(maps, classifier.outputs(as_float(made)).maps, strict=True):
            a, b = (normalize(each.double()) for each in pair)
            cells = (a - b).square().sum(dim=1)
            for dim in (1, 2):
                cells = cells.repeat_interleave(SIDE // cells.shape[dim], dim)
            distance += cells[:, unknown].mean().item()
        assert row["perceptual_hole"] == pytest.approx(distance, rel=1e-3)


def test_composites_keep_what_is_known_and_are_of_their_own_class():
    changes = {"editing": {"feather": 1}, "training": {"mask_schedule": "square"}}
    images, labels = edited_images()
    for task, mask in edit.TASKS.items():
        unknown = mask((SIDE, SIDE))
        near = editing.feather_weight(unknown[None], 1)[0] > 0
        first, second = (composites(task, seed, **changes) for seed in (0, 1))
        for made in (first, second):
            assert (made == images)[..., ~near].all()
            assert (made != images)[..., unknown].any(dim=-1).all()
        assert (first != second).any()
        assert (composites(task, None) == images)[..., ~unknown].all()
    half = SIDE // 2
    first, last = slice(half), slice(half, None)
    sides = {"top": first, "bottom": last, "left": np.s_[:, first], "right": np.s_[:, last]}
    for side, unknown in sides.items():
        mask = edit.TASKS[f"outpaint_{side}"]((SIDE, SIDE))
        assert mask[unknown].all() and mask.sum() == SIDE * half
    repeated = images[..., half - 1 : half].repeat_interleave(half, dim=3)
    assert torch.equal(composites("outpaint_right", None)[..., half:], repeated)
    params = with_params(**changes)
    model = load_model(main_replicates(params, "transformer")[1].folder, "transformer")
    mask, batch = editing.outpaint_mask((SIDE, SIDE), "top", 0.5), slice(10, 20)
    how = DecodingSettings(3, "square", 4.5)
    expected = editing.edit(
        *(model, load_model(TOKENIZER, "tokenizer"), images[batch], mask, labels[batch], how),
        seed=mix(1, "outpaint_top", 1),
        dilate=params.editing.dilate,
        feather=1,
    )
    assert torch.equal(composites("outpaint_top", 1, **changes)[10:20], expected.composite)


def test_edited_pictures():
    pictures = edit.edit_pictures(with_params(), CPU)
    n, originals = CLASSES, pictures["inpainting"][:, 2]
    columns = {"inpainting": 3, "class_edit": 2 + CLASSES, "outpainting": 1 + edit.DRAWS}
    for name, count in columns.items():
        assert pictures[name].shape == (n, count, SIDE, SIDE, 1)
    assert pictures["panorama"].shape == (n, SIDE, 3 * SIDE, 1)
    assert pictures["class_edit_labels"].tolist() == ["class0", "class1", "class2"]
    images, labels = validation(VAL)
    position = {image.numpy().tobytes(): i for i, image in enumerate(images.permute(0, 2, 3, 1))}
    pictured = labels[[position[image.tobytes()] for image in originals]]
    assert pictured.unique().tolist() == [0, 1, 2]  # one of each class
    quarter, half = SIDE // 4, SIDE // 2
    inside = pictures["inpainting"][:, 0, quarter:-quarter, quarter:-quarter]
    assert (inside == edit.GREY).all()
    assert (pictures["outpainting"][:, 0, :, half:] == edit.GREY).all()
    np.testing.assert_array_equal(pictures["class_edit"][:, 0], originals)
    known = pictures["outpainting"][:, 1:, :, : half - 1]
    assert (known == originals[:, None, :, : half - 1]).all()
    others = pictures["class_edit"][:, 2:]
    assert (others != others[:, :1]).any()  # of one seed: the class matters
    middle = pictures["panorama"][:, :, SIDE + 1 : 2 * SIDE - 1]
    np.testing.assert_array_equal(middle, originals[:, :, 1:-1])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40),
    st.floats(0.01, 1),
)
def test_selection_keeps_the_top_share_of_each_class(samples, acceptance):
    """Ratings have only a few values, so that many are equal."""
    labels, ratings = (torch.tensor(column) for column in zip(*samples, strict=True))
    kept = reject.select(ratings.double(), labels, acceptance).tolist()
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
        reject.class_log_odds(logits, labels), scipy.special.logit(p), atol=1e-6
    )


def test_what_is_kept_is_measured_and_a_random_selection_is_of_its_own_seed(tmp_path):
    params, folders = with_params(), {}
    for network in NETWORKS:
        folders |= folders_of(tmp_path / network, params, network)
    rows = pd.DataFrame(reject.rejection_rows(params, folders, ALONE))
    assert len(rows) == 2 * 2 * 2 * 3 and rows.notna().all(axis=None)
    assert (rows["candidates"] == 90).all()
    assert (rows["samples"] == rows["acceptance"].map({1.0: 90, 0.5: 45, 0.2: 18})).all()
    table = rows.set_index(list(reject.KEYS[:4])).sort_index()
    for network in NETWORKS:
        assert table.loc[network, 1, "rejection", 1.0].equals(table.loc[network, 1, "random", 1.0])
    images, _ = samples_in(SAMPLES / "autoregressive/seed1")
    labels = balanced_labels(90, CLASSES)
    _, logits = classified(images)
    ratings = {
        "rejection": torch.from_numpy(scipy.special.log_softmax(logits, axis=1)[range(90), labels]),
        "random": torch.rand(90, generator=generator(1, "reject", "autoregressive")),
    }
    for selection, rating in ratings.items():
        of_each = [sorted(range(c, 90, CLASSES), key=lambda i: -rating[i]) for c in range(CLASSES)]
        kept = sorted(i for ranked in of_each for i in ranked[:15])
        row = table.loc["autoregressive", 1, selection, 0.5].to_dict()
        check_scores(row, images[kept], labels[kept])
        evaluator = Evaluator(params, ALONE, second=True)
        outputs = evaluator.outputs(ArrayImages(images[kept]), tmp_path / selection)
        whole = evaluator.metrics(outputs, labels[kept])
        shared = row.keys() & whole.keys() - {"samples"}
        assert len(shared) == 7
        assert {name: row[name] for name in shared} == pytest.approx({n: whole[n] for n in shared})


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.lists(st.floats(0, 1), min_size=2, max_size=2), st.integers(0, 99))
def test_hidden_tokens_are_nested_and_of_the_right_number(num_tokens, ratios, seed):
    low, high = (reconstruct.hide_tokens(5, num_tokens, ratio, seed) for ratio in sorted(ratios))
    assert (low.sum(dim=1) == round(min(ratios) * num_tokens)).all()
    assert (high.sum(dim=1) == round(max(ratios) * num_tokens)).all()
    assert not (low & ~high).any()


def test_hidden_tokens_are_uniform():
    share = reconstruct.hide_tokens(20000, 10, 0.3, seed=0).double().mean(dim=0)
    np.testing.assert_allclose(share, 0.3, atol=5 * math.sqrt(0.3 * 0.7 / 20000))


def rebuilt(tmp_path: Path, **changes) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Return what `reconstruct_hidden` returns for the first seed."""
    params = with_params(reconstruction=changes, evaluation={"seeds": [0]})
    return reconstruct.reconstruct_hidden(params, folders_of(tmp_path, params), ALONE)


def draws_of(ratio: float) -> Tensor:
    """Return the first replicate's draws, (draws, M, C, H, W), made in batches of 10."""
    params = with_params()
    steps = params.decoding_settings(iterations=params.reconstruction.iterations)
    model = load_model(main_replicates(params, "transformer")[0].folder, "transformer")
    tokenizer = load_model(TOKENIZER, "tokenizer")
    images, labels = validation(params.reconstruction.images)
    tokens = tokenizer.encode(as_float(images)).flatten(1)
    hidden = reconstruct.hide_tokens(len(images), GRID**2, ratio, seed=0)

    def batch(draw: int, start: int) -> Tensor:
        rows, noise = slice(start, start + 10), generator(0, "reconstruct", draw, start)
        predict = predictor(model, labels[rows], steps)
        decoded = decode(predict, tokens[rows], hidden[rows], steps, noise)
        return tokens_to_images(tokenizer, list(decoded)[-1].sampled)

    starts = range(0, len(images), 10)
    return torch.stack([torch.cat([batch(draw, start) for start in starts]) for draw in range(3)])


def test_distances_match_other_libraries(tmp_path):
    rows, pictures = rebuilt(tmp_path)
    images, _ = validation(21)
    classifier = load_model(CLASSIFIER, "classifier")
    keys = [(row["mask_ratio"], row["draw"]) for row in rows]
    assert keys == [(ratio, draw) for ratio in (0.0, 0.5) for draw in (0, 1, 2, -1)]
    every = {ratio: draws_of(ratio) for ratio in (0.0, 0.5)}
    tokenized = rebuild(load_model(TOKENIZER, "tokenizer"), images, CPU)[0]
    assert all(torch.equal(draw, tokenized) for draw in every[0.0])  # no token is hidden
    for row in rows:
        samples = every[row["mask_ratio"]]
        median = samples.sort(dim=0).values[1]  # of three
        given = as_float(median if row["draw"] < 0 else samples[row["draw"]])
        wanted = peak_signal_noise_ratio(
            given, as_float(images), data_range=1.0, reduction="none", dim=(1, 2, 3)
        )
        assert row["psnr"] == pytest.approx(wanted.mean().item(), rel=1e-5)
        assert row["psnr_std"] == pytest.approx(wanted.std(correction=0).item(), rel=1e-4)
        distance = classifier_distance(classifier, as_float(images), given).mean()
        assert row["perceptual"] == pytest.approx(distance.item(), rel=1e-4)
        assert row["images"] == 21 and row["perceptual_std"] > 0
    # The median is of the last row, half of the tokens hidden.
    for name, number, drawn in (("samples", 0, tokenized), ("medians", 1, median)):
        pictured = drawn[:8].permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(pictures[name][number], pictured)
    pair = torch.tensor([[[[[1, 3]]]], [[[[2, 6]]]]], dtype=torch.uint8)
    assert reconstruct.median_image(pair).flatten().tolist() == [2, 4]  # halves to even


def test_inputs_show_which_tokens_are_hidden(tmp_path):
    rows, pictures = rebuilt(tmp_path, mask_ratios=[0.0, 0.45, 1.0])
    shape = (8, SIDE, SIDE, 1)
    assert pictures["originals"].shape == shape
    assert all(pictures[k].shape == (3, *shape) for k in ("inputs", "samples", "medians"))
    share = round(0.45 * GRID**2) / GRID**2
    assert pictures["hidden"].tolist() == [0.0, share, 1.0] and share != 0.45
    assert {row["mask_ratio"]: row["hidden"] for row in rows} == {0.0: 0.0, 0.45: share, 1.0: 1.0}
    hidden = reconstruct.hide_tokens(21, GRID**2, 0.45, seed=0)[:8].view(8, GRID, GRID).numpy()
    pixels = np.kron(hidden, np.ones((1, 2, 2), bool))[..., None]
    expected = np.where(pixels, reconstruct.GREY, pictures["originals"])
    np.testing.assert_array_equal(pictures["inputs"][0], pictures["originals"])
    np.testing.assert_array_equal(pictures["inputs"][1], expected)
    assert (pictures["inputs"][2] == reconstruct.GREY).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_every_sampling_setting_and_replicate_is_scored(tmp_path, network):
    params = with_params(temperature={"values": [0.0, 9.0], "samples": 23, "top_k": [0, 2]})
    folders = folders_of(tmp_path, params, network)
    rows = temperature.temperature_rows(params, folders, ALONE)
    wanted = {
        f"choice_temperature {value}": DecodingSettings(3, "cosine", value) for value in (0.0, 9.0)
    }
    if network == "autoregressive":
        wanted = {
            f"softmax_temperature {t}, top_k {k}": DecodingSettings(
                3, "cosine", 0.0, softmax_temperature=t, top_k=k
            )
            for t in (1.0, 0.8)
            for k in (0, 2)
        }
    found = [(row["seed"], row["setting"]) for row in rows]
    assert found == [(seed, setting) for seed in (0, 1) for setting in wanted]
    models, labels = [load_model(r.folder, network) for r in folders], balanced_labels(23, CLASSES)
    for row in rows:
        seed = row["seed"]
        images = drawn_in_tens(
            models[seed], wanted[row["setting"]], labels, mix(seed, "temperature")
        )
        check_scores(row, images, labels)
        assert (row["images"], row["samples"]) == (network, 23)
    assert len({row["fid_classifier"] for row in rows}) == len(rows)
