"""Centre crops and random resized crops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from pipeline.data.images.pixels import center_crop, crop_box, random_resized_crop
from tests.images import noise_image


@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_crop_box_lies_in_the_image(width, height, scale, ratio, seed):
    rng = np.random.default_rng(seed)
    assert crop_box(10, 100, (1.0, 1.0), (1.0, 1.0), rng) == (0, 45, 10, 55)  # none fits
    box = crop_box(width, height, scale, ratio, rng)
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert all(isinstance(x, int) for x in box)


def test_crop_box_has_the_area_aspect_and_place_asked_for():
    """Area uniform, aspect uniform in its logarithm, and the place uniform among those that fit; in
    an image so large that rounding to pixels does not matter and every box fits."""
    width, height, scale, ratio = 30_000, 20_000, (0.1, 0.5), (3 / 4, 4 / 3)
    rng = np.random.default_rng(0)
    boxes = np.array([crop_box(width, height, scale, ratio, rng) for _ in range(3000)])
    (left, top), (w, h) = boxes[:, :2].T, (boxes[:, 2:] - boxes[:, :2]).T
    area, aspect = w * h / (width * height), np.log(w / h)
    parts = {
        "area": (area - scale[0]) / (scale[1] - scale[0]),
        "aspect": (aspect - np.log(ratio[0])) / np.log(ratio[1] / ratio[0]),
        "left": left / (width - w),
        "top": top / (height - h),
    }
    for name, part in parts.items():
        assert kstest(part, "uniform").pvalue > 0.01, name
    correlation = np.corrcoef(list(parts.values()))
    assert np.abs(correlation - np.eye(4)).max() < 0.06  # drawn apart


@pytest.mark.parametrize("size", [(28, 28), (28, 40), (41, 28)])
def test_center_crop_cuts_the_middle(size):
    for mode in ("L", "RGB"):
        image = noise_image(*size, mode)
        left, top = (size[0] - 28) // 2, (size[1] - 28) // 2
        middle = np.asarray(image)[top : top + 28, left : left + 28]
        np.testing.assert_array_equal(np.asarray(center_crop(image, 28)), middle)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(50, 50), (40, 20), (9, 9), (1, 31)])
def test_resizing_is_bilinear_and_antialiased(size, mode):
    """As torch's own, to a rounded grey level: smaller, larger, and of another aspect."""

    def resized(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(image).float()
        x = x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]
        y = F.interpolate(x, (16, 16), mode="bilinear", antialias=True)
        return y[0, 0].numpy() if image.ndim == 2 else y[0].permute(1, 2, 0).numpy()

    image = noise_image(*size, mode)
    wanted = resized(np.asarray(image).copy())
    whole = (size[0] / size[1],) * 2
    crop = random_resized_crop(image, 16, (1.0, 1.0), whole, False, seed=(0,))
    np.testing.assert_allclose(np.asarray(crop), wanted, atol=1.01)
    if size[0] == size[1]:
        np.testing.assert_allclose(np.asarray(center_crop(image, 16)), wanted, atol=1.01)


def test_random_crop_is_a_function_of_its_seed():
    image = noise_image(64, 64)

    def crop(*seed):
        return random_resized_crop(image, 16, (0.2, 1), (0.75, 1.33), True, seed).tobytes()

    assert crop(0, "a", 1) == crop(0, "a", 1)
    assert len({crop(0, "a", 1), crop(1, "a", 1), crop(0, "b", 1), crop(0, "a", 2)}) == 4


def test_flip_mirrors_half_of_the_crops():
    image = noise_image(16, 16, "L")
    straight, mirrored = image.tobytes(), np.asarray(image)[:, ::-1].tobytes()

    def crops(flip):
        whole = ((1.0, 1.0), (1.0, 1.0))
        return [random_resized_crop(image, 16, *whole, flip, (i,)).tobytes() for i in range(300)]

    flipped = crops(True)
    assert set(flipped) == {straight, mirrored}
    assert 110 < flipped.count(mirrored) < 190
    assert set(crops(False)) == {straight}
