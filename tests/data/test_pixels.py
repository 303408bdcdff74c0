"""Operations on pictures: conversions, crops, and work on many at once."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from pipeline.data.images import pixels
from pipeline.data.images.pixels import (
    as_float,
    as_uint8,
    center_crop,
    crop_box,
    in_threads,
    random_resized_crop,
)
from tests.images import noise_image


def test_pixels_become_numbers_and_come_back_rounded_and_clipped():
    """A plain cast would truncate values and wrap around."""
    every = torch.arange(256, dtype=torch.uint8)
    numbers = as_float(every)
    assert numbers.dtype == torch.float32 and (numbers.diff() > 0).all()
    assert numbers.min() == 0 and numbers.max() == 1
    for error in (-0.4 / 255, 0.0, 0.4 / 255):
        assert torch.equal(as_uint8(numbers + error), every)
    assert as_uint8(torch.tensor([-0.2, 1.3])).tolist() == [0, 255]


def cropping(scale, ratio, size: int = 16) -> SimpleNamespace:
    return SimpleNamespace(image_size=size, crop_scale=scale, crop_ratio=ratio, flip=False)


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
    assert crop_box(10, 100, cropping((1.0, 1.0), (1.0, 1.0)), rng) == (0, 45, 10, 55)  # none fits
    box = crop_box(width, height, cropping(scale, ratio), rng)
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert all(isinstance(x, int) for x in box)


def test_crop_box_has_the_area_aspect_and_place_asked_for():
    """Area, log aspect ratio and place (among those that fit) are uniform. The image is so large
    that rounding to pixels does not matter and every box fits."""
    width, height, scale, ratio = 30_000, 20_000, (0.1, 0.5), (3 / 4, 4 / 3)
    rng, data = np.random.default_rng(0), cropping(scale, ratio)
    boxes = np.array([crop_box(width, height, data, rng) for _ in range(3000)])
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
    """Agrees with torch to one grey level for smaller and larger images and other aspect ratios."""

    def resized(image: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(image).float()
        x = x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]
        y = F.interpolate(x, (16, 16), mode="bilinear", antialias=True)
        return y[0, 0].numpy() if image.ndim == 2 else y[0].permute(1, 2, 0).numpy()

    image = noise_image(*size, mode)
    wanted = resized(np.asarray(image).copy())
    whole = cropping((1.0, 1.0), (size[0] / size[1],) * 2)
    crop = random_resized_crop(image, whole, seed=(0,))
    np.testing.assert_allclose(np.asarray(crop), wanted, atol=1.01)
    if size[0] == size[1]:
        np.testing.assert_allclose(np.asarray(center_crop(image, 16)), wanted, atol=1.01)


@pytest.mark.parametrize("quick", [60.0, 0.0])  # in this thread alone, or in four
def test_results_come_in_the_order_of_the_items_and_errors_come_through(monkeypatch, quick):
    monkeypatch.setattr(pixels, "cores", lambda: 4)
    monkeypatch.setattr(pixels, "QUICK", quick)
    for count in (0, 1, 3, 4, 5, 97):
        assert in_threads(lambda x: x * x, iter(range(count))) == [x * x for x in range(count)]
    with ThreadPoolExecutor(8) as pool:  # several threads may ask at once
        sums = pool.map(lambda x: sum(in_threads(lambda y: x * y, range(10))), range(20))
        assert list(sums) == [45 * x for x in range(20)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda x: 1 / x, [2, 1, 0, 5])
