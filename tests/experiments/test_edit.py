"""In- and outpainting of validation images: what is scored and what is pictured."""

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
from pipeline.evaluation.metrics import disjoint
from pipeline.experiments import edit as edits
from pipeline.experiments import rows as rows_module
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
    made, batches, edit = {}, [], edits.Editor.__call__
    make_tensors = rows_module.make_tensors

    def noted(path, *rest):
        found = make_tensors(path, *rest)
        made[f"{path.parent.name}/{path.stem}"] = torch.cat(batches).numpy()
        batches.clear()
        return found

    def recorded(*arguments):
        batches.append(edit(*arguments))
        return batches[-1]

    monkeypatch.setattr(rows_module, "make_tensors", noted)
    monkeypatch.setattr(edits.Editor, "__call__", recorded)
    return made


def edited(params: Params, folder: Path) -> list[dict]:
    return edits.edit_rows(params, folders_of(folder, params), folder / "nearest", ALONE)


def test_every_task_method_and_replicate_is_scored(tmp_path, composites):
    """Distances are over the unknown pixels, image by image; the perceptual distance is that of
    each pixel's cell. The originals have none."""
    rows = edited(with_params(), tmp_path)
    originals, labels = edited_images(23)
    cells = [(row["task"], row["method"], row["seed"]) for row in rows]
    methods = [("original", None), ("nearest", None), ("maskgit", 0), ("maskgit", 1)]
    assert cells == [(task, *method) for task in edits.TASKS for method in methods]
    assert list(edits.TASKS) == list(EDITS)  # which the report knows
    classifier = load_model(CLASSIFIER, "classifier")
    maps = classifier.outputs(as_float(originals)).maps
    for row in rows:
        assert row["images"] == 23
        if row["method"] == "original":
            check_scores(row, originals.numpy(), labels)
            assert "psnr_hole" not in row
            continue
        name = "nearest" if row["seed"] is None else f"seed{row['seed']}"
        made = torch.from_numpy(composites[f"{name}/{row['task']}"])
        check_scores(row, made.numpy(), labels)
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
    composites.clear()
    (tmp_path / "seed1/outpaint_top.json").unlink()
    assert edited(with_params(), tmp_path) == rows
    assert composites.keys() == {"seed1/outpaint_top"}  # the others are read from their files


def test_composites_keep_what_is_known_and_are_of_their_own_class(tmp_path, composites):
    params = with_params(editing={"feather": 1}, training={"mask_schedule": "square"})
    edited(params, tmp_path)
    images, labels = edited_images(23)
    originals = images.numpy()
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
    expected = edit(
        load_model(main_replicates(params, "transformer")[1].folder, "transformer"),
        load_model(TOKENIZER, "tokenizer"),
        images[:10],  # a batch
        outpaint_mask((SIDE, SIDE), "top", 0.5),
        labels[:10],
        DecodingSettings(3, "square", 4.5),
        seed=mix(1, "outpaint_top", 0),
        dilate=params.editing.dilate,
        feather=1,
    )
    np.testing.assert_array_equal(composites["seed1/outpaint_top"][:10], expected.composite)


def test_killed_editing_resumes_and_a_seed_does_not_depend_on_the_others(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        return edited(with_params(evaluation=CHANGES["evaluation"] | {"seeds": [1]}), folder)

    # Three batches a cell: killed within the second cell of the model.
    alone = check_resumes(rows_of, tmp_path, edits, "edit", calls=4)
    every = edited(with_params(), tmp_path / "every")
    assert alone == [row for row in every if row["seed"] != 0]


def test_too_few_images_have_no_fid_and_say_so(tmp_path, capsys):
    rows = edited(with_params(editing={"images": 16}), tmp_path)
    assert all(row["fid_classifier"] is None and row["is_classifier"] >= 1 for row in rows)
    assert "not measured: FID" in capsys.readouterr().out


def test_pictures():
    params = with_params()
    pictures = edits.edit_pictures(params, CPU)
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
    others = pictures["class_edit"][:, 2:]
    assert (others != others[:, :1]).any()  # of one seed: the class matters
    middle = pictures["panorama"][:, :, SIDE + 1 : 2 * SIDE - 1]
    np.testing.assert_array_equal(middle, originals[:, :, 1:-1])
