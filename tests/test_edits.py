"""In- and outpainting of validation images: what is scored, what is kept, what is pictured."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config.paths import TOKENIZER, TRANSFORMER
from pipeline.decoding import DecodingSettings
from pipeline.editing import edit, feather_weight, outpaint_mask
from pipeline.experiments import edit as edits
from pipeline.runtime.seeds import mix
from pipeline.weights.published import load_model
from tests.tiny_project import (
    CLASSES,
    CPU,
    SIDE,
    VAL,
    check_resumes,
    check_scores,
    validation,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


def test_every_task_method_and_seed_is_scored(tmp_path):
    rows = edits.edit_rows(with_params(), tmp_path, CPU)
    _, labels = validation(23)
    cells = [(row["task"], row["method"], row["seed"]) for row in rows]
    methods = [("nearest", None), ("maskgit", 0), ("maskgit", 1)]
    assert cells == [(task, *method) for task in edits.TASKS for method in methods]
    for row in rows:
        name = "nearest" if row["seed"] is None else f"seed{row['seed']}"
        images = np.load(tmp_path / f"{row['task']}-{name}.npy")
        assert images.shape == (23, 1, SIDE, SIDE) and row["images"] == 23
        check_scores(row, images, labels)


def test_composites_keep_what_is_known(tmp_path):
    edits.edit_rows(with_params(), tmp_path, CPU)
    originals = validation(23)[0].numpy()
    for task, mask in edits.TASKS.items():
        unknown = mask((SIDE, SIDE))
        near = (feather_weight(unknown[None], 1)[0] > 0).numpy()
        composites = [np.load(tmp_path / f"{task}-seed{seed}.npy") for seed in (0, 1)]
        for composite in composites:
            assert (composite == originals)[..., ~near].all()
            assert (composite != originals)[..., unknown.numpy()].any(axis=-1).all()
        assert (composites[0] != composites[1]).any()
        nearest = np.load(tmp_path / f"{task}-nearest.npy")
        assert (nearest == originals)[..., ~unknown.numpy()].all()
    half = SIDE // 2
    repeated = np.repeat(originals[..., half - 1 : half], half, axis=3)
    np.testing.assert_array_equal(
        np.load(tmp_path / "outpaint_right-nearest.npy")[..., half:], repeated
    )


def test_images_are_edited_for_their_own_class_as_the_params_say(tmp_path):
    params = with_params(editing={"feather": 2, "dilate": 0}, training={"mask_schedule": "square"})
    edits.edit_rows(params, tmp_path, CPU)
    images, labels = validation(10)  # a batch
    edited = edit(
        load_model(TRANSFORMER, "transformer"),
        load_model(TOKENIZER, "tokenizer"),
        images,
        outpaint_mask((SIDE, SIDE), "top", 0.5),
        labels,
        DecodingSettings(3, "square", 4.5),
        seed=mix(1, "outpaint_top", 0),
        dilate=0,
        feather=2,
    )
    composites = np.load(tmp_path / "outpaint_top-seed1.npy")[:10]
    np.testing.assert_array_equal(composites, edited.composite)


def test_killed_editing_goes_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        folder.mkdir(exist_ok=True)
        return edits.edit_rows(with_params(editing={"seeds": [3]}), folder, CPU)

    # Three batches a cell: killed within the second cell of the model.
    check_resumes(rows_of, tmp_path, edits, "edit", calls=4)


def test_edits_of_a_seed_do_not_depend_on_the_others(tmp_path):
    every = edits.edit_rows(with_params(), tmp_path / "a", CPU)
    alone = edits.edit_rows(with_params(editing={"seeds": [1]}), tmp_path / "b", CPU)
    assert alone == [row for row in every if row["seed"] != 0]


def test_too_few_images_have_no_fid_and_say_so(tmp_path, capsys):
    rows = edits.edit_rows(with_params(editing={"images": 16, "seeds": [0]}), tmp_path, CPU)
    assert all(row["fid_classifier"] is None and row["is_classifier"] >= 1 for row in rows)
    line = "not measured: FID: 16 samples cannot give a covariance of 16-dimensional features"
    assert capsys.readouterr().out.count(line) == len(rows)


def test_a_task_without_known_tokens_says_so(tmp_path, capsys):
    edits.edit_rows(with_params(editing={"dilate": 1, "seeds": [0]}), tmp_path, CPU)
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
    assert pictures["class_edit"].shape == (n, 1 + CLASSES, *tail)
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
    others = pictures["class_edit"][:, 1:]
    assert (others != others[:, :1]).any()  # of one seed: the class matters
    middle = pictures["panorama"][:, :, SIDE + 1 : 2 * SIDE - 1]
    np.testing.assert_array_equal(middle, originals[:, :, 1:-1])
