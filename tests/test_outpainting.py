"""Outpainting beyond an image's sides, window by window."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.seeds import mix
from pipeline.editing import SIDES, edit, outpaint_beyond, outpaint_mask
from tests.editing_inputs import DECODING, F_PIXELS, models, random_images


@settings(max_examples=30, deadline=None)
@given(
    side=st.sampled_from(list(SIDES)),
    wider=st.integers(0, 5),
    pixels=st.integers(0, 23),
    overlap=st.integers(1, 9),
    feather=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_outpainting_beyond_keeps_the_image(side, wider, pixels, overlap, feather, seed):
    model, tokenizer = models(5)
    axis, before = SIDES[side]
    shape = [1, 3, 10, 10]
    shape[axis] += wider
    images, labels = random_images(seed, *shape), torch.tensor([1])
    how = {"side": side, "pixels": pixels, "overlap": overlap, "feather": feather, "seed": seed}
    wide = outpaint_beyond(model, tokenizer, images, labels, DECODING, dilate=1, **how)
    shape[axis] += pixels
    assert list(wide.shape) == shape and wide.dtype == torch.uint8
    original = wide.narrow(axis, pixels if before else 0, images.shape[axis])
    feather = feather if pixels else 0  # of pixels next to what was generated
    kept = feather if before else 0, images.shape[axis] - feather
    assert torch.equal(original.narrow(axis, *kept), images.narrow(axis, *kept))


@pytest.mark.parametrize("side", SIDES)
def test_outpainting_beyond_is_edits_of_windows_in_turn(side):
    model, tokenizer = models(5)
    axis, before = SIDES[side]
    images, labels = random_images(5, 2, 3, 10, 10), torch.tensor([0, 1])
    given, borders = (
        (model, tokenizer, images, labels, DECODING),
        {"dilate": 1, "feather": F_PIXELS},
    )
    one, two, three, again = (
        outpaint_beyond(*given, side=side, pixels=pixels, overlap=6, seed=9, **borders)
        for pixels in (4, 8, 10, 10)
    )
    assert torch.equal(three, again)
    # The first window: 6 known pixels from side to side, and 4 blank ones.
    blank = F.pad(images, [4 if name == side else 0 for name in SIDES])
    window = blank.narrow(axis, 0 if before else 4, 10)
    mask = outpaint_mask((10, 10), side, 0.4)
    draw = mix(9, "window", 0)
    edited = edit(model, tokenizer, window, mask, labels, DECODING, seed=draw, **borders)
    assert torch.equal(one.narrow(axis, 0 if before else 4, 10), edited.composite)
    # A longer extension goes on from a shorter one and changes it next to its edge only.
    for shorter, longer in ((one, two), (two, three)):
        extent = shorter.shape[axis]
        start = longer.shape[axis] - extent if before else 0
        part = longer.narrow(axis, start, extent)
        inner = (F_PIXELS if before else 0, extent - F_PIXELS)
        assert torch.equal(part.narrow(axis, *inner), shorter.narrow(axis, *inner))
        new = longer.narrow(axis, 0 if before else extent, longer.shape[axis] - extent)
        assert (new.flatten(2).amax(dim=-1) > 0).all()  # the window's blank at the start
