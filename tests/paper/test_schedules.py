"""Mask schedules against closed forms and the authors' numbers, and as published curves."""

import csv
import math

import numpy as np
import pytest
import torch

from pipeline.schedules import SCHEDULES, curve_csv, mask_ratio
from tests.release import expected

CLOSED_FORMS = {
    "exponential": lambda r, n: 1 - 2 ** (-math.log2(n) * (1 - r)),
    "cubic": lambda r, n: 1 - r**3,
    "square": lambda r, n: 1 - r**2,
    "cosine": lambda r, n: math.cos(math.pi * r / 2),
    "arccos": lambda r, n: 2 / math.pi * math.acos(r),
    "linear": lambda r, n: 1 - r,
    "square_root": lambda r, n: 1 - math.sqrt(r),
    "logarithmic": lambda r, n: math.inf if r == 0 else -math.log2(r) / math.log2(n),
}
RELEASE_NAMES = {
    "linear": "uniform",
    "cosine": "cosine",
    "square": "pow2",
    "cubic": "pow3",
    "square_root": "pow0.5",
    "logarithmic": "log",
    "exponential": "exp",
}


def gamma(schedule: str, r: float, n: int) -> float:
    return min(max(CLOSED_FORMS[schedule](r, n), 1e-6), 1.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("tokens", [2, 49, 256, 1024])
def test_closed_form_and_monotone(schedule, tokens):
    r = np.linspace(0, 1, 101)
    ratio = mask_ratio(schedule, torch.from_numpy(r), tokens).numpy()
    reference = [gamma(schedule, float(x), tokens) for x in r]
    np.testing.assert_allclose(ratio, reference, atol=1e-9, rtol=0)
    assert (np.diff(ratio) <= 0).all()
    assert ratio[-1] == pytest.approx(1e-6)


@pytest.mark.parametrize(("schedule", "released"), RELEASE_NAMES.items())
def test_schedule_matches_the_release(schedule, released):
    arrays = expected()
    ratio = mask_ratio(schedule, torch.from_numpy(arrays["ratio"]), 256).numpy()
    np.testing.assert_allclose(ratio, arrays[f"schedule_{released}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_curve_is_the_schedule_to_the_last_digit(schedule):
    """Two formulas of the same curve may round differently, which changes ⌊N·γ⌋ and the samples."""
    names, *rows = csv.reader(curve_csv(schedule, 49).splitlines())
    values = zip(*(map(float, row) for row in rows), strict=True)
    columns = dict(zip(names, map(list, values), strict=True))
    assert {"gamma_49", "gamma_256", "gamma_1024"} < set(columns)
    r = torch.tensor(columns.pop("r"), dtype=torch.float64)
    assert (r[0], r[-1]) == (0, 1) and (r.diff() > 0).all()
    for name, found in columns.items():
        assert found == mask_ratio(schedule, r, int(name.removeprefix("gamma_"))).tolist()
    # A run's key holds the schedule's curve, not its name.
    assert all(curve_csv(schedule, 49) != curve_csv(k, 49) for k in SCHEDULES if k != schedule)
