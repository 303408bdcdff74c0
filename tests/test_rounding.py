"""What coding and features owe to a device's arithmetic (docs/scaling.md)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.rounding import EXACT, ROUNDED, found, to_tf32


@given(value=st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False))
def test_tf32_has_ten_bits_and_is_the_nearest(value):
    (rounded,) = to_tf32(torch.tensor([value])).tolist()
    if not np.isfinite(rounded):  # past the largest number of ten bits
        assert abs(value) > 3.401e38
        return
    mantissa, exponent = np.frexp(value)
    scale = 2.0**11  # of mantissas in [1/2, 1): eleven bits, of which the first is not stored
    assert rounded == np.ldexp(np.round(mantissa * scale) / scale, exponent)  # ties to even


@pytest.mark.slow
def test_the_order_of_sums_moves_no_token_and_no_feature(finished):
    exact = found(EXACT, finished.folder)
    apart = {}
    for arithmetic in ROUNDED:
        one = found(arithmetic, finished.folder)
        tokens = (one.tokens != exact.tokens).double().mean().item()
        features = ((one.samples - exact.samples).norm() / exact.samples.norm()).item()
        apart[arithmetic.name] = tokens, features
    for name in ("float32", "float32, sums in another order"):
        tokens, features = apart[name]
        assert tokens < 1e-4 and features < 1e-5
    (_, tf32), (_, bfloat16) = apart["TF32"], apart["bfloat16"]
    assert 5e-5 < tf32 < bfloat16  # which the same measure tells apart
