"""Images from a part of their tokens, against the tokenizer and other libraries."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from pipeline.config.paths import CLASSIFIER, TOKENIZER
from pipeline.config.replicates import main_replicates
from pipeline.data.images.pixels import as_float
from pipeline.evaluation.reconstruction import rebuild
from pipeline.experiments import reconstruct as reconstruction
from pipeline.perceptual import classifier_distance
from pipeline.weights.published import load_model
from tests.tiny_project import (
    ALONE,
    CHANGES,
    CODES,
    CPU,
    GRID,
    SIDE,
    check_resumes,
    folders_of,
    validation,
    with_params,
)

pytestmark = pytest.mark.usefixtures("in_tiny_project")


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
    """Of the first seed alone."""
    first = CHANGES["evaluation"] | {"seeds": [0]}
    params = with_params(reconstruction=changes, evaluation=first)
    return reconstruction.reconstruct_hidden(params, folders_of(tmp_path, params), ALONE)


def drawn(ratio: float, **changes) -> Tensor:
    """What the first replicate draws, (draws, M, C, H, W)."""
    params = with_params(reconstruction=changes)
    first = main_replicates(params, "transformer")[0]
    bench = reconstruction.Reconstructor(params, first, CPU)
    draws = range(params.reconstruction.draws)
    given = bench.batches(bench.hidden(ratio))
    batches = [(chosen, bench.encode(chosen), hidden) for chosen, hidden in given]
    return torch.stack([torch.cat([bench.draw(*each, n) for each in batches]) for n in draws])


def test_without_hidden_tokens_it_is_the_tokenizers_reconstruction(tmp_path):
    rows, pictures = rebuilt(tmp_path, images=10, mask_ratios=[0.0])
    images, _ = validation(10)
    expected = rebuild(load_model(TOKENIZER, "tokenizer"), images, CPU)[0]
    assert all(torch.equal(draw, expected) for draw in drawn(0.0, images=10))
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
        samples = drawn(row["mask_ratio"])
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


def test_medians_are_those_of_each_pixel():
    noise = torch.Generator().manual_seed(0)
    for draws in (1, 2, 5):
        samples = torch.randint(256, (draws, 3, 2, 4, 4), generator=noise, dtype=torch.uint8)
        wanted = np.median(samples.numpy(), axis=0).round()
        np.testing.assert_array_equal(reconstruction.median_image(samples), wanted)


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
    monkeypatch.setattr(reconstruction, "predictor", lambda *_: lambda *_: 1e4 * truth)
    rows, _ = rebuilt(tmp_path, images=10, mask_ratios=RATIOS)
    assert len({row["psnr"] for row in rows}) == 1


def test_inputs_show_which_tokens_are_hidden(tmp_path):
    rows, pictures = rebuilt(tmp_path, mask_ratios=[0.0, 0.45, 1.0])
    shape = (8, SIDE, SIDE, 1)
    assert pictures["originals"].shape == shape
    assert all(pictures[k].shape == (3, *shape) for k in ("inputs", "samples", "medians"))
    share = round(0.45 * GRID**2) / GRID**2
    assert pictures["hidden"].tolist() == [0.0, share, 1.0] and share != 0.45
    assert {row["mask_ratio"]: row["hidden"] for row in rows} == {0.0: 0.0, 0.45: share, 1.0: 1.0}
    hidden = reconstruction.hide_tokens(21, GRID**2, 0.45, seed=0)[:8].view(8, GRID, GRID).numpy()
    pixels = np.kron(hidden, np.ones((1, 2, 2), bool))[..., None]
    expected = np.where(pixels, reconstruction.GREY, pictures["originals"])
    np.testing.assert_array_equal(pictures["inputs"][1], expected)
    assert (pictures["inputs"][2] == reconstruction.GREY).all()


def test_killed_reconstruction_goes_on(tmp_path):
    # Three draws of each of three batches a ratio: killed after a batch of the second.
    check_resumes(lambda folder: rebuilt(folder)[0], tmp_path, reconstruction, "decode", calls=12)
    files = [path.name for path in (tmp_path / "killed/seed0").iterdir()]
    assert sorted(files) == ["0.0.safetensors", "0.5.safetensors"]
