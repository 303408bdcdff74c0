"""Centre crops and random resized crops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.crops import center_crop, crop_box, random_resized_crop
from tests.images import noise_image


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(sorted),
    seed=st.integers(0, 2**32),
)
def test_crop_box_lies_in_the_image(width, height, scale, ratio, seed):
    box = crop_box(width, height, scale, ratio, np.random.default_rng(seed))
    left, top, right, bottom = box
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert all(isinstance(x, int) for x in box)


def test_crop_box_has_the_area_and_aspect_asked_for():
    scale, ratio = (0.1, 0.7), (3 / 4, 4 / 3)
    areas, aspects, corners = [], [], set()
    for seed in range(500):
        left, top, right, bottom = crop_box(300, 200, scale, ratio, np.random.default_rng(seed))
        w, h = right - left, bottom - top
        slack = 0.5 / w + 0.5 / h + 1e-3  # sides are rounded to pixels
        area, aspect = w * h / (300 * 200), w / h
        assert scale[0] * (1 - slack) <= area <= scale[1] * (1 + slack)
        assert ratio[0] * (1 - slack) <= aspect <= ratio[1] * (1 + slack)
        areas.append(area)
        aspects.append(np.log(aspect))
        corners.add((left, top))
    # The whole range is used, evenly: area uniform (but for boxes that stuck out), aspect in log.
    assert min(areas) < 0.13 and max(areas) > 0.6 and abs(np.mean(aspects)) < 0.05
    assert len(corners) > 400


def test_crop_box_that_cannot_fit_is_the_centre():
    box = crop_box(10, 100, (1.0, 1.0), (1.0, 1.0), np.random.default_rng(0))
    assert box == (0, 45, 10, 55)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_center_crop_at_the_same_size_is_the_identity(mode):
    image = noise_image(28, 28, mode)
    assert center_crop(image, 28).tobytes() == image.tobytes()


@pytest.mark.parametrize("size", [(28, 40), (41, 28)])
def test_center_crop_cuts_the_middle(size):
    image = noise_image(*size)
    left, top = (size[0] - 28) // 2, (size[1] - 28) // 2
    middle = np.asarray(image)[top : top + 28, left : left + 28]
    np.testing.assert_array_equal(np.asarray(center_crop(image, 28)), middle)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 7)])
def test_crops_of_odd_sizes_are_squares(size):
    image = noise_image(*size)
    assert center_crop(image, 16).size == (16, 16)
    crop = random_resized_crop(image, 16, (0.1, 1), (0.5, 2), True, seed=(0,))
    assert crop.size == (16, 16)


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
