"""In- and outpainting of validation images: what is scored, what is kept, what is pictured."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.exhibits.editing import EDITS
from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, TOKENIZER
from pipeline.config.replicates import main_replicates
from pipeline.data.images.pixels import as_float
from pipeline.data.seeds import mix
from pipeline.decoding import DecodingSettings
from pipeline.editing import edit, feather_weight, outpaint_mask
from pipeline.evaluation.uncertainty import disjoint
from pipeline.experiments import edit as edits
from pipeline.weights.published import load_model
from tests.tiny_project import (
    ALONE,
    CHANGES,
    CLASSES,
    CPU,
    SIDE,
    VAL,
    check_resumes,
    check_scores,
    folders_of,
    validation,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


def edited_images(count: int) -> tuple[Tensor, Tensor]:
    """The validation images that are edited, as many of every class as can be, and their labels."""
    images, labels = validation(VAL)
    chosen = next(disjoint(labels, count, seed=0))
    counts = labels[chosen].bincount()
    assert counts.max() - counts.min() <= 1
    return images[chosen], labels[chosen]


@pytest.fixture
def composites(monkeypatch) -> dict[str, np.ndarray]:
    """The images that are made, by folder and task. They are in no file."""
    made, batches, make_tensors, edit = {}, [], edits.make_tensors, edits.Editor.__call__

    def noted(path, *rest):
        found = make_tensors(path, *rest)
        made[f"{path.parent.name}/{path.stem}"] = torch.cat(batches).numpy()
        batches.clear()
        return found

    def kept(*arguments):
        batches.append(edit(*arguments))
        return batches[-1]

    monkeypatch.setattr(edits, "make_tensors", noted)
    monkeypatch.setattr(edits.Editor, "__call__", kept)
    return made


def edited(params: Params, folder: Path) -> list[dict]:
    return edits.edit_rows(params, folders_of(folder, params), folder / "nearest", ALONE)


def test_every_task_method_and_replicate_is_scored(tmp_path, composites):
    rows = edited(with_params(), tmp_path)
    _, labels = edited_images(23)
    cells = [(row["task"], row["method"], row["seed"]) for row in rows]
    methods = [("nearest", None), ("maskgit", 0), ("maskgit", 1)]
    assert cells == [
        (task, *method) for task in edits.TASKS for method in [("original", None), *methods]
    ]
    for row in rows:
        if row["method"] == "original":
            continue
        name = "nearest" if row["seed"] is None else f"seed{row['seed']}"
        images = composites[f"{name}/{row['task']}"]
        assert images.shape == (23, 1, SIDE, SIDE) and row["images"] == 23
        check_scores(row, images, labels)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} <= {".json", ""}


def test_rows_that_are_kept_need_no_image_again(tmp_path, composites):
    rows = edited(with_params(), tmp_path)
    composites.clear()
    assert edited(with_params(), tmp_path) == rows and not composites
    (tmp_path / "seed1/outpaint_top.json").unlink()
    assert edited(with_params(), tmp_path) == rows
    assert composites.keys() == {"seed1/outpaint_top"}


def test_the_originals_have_the_scores_of_the_same_images(tmp_path):
    rows = edited(with_params(), tmp_path)
    images, labels = edited_images(23)
    for row in (row for row in rows if row["method"] == "original"):
        check_scores(row, images.numpy(), labels)
        assert row["images"] == 23 and "psnr_hole" not in row and "perceptual_hole" not in row


def test_distances_are_over_the_unknown_pixels(tmp_path, composites):
    """Pixel by pixel, image by image; the perceptual distance is that of each pixel's cell."""
    rows = edited(with_params(), tmp_path)
    originals, classifier = edited_images(23)[0], load_model(CLASSIFIER, "classifier")
    maps = classifier.outputs(as_float(originals)).maps
    for row in (row for row in rows if row["method"] != "original"):
        name = "nearest" if row["seed"] is None else f"seed{row['seed']}"
        made = torch.from_numpy(composites[f"{name}/{row['task']}"])
        others = classifier.outputs(as_float(made)).maps
        unknown = edits.TASKS[row["task"]]((SIDE, SIDE)).nonzero().tolist()
        psnr, distance = [], []
        for i in range(23):
            squared = [
                (originals[i, 0, y, x].item() / 255 - made[i, 0, y, x].item() / 255) ** 2
                for y, x in unknown
            ]
            psnr.append(10 * math.log10(1 / max(np.mean(squared), 1e-10)))
            for y, x in unknown:
                total = 0.0
                for a, b in zip(maps, others, strict=True):
                    cell = (i, slice(None), y * a.shape[2] // SIDE, x * a.shape[3] // SIDE)
                    u, v = a[cell].double(), b[cell].double()
                    total += ((u / (u.norm() or 1) - v / (v.norm() or 1)) ** 2).sum().item()
                distance.append(total)
        assert row["psnr_hole"] == pytest.approx(np.mean(psnr), rel=1e-4)
        assert row["perceptual_hole"] == pytest.approx(np.mean(distance), rel=1e-3)


def test_composites_keep_what_is_known(tmp_path, composites):
    edited(with_params(), tmp_path)
    originals = edited_images(23)[0].numpy()
    for task, mask in edits.TASKS.items():
        unknown = mask((SIDE, SIDE))
        near = (feather_weight(unknown[None], 1)[0] > 0).numpy()
        two = [composites[f"seed{seed}/{task}"] for seed in (0, 1)]
        for composite in two:
            assert (composite == originals)[..., ~near].all()
            assert (composite != originals)[..., unknown.numpy()].any(axis=-1).all()
        assert (two[0] != two[1]).any()
        nearest = composites[f"nearest/{task}"]
        assert (nearest == originals)[..., ~unknown.numpy()].all()
    half = SIDE // 2
    repeated = np.repeat(originals[..., half - 1 : half], half, axis=3)
    np.testing.assert_array_equal(composites["nearest/outpaint_right"][..., half:], repeated)


def test_images_are_edited_for_their_own_class_as_the_params_say(tmp_path, composites):
    params = with_params(editing={"feather": 2, "dilate": 0}, training={"mask_schedule": "square"})
    edited(params, tmp_path)
    images, labels = (whole[:10] for whole in edited_images(23))  # a batch
    second = main_replicates(params, "transformer")[1]
    expected = edit(
        load_model(second.folder, "transformer"),
        load_model(TOKENIZER, "tokenizer"),
        images,
        outpaint_mask((SIDE, SIDE), "top", 0.5),
        labels,
        DecodingSettings(3, "square", 4.5),
        seed=mix(1, "outpaint_top", 0),
        dilate=0,
        feather=2,
    )
    np.testing.assert_array_equal(composites["seed1/outpaint_top"][:10], expected.composite)


def test_killed_editing_goes_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        return edited(with_params(evaluation=CHANGES["evaluation"] | {"seeds": [1]}), folder)

    # Three batches a cell: killed within the second cell of the model.
    check_resumes(rows_of, tmp_path, edits, "edit", calls=4)


def test_edits_of_a_seed_do_not_depend_on_the_others(tmp_path):
    every = edited(with_params(), tmp_path / "a")
    alone = edited(with_params(evaluation=CHANGES["evaluation"] | {"seeds": [1]}), tmp_path / "b")
    assert alone == [row for row in every if row["seed"] != 0]


def test_too_few_images_have_no_fid_and_say_so(tmp_path, capsys):
    rows = edited(with_params(editing={"images": 16}), tmp_path)
    assert all(row["fid_classifier"] is None and row["is_classifier"] >= 1 for row in rows)
    line = "not measured: FID: 16 samples cannot give a covariance of 16-dimensional features"
    # The originals, and in each task the nearest pixels' composites and those of two replicates.
    assert capsys.readouterr().out.count(line) == 1 + 3 * len(edits.TASKS)


def test_a_task_without_known_tokens_says_so(tmp_path, capsys):
    params = with_params()  # which would refuse it, but of grids that have no such tokens at all
    editing = params.editing.model_copy(update={"dilate": 1})
    edited(params.model_copy(update={"editing": editing}), tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if "editing.dilate 1" in line]
    assert len(said) == 1 and said[0].startswith("edit: inpaint_center: ")


def test_edit_pictures():
    params = with_params()
    pictures = edits.edit_pictures(params, CPU)
    again = edits.edit_pictures(params, CPU)
    assert all(np.array_equal(pictures[name], again[name]) for name in pictures)
    n, draws, tail = CLASSES, edits.DRAWS, (SIDE, SIDE, 1)
    originals = pictures["inpainting"][:, 2]
    assert pictures["inpainting"].shape == (n, 3, *tail)
    assert pictures["class_edit"].shape == (n, 2 + CLASSES, *tail)
    assert pictures["outpainting"].shape == (n, 1 + draws, *tail)
    assert pictures["panorama"].shape == (n, SIDE, 3 * SIDE, 1)
    assert pictures["class_edit_labels"].tolist() == ["class0", "class1", "class2"]

    images, labels = validation(VAL)
    position = {image.numpy().tobytes(): i for i, image in enumerate(images.permute(0, 2, 3, 1))}
    pictured = labels[[position[image.tobytes()] for image in originals]]
    assert pictured.unique().tolist() == [0, 1, 2]  # one of each class

    quarter, half = SIDE // 4, SIDE // 2
    inside = pictures["inpainting"][:, 0, quarter:-quarter, quarter:-quarter]
    assert (inside == edits.GREY).all()
    assert (pictures["outpainting"][:, 0, :, half:] == edits.GREY).all()
    np.testing.assert_array_equal(pictures["class_edit"][:, 0], originals)
    for draw in range(1, 1 + draws):
        left = pictures["outpainting"][:, draw, :, : half - 1]
        np.testing.assert_array_equal(left, originals[:, :, : half - 1])
    for column in range(1, 1 + CLASSES):
        np.testing.assert_array_equal(pictures["class_edit"][:, column, 0], originals[:, 0])
    others = pictures["class_edit"][:, 2:]
    assert (others != others[:, :1]).any()  # of one seed: the class matters
    middle = pictures["panorama"][:, :, SIDE + 1 : 2 * SIDE - 1]
    np.testing.assert_array_equal(middle, originals[:, :, 1:-1])


def test_the_report_knows_every_edit():
    assert list(EDITS) == list(edits.TASKS)
