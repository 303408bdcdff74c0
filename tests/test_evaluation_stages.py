"""In- and outpainting, rejection, reconstruction, the choice temperature and speed, on tiny models
with random weights and a data set of noise."""

import importlib
import itertools
import json
import math
import re
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data.shards import (
    ImageShards,
    View,
    as_float,
    stratified_split,
    write_manifest,
    write_shards,
)
from pipeline.data.sources import open_source
from pipeline.editing import feather_weight
from pipeline.evaluation import edits, reconstruction, rejection, speed, temperature
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages
from pipeline.layout import CLASSIFIER, IMAGES, SAMPLES, TOKENIZER, TRANSFORMER
from pipeline.models import load_model, save_model
from pipeline.params import Params, read_yaml
from pipeline.perceptual import classifier_distance
from pipeline.sampling import balanced_labels, generate, tokens_to_images
from pipeline.seeds import mix
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.training.tokenizer import reconstruct
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from tests.images import noise_image
from tests.project import ROOT

CPU = torch.device("cpu")
SIDE, GRID, CODES, CLASSES = 8, 4, 11, 3
VAL = 24  # validation images; the classifier's features have 16 dimensions
CHANGES = {
    "data": {"source": "folder:pictures", "image_size": SIDE},
    "classifier": {"width": 4},
    "tokenizer": {"multipliers": [1, 1], "embedding_dim": 8, "codebook_size": CODES},
    "transformer": {"layers": 2, "hidden": 16, "heads": 2, "mlp": 32},
    "decoding": {"iterations": 3, "bf16": False, "batch_size": 10},
    "sweep": {"iterations": [2]},
    "evaluation": {"kid_subset_size": 10, "bootstrap": 3},
    "temperature": {"values": [0.0, 9.0], "seeds": [0, 1], "samples": 23},
    "editing": {"images": 23, "seeds": [0, 1], "iterations": 3, "feather": 1},
    "rejection": {"acceptance": [1.0, 0.5, 0.2]},
    "reconstruction": {"images": 21, "mask_ratios": [0.0, 0.5], "draws": 3, "iterations": 2},
    "speed": {"grids": [1, 2], "batch_sizes": [1, 3], "repeats": 3},
}
PRESET = read_yaml(ROOT / "presets/mnist5k.yaml")


def with_params(**sections: dict) -> Params:
    """The tiny project's, with changes given as section={key: value}."""
    values = dict(PRESET)
    for name in CHANGES | sections:
        values[name] = PRESET[name] | CHANGES.get(name, {}) | sections.get(name, {})
    return Params(**values)


def write_images() -> None:
    """Noise of three contrasts, one a class, as `data/images`."""
    for split, count in (("train", 60), ("val", VAL)):
        for number in range(count):
            label = number % CLASSES
            image = noise_image(SIDE, SIDE, "L", seed=mix(split, number) % 2**32)
            path = Path("pictures", split, f"class{label}", f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.point([int(v / (1 + label)) for v in range(256)]).save(path)
    source = open_source("folder:pictures", "")
    split = stratified_split(source, 0.2, seed=0)
    shards = {k: write_shards(source, v, k, 50, IMAGES) for k, v in split.items()}
    write_manifest(IMAGES, source, "folder:pictures", shards)


def write_models(params: Params) -> None:
    """Random weights, scaled up so that what is predicted depends on the input."""
    torch.manual_seed(1)
    t = params.transformer
    config = TransformerConfig(GRID**2, CODES, CLASSES, t.layers, t.hidden, t.heads, t.mlp, 0.1)
    for name, cls in (
        ("transformer", MaskGitTransformer),
        ("autoregressive", AutoregressiveTransformer),
    ):
        weights = {k: 20 * v if v.ndim == 2 else v for k, v in cls(config).state_dict().items()}
        save_model(Path("models", name), name, config, weights)
    tokenizer = Tokenizer(TokenizerConfig(1, 32, (1, 1), 1, 8, CODES))
    torch.nn.init.normal_(tokenizer.quantizer.codebook)
    torch.nn.init.constant_(tokenizer.decoder.out.bias, 0.5)
    save_model(TOKENIZER, "tokenizer", tokenizer.config, tokenizer.state_dict())
    classifier = Classifier(ClassifierConfig("small", 1, CLASSES, params.classifier.width))
    torch.nn.init.normal_(classifier.head.weight)
    save_model(CLASSIFIER, "classifier", classifier.config, classifier.state_dict())


def write_samples(count: int) -> None:
    noise = np.random.default_rng(0)
    for network in rejection.NETWORKS:
        folder = SAMPLES / network
        folder.mkdir(parents=True)
        contrast = noise.uniform(size=(count, 1, 1, 1))
        images = contrast * noise.integers(256, size=(count, 1, SIDE, SIDE))
        np.save(folder / "images.npy", images.astype(np.uint8))
        np.save(folder / "labels.npy", balanced_labels(count, CLASSES).numpy().astype(np.int32))


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_images()
        write_models(with_params())
        write_samples(90)
    return folder


@pytest.fixture(autouse=True)
def in_project(project, monkeypatch):
    monkeypatch.chdir(project)


def validation(count: int) -> tuple[Tensor, Tensor]:
    view = View(ImageShards(IMAGES, "val"), with_params().data, 0)
    images, labels = view.everything()
    return images[:count], labels[:count]


def classified(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of the reference classifier."""
    outputs = load_model(CLASSIFIER, "classifier").outputs(as_float(torch.from_numpy(images)))
    return outputs.features.double().numpy(), outputs.logits.double().numpy()


def frechet(images: np.ndarray) -> float:
    """FID (classifier) by its formula."""
    train = View(ImageShards(IMAGES, "train"), with_params().data, 0).everything()[0].numpy()
    (a, _), (b, _) = classified(images), classified(train)
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(ca @ cb).real.clip(0)).sum()  # trace of the matrix root
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb) - 2 * root


def inception(logits: np.ndarray) -> float:
    p = scipy.special.softmax(logits, axis=1)
    return math.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())


def check_scores(row: dict, images: np.ndarray, labels: Tensor) -> None:
    _, logits = classified(images)
    assert row["fid_classifier"] == pytest.approx(frechet(images), rel=1e-3)
    assert row["is_classifier"] == pytest.approx(inception(logits), rel=1e-6)
    assert row["class_accuracy"] == (logits.argmax(axis=1) == labels.numpy()).mean()


class Dies:
    """A function that stands for a process killed in its n-th call."""

    def __init__(self, function, calls: int):
        self.function, self.left = function, calls

    def __call__(self, *args, **kwargs):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.function(*args, **kwargs)


def check_resumes(rows_of, folder: Path, module, name: str, calls: int, kept: int) -> list[dict]:
    """Killed in a call of module.name, then taken up again: finished files stay as they are, and the
    rows are those of a run in one go, which are returned."""
    straight = rows_of(folder / "straight")
    killed = folder / "killed"
    killed.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, Dies(getattr(module, name), calls))
        with pytest.raises(KeyboardInterrupt):
            rows_of(killed)
    before = {p.name: p.stat().st_ino for p in killed.iterdir()}
    assert len(before) == kept
    assert rows_of(killed) == straight
    assert before.items() <= {p.name: p.stat().st_ino for p in killed.iterdir()}.items()
    return straight


# --- in- and outpainting --------------------------------------------------------------------------


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


def test_killed_editing_goes_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        folder.mkdir(exist_ok=True)
        return edits.edit_rows(with_params(editing={"seeds": [3]}), folder, CPU)

    # Three batches a cell: killed in the second cell of the model, with its floor's before it.
    check_resumes(rows_of, tmp_path, edits, "edit", calls=4, kept=3)


def test_edits_of_a_seed_do_not_depend_on_the_others(tmp_path):
    every = edits.edit_rows(with_params(), tmp_path / "a", CPU)
    alone = edits.edit_rows(with_params(editing={"seeds": [1]}), tmp_path / "b", CPU)
    assert alone == [row for row in every if row["seed"] != 0]


def test_too_few_images_have_no_fid_and_say_so(tmp_path, capsys):
    rows = edits.edit_rows(with_params(editing={"images": 16, "seeds": [0]}), tmp_path, CPU)
    assert all(row["fid_classifier"] is None and row["is_classifier"] >= 1 for row in rows)
    line = "no FID: 16 images give no covariance of 16-dimensional features"
    assert capsys.readouterr().out.count(line) == len(rows)


def test_a_task_without_known_tokens_says_so(tmp_path, capsys):
    params = with_params(editing={"dilate": 1, "images": 17, "seeds": []} | {"seeds": [0]})
    edits.edit_rows(params, tmp_path, CPU)
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
    others = {picture.tobytes() for picture in pictures["class_edit"][0, 1:]}
    assert len(others) > 1  # the class matters
    middle = pictures["panorama"][:, :, SIDE + 1 : 2 * SIDE - 1]
    np.testing.assert_array_equal(middle, originals[:, :, 1:-1])


# --- rejection ------------------------------------------------------------------------------------


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
    table = rejected().set_index(["network", "selection", "acceptance"])
    assert len(table) == 2 * 2 * 3
    assert (table["candidates"] == 90).all()
    for network in rejection.NETWORKS:
        kept, drawn = table.loc[network, "rejection"], table.loc[network, "random"]
        assert kept["samples"].to_dict() == {1.0: 90, 0.5: 45, 0.2: 18}
        assert drawn["samples"].to_dict() == kept["samples"].to_dict()
        assert kept["class_accuracy"].is_monotonic_increasing
        assert kept.loc[0.2, "class_accuracy"] > drawn.loc[0.2, "class_accuracy"]
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
    line = "no FID: 12 images give no covariance of 16-dimensional features"
    assert capsys.readouterr().out.count(line) == 4


def test_random_selections_differ_by_seed_and_repeat():
    first, again = rejected(), rejected()
    pd.testing.assert_frame_equal(first, again)
    other = pd.DataFrame(
        rejection.rejection_rows(with_params().model_copy(update={"seed": 1}), CPU)
    )
    some = (first["acceptance"] < 1) & (first["selection"] == "random")
    assert (first.loc[some, "fid_classifier"] != other.loc[some, "fid_classifier"]).all()


# --- reconstruction -------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.lists(st.floats(0, 1), min_size=2, max_size=2), st.integers(0, 99))
def test_hidden_tokens_are_nested_and_of_the_right_number(num_tokens, ratios, seed):
    low, high = (reconstruction.hide_tokens(5, num_tokens, ratio, seed) for ratio in sorted(ratios))
    assert (low.sum(dim=1) == round(min(ratios) * num_tokens)).all()
    assert (high.sum(dim=1) == round(max(ratios) * num_tokens)).all()
    assert not (low & ~high).any()


def test_hidden_tokens_are_uniform():
    share = reconstruction.hide_tokens(20000, 10, 0.3, seed=0).double().mean(dim=0)
    np.testing.assert_allclose(share, 0.3, atol=5 * math.sqrt(0.3 * 0.7 / 20000))


def rebuilt(tmp_path: Path, **changes) -> tuple[list[dict], dict[str, np.ndarray]]:
    tmp_path.mkdir(exist_ok=True)
    params = with_params(reconstruction=changes)
    return reconstruction.reconstruct_hidden(params, tmp_path, CPU)


def test_without_hidden_tokens_it_is_the_tokenizers_reconstruction(tmp_path):
    rows, pictures = rebuilt(tmp_path, images=10, mask_ratios=[0.0])
    images, _ = validation(10)
    expected, _ = reconstruct(load_model(TOKENIZER, "tokenizer"), images, CPU)
    samples = np.load(tmp_path / "0.0.npy")
    assert samples.shape == (3, 10, 1, SIDE, SIDE)
    assert all(np.array_equal(draw, expected) for draw in samples)
    assert len({row["psnr"] for row in rows}) == 1  # of the median too
    channels_last = expected.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(pictures["samples"][0], channels_last[:8])
    np.testing.assert_array_equal(pictures["inputs"][0], pictures["originals"])


def test_distances_match_other_libraries(tmp_path):
    rows, _ = rebuilt(tmp_path)
    images, _ = validation(21)
    classifier = load_model(CLASSIFIER, "classifier")
    keys = [(row["mask_ratio"], row["draw"]) for row in rows]
    assert keys == [(ratio, draw) for ratio in (0.0, 0.5) for draw in (0, 1, 2, -1)]
    for row in rows:
        samples = np.load(tmp_path / f"{row['mask_ratio']}.npy")
        median = np.sort(samples, axis=0)[1]  # of three
        given = as_float(torch.from_numpy(median if row["draw"] < 0 else samples[row["draw"]]))
        wanted = peak_signal_noise_ratio(
            given, as_float(images), data_range=1.0, reduction="none", dim=(1, 2, 3)
        )
        assert row["psnr"] == pytest.approx(wanted.mean().item(), rel=1e-5)
        assert row["psnr_std"] == pytest.approx(wanted.std(correction=0).item(), rel=1e-4)
        distance = classifier_distance(classifier, as_float(images), given)  # a mean over images
        assert row["perceptual"] == pytest.approx(distance.item(), rel=1e-4)
        assert row["images"] == 21 and row["perceptual_std"] > 0


def test_median_of_an_even_number_lies_between_the_middle_two():
    samples = np.array([0, 10, 255, 20], np.uint8).reshape(4, 1, 1, 1, 1)
    assert reconstruction.median_image(samples).item() == 15


class Coarse(torch.nn.Module):
    """A tokenizer that needs no training: a code is the grey level of its pixels."""

    def encode(self, images: Tensor) -> Tensor:
        levels = torch.nn.functional.avg_pool2d(images, SIDE // GRID)[:, 0]
        return (levels * (CODES - 1)).round().long()

    def decode(self, tokens: Tensor) -> Tensor:
        levels = tokens[:, None].float() / (CODES - 1)
        return torch.nn.functional.interpolate(levels, scale_factor=SIDE // GRID)


@pytest.fixture
def coarse(monkeypatch):
    def load(folder, kind, device="cpu"):
        return Coarse() if kind == "tokenizer" else load_model(folder, kind, device)

    monkeypatch.setattr(reconstruction, "load_model", load)


RATIOS = [0.0, 0.25, 0.5, 0.75, 1.0]


def test_quality_falls_with_the_hidden_share(coarse, tmp_path):
    rows, _ = rebuilt(tmp_path, mask_ratios=RATIOS)
    for draw in (0, 1, 2, -1):
        values = [row["psnr"] for row in rows if row["draw"] == draw]
        assert values == sorted(values, reverse=True) and len(set(values)) == len(RATIOS)


def test_a_model_that_knows_the_answer_loses_nothing(coarse, tmp_path, monkeypatch):
    images, _ = validation(10)
    truth = torch.nn.functional.one_hot(Coarse().encode(as_float(images)).flatten(1), CODES)
    monkeypatch.setattr(reconstruction, "predictor", lambda *_, **__: lambda *_: 1e4 * truth)
    rows, _ = rebuilt(tmp_path, images=10, mask_ratios=RATIOS)
    assert len({row["psnr"] for row in rows}) == 1


def test_inputs_show_which_tokens_are_hidden(tmp_path):
    _, pictures = rebuilt(tmp_path, mask_ratios=[0.0, 0.5, 1.0])
    shape = (8, SIDE, SIDE, 1)
    assert pictures["originals"].shape == shape
    assert all(pictures[k].shape == (3, *shape) for k in ("inputs", "samples", "medians"))
    assert pictures["mask_ratios"].tolist() == [0.0, 0.5, 1.0]
    hidden = reconstruction.hide_tokens(21, GRID**2, 0.5, seed=0)[:8].view(8, GRID, GRID).numpy()
    pixels = np.kron(hidden, np.ones((1, 2, 2), bool))[..., None]
    expected = np.where(pixels, reconstruction.GREY, pictures["originals"])
    np.testing.assert_array_equal(pictures["inputs"][1], expected)
    assert (pictures["inputs"][2] == reconstruction.GREY).all()


def test_killed_reconstruction_goes_on(tmp_path):
    # Three draws of three batches a ratio: killed in the second.
    check_resumes(
        lambda folder: rebuilt(folder)[0], tmp_path, reconstruction, "decode", calls=12, kept=1
    )


# --- choice temperature ---------------------------------------------------------------------------


def test_every_temperature_and_seed_is_scored(tmp_path):
    params = with_params()
    rows = temperature.temperature_rows(params, tmp_path, CPU)
    keys = [(row["choice_temperature"], row["seed"]) for row in rows]
    assert keys == [(0.0, 0), (0.0, 1), (9.0, 0), (9.0, 1)]
    model, tokenizer = load_model(TRANSFORMER, "transformer"), load_model(TOKENIZER, "tokenizer")
    labels = balanced_labels(23, CLASSES)
    for row in rows:
        images = [
            tokens_to_images(
                tokenizer,
                generate(
                    model,
                    chunk,
                    iterations=3,
                    schedule="cosine",
                    choice_temperature=row["choice_temperature"],
                    bf16=False,
                    seed=mix(mix(row["seed"], "temperature"), "batch", number),
                )[-1].sampled,
            )
            for number, chunk in enumerate(labels.split(10))
        ]
        check_scores(row, torch.cat(images).numpy(), labels)
        assert row["samples"] == 23
    assert len({row["fid_classifier"] for row in rows}) == 4
    assert not (tmp_path / "samples.npy").exists()


def test_killed_temperatures_go_on(tmp_path):
    def rows_of(folder: Path) -> list[dict]:
        return temperature.temperature_rows(with_params(), folder, CPU)

    straight = check_resumes(rows_of, tmp_path, temperature, "write_images", calls=2, kept=2)
    more = temperature.temperature_rows(
        with_params(temperature={"values": [0.0, 5.0, 9.0]}), tmp_path / "killed", CPU
    )
    assert [row for row in more if row["choice_temperature"] != 5.0] == straight


# --- speed ----------------------------------------------------------------------------------------


def config(grid: int) -> TransformerConfig:
    t = with_params().transformer
    return TransformerConfig(grid**2, CODES, CLASSES, t.layers, t.hidden, t.heads, t.mlp, 0.1)


def test_every_method_and_batch_size_is_timed():
    rows = speed.speed_rows(with_params(), 2, CLASSES, CPU)
    keys = [(row["method"], row["batch_size"]) for row in rows]
    assert keys == [(m, b) for m in ("maskgit", "ar_cached", "ar_uncached") for b in (1, 3)]
    for row in rows:
        assert 0 < row["low"] <= row["seconds_per_image"] <= row["high"]
        assert (row["tokens"], row["repeats"], row["device"]) == (4, 3, "cpu")
        assert row["threads"] == torch.get_num_threads()
        assert row["iterations"] == (3 if row["method"] == "maskgit" else 4)
    sizes = {sum(p.numel() for p in MaskGitTransformer(config(2)).parameters())}
    assert {row["parameters"] for row in rows} == sizes


def test_time_is_the_median_of_the_repeats_per_image(monkeypatch):
    clock = iter(itertools.accumulate([50, 0, 4, 9, 1, 7, 2]))  # between calls, and in them
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    drawn = []
    method = speed.Method(MaskGitTransformer(config(2)), 3, drawn.append)
    monkeypatch.setattr(speed, "methods", lambda *_: {"maskgit": method})
    params = with_params(speed={"batch_sizes": [2], "repeats": 3})
    (row,) = speed.speed_rows(params, 2, CLASSES, CPU)
    assert len(drawn) == 4  # one is thrown away
    assert (row["low"], row["seconds_per_image"], row["high"]) == (0 / 2, 2 / 2, 9 / 2)


def test_what_is_timed_draws_the_same_tokens_with_and_without_a_cache(monkeypatch):
    """In float32, whatever dtype MaskGIT is decoded in; and as many passes as the row says."""
    params = with_params(decoding={"iterations": 9, "bf16": True})
    methods = speed.methods(params, config(3), CPU)
    labels = balanced_labels(4, CLASSES)
    passes = []
    encode = MaskGitTransformer.encode
    monkeypatch.setattr(
        "pipeline.transformer.TokenTransformer.encode",
        lambda self, *args, **kwargs: passes.append(1) or encode(self, *args, **kwargs),
    )
    tokens = {}
    for name, method in methods.items():
        passes.clear()
        tokens[name] = method.draw(labels)
        assert len(passes) == method.iterations == 9
        assert tokens[name].shape == (4, 9)
    assert torch.equal(tokens["ar_cached"], tokens["ar_uncached"])
    assert len(tokens["ar_cached"].unique()) > 1


def test_maskgit_takes_no_more_iterations_than_there_are_tokens():
    methods = speed.methods(with_params(decoding={"iterations": 12}), config(2), CPU)
    assert methods["maskgit"].iterations == 4
    assert speed.methods(with_params(), config(1), CPU)["maskgit"].draw(torch.tensor([0])).numel()


# --- the stages -----------------------------------------------------------------------------------

RESULTS = {
    "edit": ["editing/rows.csv", "editing/pictures.npz"],
    "reject": ["rejection/rows.csv"],
    "reconstruct": ["reconstruction/rows.csv", "reconstruction/pictures.npz"],
    "temperature": ["temperature/rows.csv"],
    "speed": ["speed_timings.csv"],
}


class Run:
    """Stands for MLflow's."""

    def __init__(self):
        self.metrics, self.artifacts = {}, []

    def log_metrics(self, metrics, step=0):
        self.metrics |= {(name, step): value for name, value in metrics.items()}

    def log_artifact(self, path):
        self.artifacts.append(str(path))


@pytest.fixture
def run_stage_main(project, monkeypatch):
    """Run a stage's main as `dvc repro` would, without MLflow; its summary, and the stand-in."""
    sections = sorted(CHANGES)
    declared = {
        stage: {"params": ["seed", *sections], "deps": ["data/images"]} for stage in RESULTS
    }
    (project / "dvc.yaml").write_text(json.dumps({"stages": declared}))

    def start(stage: str, **sections) -> tuple[str, Run]:
        params, run = with_params(**sections), Run()
        (project / "params.yaml").write_text(json.dumps(params.model_dump()))
        module = importlib.import_module(f"stages.{stage}")
        monkeypatch.setattr(module, "stage_run", lambda *_: nullcontext(run))
        return module.main(params), run

    return start


@pytest.mark.parametrize("stage", RESULTS)
def test_stage_writes_its_results_and_the_same_bytes_again(run_stage_main, stage):
    files = [Path("results", name) for name in RESULTS[stage]]
    summary, run = run_stage_main(stage)
    assert summary.startswith(f"{stage}: ") and "\n" not in summary
    assert str(files[0]) in run.artifacts and run.metrics
    assert all(math.isfinite(value) for value in run.metrics.values())
    before = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    run_stage_main(stage)
    if stage == "speed":  # timings are measured again
        kept = ["method", "tokens", "batch_size", "iterations", "repeats", "parameters"]
        tables = [pd.read_csv(file)[kept] for file in files]
        assert tables[0]["tokens"].unique().tolist() == [1, 4]
    else:
        assert [file.read_bytes() for file in files] == before


def test_stages_say_what_they_measured(run_stage_main):
    summary, _ = run_stage_main("reject")
    rows = pd.read_csv("results/rejection/rows.csv")
    best = rows[(rows["network"] == "transformer") & (rows["acceptance"] == 0.2)]
    shares = best.set_index("selection")["class_accuracy"]
    assert re.findall(r"[\d.]+%", summary) == [
        "20%", f"{shares['rejection']:.1%}", f"{shares['random']:.1%}"
    ]  # fmt: skip


def test_a_larger_grid_runs_only_what_is_new(run_stage_main, monkeypatch):
    run_stage_main("edit")
    monkeypatch.setattr(edits, "edit", Dies(edits.edit, calls=5 * 3 + 19))  # one seed, pictures
    run_stage_main("edit", editing={"seeds": [0, 1, 2]})
    assert edits.edit.left == 0


def test_killed_speed_keeps_its_grids_until_it_is_done(run_stage_main, monkeypatch):
    with monkeypatch.context() as patch:
        module = importlib.import_module("stages.speed")
        patch.setattr(module, "speed_rows", Dies(module.speed_rows, calls=1))
        with pytest.raises(KeyboardInterrupt):
            run_stage_main("speed")
        (kept,) = Path("runs/speed").glob("*/cpu-*-1.json")
        times = [row["seconds_per_image"] for row in json.loads(kept.read_text())]
    run_stage_main("speed")
    rows = pd.read_csv("results/speed_timings.csv", float_precision="round_trip")
    first = rows[rows["tokens"] == 1]["seconds_per_image"].tolist()
    assert first == pytest.approx(times, rel=1e-9)
    assert not kept.exists()
