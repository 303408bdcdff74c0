"""Pixels as bytes and as numbers."""

import torch

from pipeline.data.images.pixels import as_float, as_uint8

EVERYTHING = torch.arange(256, dtype=torch.uint8)


def test_every_value_survives_the_way_there_and_back():
    numbers = as_float(EVERYTHING)
    assert numbers.dtype == torch.float32
    assert numbers.min() == 0 and numbers.max() == 1 and (numbers.diff() > 0).all()
    assert torch.equal(as_uint8(numbers), EVERYTHING)


def test_numbers_are_rounded_and_clipped():
    """A plain cast would truncate, and wrap around."""
    values = torch.tensor([0.0, 0.499 / 255, 0.501 / 255, 1.0, 254.6 / 255, -0.2, 1.3])
    assert as_uint8(values).tolist() == [0, 0, 1, 255, 255, 0, 255]


def test_a_little_less_or_more_than_a_value_is_that_value():
    for error in (-0.4 / 255, 0.4 / 255):
        assert torch.equal(as_uint8(as_float(EVERYTHING) + error), EVERYTHING)
