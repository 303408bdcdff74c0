"""Masks, their tokens, their feather and what fills them, against brute force and SciPy."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.editing import (
    box_mask,
    center_mask,
    feather_weight,
    fill_unknown,
    outpaint_mask,
    pixel_mask_to_tokens,
)
from pipeline.runtime.errors import UserError
from tests.editing_inputs import F_PIXELS, distance, masks, random_images


def test_masks_of_table_2():
    center, right = center_mask((8, 12), 0.5), outpaint_mask((8, 12), "right", 0.5)
    rows, columns = center.nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([2, 3, 4, 5], [3, 4, 5, 6, 7, 8])
    assert center.sum() == 4 * 6
    assert right[:, 6:].all() and not right[:, :6].any()


def test_outpaint_masks_are_flips_and_turns_of_one_another():
    left = outpaint_mask((6, 8), "left", 0.25)
    assert left[:, :2].all() and not left[:, 2:].any()
    assert torch.equal(outpaint_mask((6, 8), "right", 0.25), left.flip(1))
    top = outpaint_mask((8, 6), "top", 0.25)
    assert torch.equal(top, left.T)
    assert torch.equal(outpaint_mask((8, 6), "bottom", 0.25), top.flip(0))


@pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, 0, 3, 9), (6, 0, 3, 3), (0, 0, 0, 3)])
def test_box_outside_of_the_image_names_itself(box):
    with pytest.raises(UserError, match="not inside an image of 8×8 pixels") as raised:
        box_mask((8, 8), *box)
    assert "\n" not in str(raised.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5).flatmap(lambda g: st.tuples(st.just(g), masks(g, 2))), st.integers(0, 2))
def test_pixel_mask_to_tokens_matches_loops(grid_and_mask, dilate):
    grid, mask = grid_and_mask
    expected = torch.zeros(len(mask), grid, grid, dtype=torch.bool)
    for b, y, x in mask.nonzero().tolist():
        for row in range(grid):
            for column in range(grid):
                near = max(abs(row - y // F_PIXELS), abs(column - x // F_PIXELS)) <= dilate
                expected[b, row, column] |= near
    assert torch.equal(pixel_mask_to_tokens(mask, grid, dilate), expected)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
@pytest.mark.parametrize("grid", [2, 3, 4, 5, 7, 8, 13, 16])
def test_params_refuse_a_dilation_that_leaves_nothing_known(make_params, levels, grid):
    size = grid * 2 ** (levels - 1)
    shape = {"data": {"image_size": size}, "tokenizer": {"multipliers": [1] * levels}}
    shape |= {key: {"iterations": 1} for key in ("decoding", "reconstruction")}
    shape["sweep"] = {"iterations": [1]}
    for dilate in range(1, grid):
        editing = {"iterations": 1, "dilate": dilate, "feather": 0}
        mask = center_mask((size, size), 0.5)[None]
        if pixel_mask_to_tokens(mask, grid, dilate).all():
            with pytest.raises(UserError, match=r"editing\.dilate: \d+ leaves no known token"):
                make_params(**shape, editing=editing)
        else:
            assert make_params(**shape, editing=editing).editing.dilate == dilate


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(64, 32, 128, 144), (0, 240, 256, 16)]
)
def test_tokens_of_an_aligned_box_match_the_release(top, left, height, width):
    """The release's bounds of the latent mask, for 256 pixels."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    rows = slice(max(0, top // 16 - 1), min(16, height // 16 + top // 16 + 1))
    columns = slice(max(0, left // 16 - 1), min(16, left // 16 + width // 16 + 1))
    mask[rows, columns] = True
    box = box_mask((256, 256), top, left, height, width)
    assert torch.equal(pixel_mask_to_tokens(box[None], 16)[0], mask)


@settings(max_examples=60, deadline=None)
@given(masks(8), st.integers(0, 9))
@example(box_mask((16, 16), 5, 0, 4, 3)[None], 9)
def test_feather_matches_scipy(mask, feather):
    radius = feather - feather // 2
    reach = 2 * (feather // 2) + 1
    grown = ndimage.grey_dilation(mask[0].numpy().astype(float), (reach, reach), mode="nearest")
    expected = ndimage.gaussian_filter(grown, max(radius / 2, 1), mode="nearest", radius=radius)
    expected[mask[0]] = 1
    weight = feather_weight(mask, feather)[0]
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    away = distance(mask[0])
    assert (weight[away == 0] == 1).all() and (weight[away > feather] == 0).all()
    assert ((weight > 0) == (away <= feather)).all() and weight.max() <= 1


def test_feather_falls_with_the_distance():
    weight = feather_weight(box_mask((64, 64), 0, 0, 64, 20)[None], 16)[0]
    assert torch.equal(weight, weight[:1].expand(64, -1))
    ramp = weight[0, 19:37]
    assert ramp[0] == 1 and ramp[-1] == 0 and (ramp.diff() <= 0).all()
    assert ramp[8] > 0.5 > ramp[9]  # half-way


@pytest.mark.parametrize("feather", range(1, 10))
def test_every_known_pixel_within_the_feather_is_blended(feather):
    """It is neither the generated image's alone nor its own, nearest to the mask the least."""
    ramp = feather_weight(outpaint_mask((40, 40), "left", 0.5)[None], feather)[0, 20]
    assert (ramp[:20] == 1).all() and (ramp[20 + feather :] == 0).all()
    blended = ramp[19 : 21 + feather]
    assert (blended.diff() < 0).all()


@settings(max_examples=30, deadline=None)
@given(masks(3, 2), st.integers(0, 1000))
def test_unknown_pixels_take_a_nearest_known_value(mask, seed):
    images = random_images(seed, 2, 3, 6, 6)
    filled = fill_unknown(images, mask)
    for b in range(2):
        known = (~mask[b]).nonzero()
        for y in range(6):
            for x in range(6):
                if len(known) == 0:
                    assert (filled[b, :, y, x] == 0).all()
                    continue
                squared = (known - torch.tensor([y, x])).pow(2).sum(dim=1)
                nearest = known[squared == squared.min()]
                candidates = images[b][:, nearest[:, 0], nearest[:, 1]]  # (C, ties)
                assert (candidates == filled[b, :, y, x, None]).all(dim=0).any()
