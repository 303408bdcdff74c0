"""Pixels as bytes and as numbers."""

import torch

from pipeline.data.images.pixels import as_float, as_uint8


def test_pixels_become_numbers_and_come_back_rounded_and_clipped():
    """A plain cast would truncate, and wrap around."""
    every = torch.arange(256, dtype=torch.uint8)
    numbers = as_float(every)
    assert numbers.dtype == torch.float32 and (numbers.diff() > 0).all()
    assert numbers.min() == 0 and numbers.max() == 1
    for error in (-0.4 / 255, 0.0, 0.4 / 255):
        assert torch.equal(as_uint8(numbers + error), every)
    assert as_uint8(torch.tensor([-0.2, 1.3])).tolist() == [0, 255]
