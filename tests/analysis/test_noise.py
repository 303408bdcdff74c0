"""Results of pure noise, in which no schedule, network, selection or edit is better than another:
what a report says of them."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.exhibits.claims import UNDECIDED
from analysis.exhibits.results import Results
from analysis.report.build import judged
from tests.analysis import synthetic

MEASURED = ("fid", "is", "nll", "precision", "recall", "top1")
REPORTS = 200
SHARED = 0.5  # std of what a seed adds to everything that is drawn with it


def of_seeds(seeds: int) -> dict[str, pd.DataFrame]:
    """Tables of the same form with so many seeds; rows without a seed stay as they are."""
    made = {
        "rows": synthetic.evaluation_rows(),
        "cas": synthetic.cas_rows(),
        "crossing": synthetic.crossing_rows(),
        "editing": synthetic.editing_rows(),
        "rejection": synthetic.rejection_rows(),
        "sweep": synthetic.sweep_rows(seeds=(0,)),
        "reconstruction": synthetic.reconstruction_rows(),
    }
    for name, rows in made.items():
        first = [rows[rows["seed"] == 0].assign(seed=seed) for seed in range(seeds)]
        made[name] = pd.concat([rows[rows["seed"].isna()], *first], ignore_index=True)
    return made


def noise(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """New numbers in the measured columns: the mean of all is 5, each seed is off by its own, each
    row by another. A row without a seed, as the floor is, has the mean."""
    known = rows["seed"].notna().to_numpy()
    places = rows["seed"].fillna(0).astype(int).to_numpy()
    changed = {}
    for name in rows:
        if name.split("_")[0] in MEASURED and not name.endswith("_std"):
            shared = SHARED * rng.standard_normal(places.max() + 1)[places]
            values = 5 + known * (shared + rng.standard_normal(len(rows)))
            changed[name] = np.where(rows[name].isna(), np.nan, values)
    return rows.assign(**changed)


def drawn(results: Results, made: dict[str, pd.DataFrame], rng: np.random.Generator) -> Results:
    tables = {name: noise(rows, rng) for name, rows in made.items()}
    rows = tables["reconstruction"]
    # PSNR falls by as much for each token, wherever.
    rows["psnr"] = 20 - 10 * rows["mask_ratio"] + 0.1 * rng.standard_normal(len(rows))
    speed = synthetic.speed_rows()
    times = 1 + 0.1 * rng.standard_normal((len(speed), int(speed["repeats"].iloc[0])))
    tables["speed"] = speed.assign(
        low=times.min(axis=1), high=times.max(axis=1), seconds_per_image=np.median(times, axis=1)
    )
    return replace(results, **tables)


@pytest.mark.soak
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_of_reports_of_noise_one_in_twenty_at_most_decides_anything(found, params, seeds):
    made = of_seeds(seeds)
    rng = np.random.default_rng(seeds)
    decided = 0
    for _ in range(REPORTS):
        verdicts = judged(drawn(found, made, rng), params)
        # All could be tested but what takes three seeds, so that nothing is open for want of a p.
        untested = [verdict for verdict in verdicts if math.isnan(verdict.p)]
        assert all(verdict.claim.fewest > seeds for verdict in untested)
        assert all("undecided" in v.sentence for v in verdicts if v.word == UNDECIDED)
        decided += any(verdict.word != UNDECIDED for verdict in verdicts)
    assert decided <= 0.05 * REPORTS
