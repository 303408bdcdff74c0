"""Numbers by training seed, and choices that are not made on the seed that they are reported on."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER


def by_seed(rows: pd.DataFrame, metric: str) -> pd.Series:
    """A metric, indexed by seed; the mean where a seed has several rows; without missing values."""
    if metric not in rows:
        return pd.Series(dtype=float)
    values = rows[metric].set_axis(rows["seed"]).dropna()
    values = values[values.index.notna()]
    return values if values.index.is_unique else values.groupby(level="seed").mean()


def pairs(first: pd.Series, second: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The values of the seeds that both have, in the same order."""
    shared = first.index.intersection(second.index)
    return first[shared].to_numpy(), second[shared].to_numpy()


def nested_choice(
    rows: pd.DataFrame, option: str, metric: str, kind: str, among: Iterable[float] | None = None
) -> pd.DataFrame:
    """For each seed the row of the option that is best for the *next* seed, and for the last the
    first's.

    The best of several options, reported on the samples it was chosen by, is flattered by its luck.
    Here a seed's own value has no part in the choice. One seed chooses for one, and not all others
    for each: these would choose by each other's values, which then vary together, so that a t test
    of three seeds finds twice and of five three times as many false differences as it says
    (tests/test_claims_noise.py). With a single seed there is no other, and the option is chosen and
    reported on the same samples.

    Args:
        rows: one row per option and seed.
        option: column of what is chosen: iterations, choice_temperature.
        metric: column that decides; of equal ones the smallest option. `kind` says in which
            direction it is better.
        among: options to choose from; all that every seed has, if None.

    Returns:
        One row a seed, sorted by seed; none where no option was measured for all seeds.
    """
    values = rows.pivot(index=option, columns="seed", values=metric).dropna()
    if among is not None:
        values = values.loc[values.index.intersection(list(among))]
    if values.empty:
        return rows.head(0)
    table = values.to_numpy() * (1 if kind in LOWER_IS_BETTER else -1)
    best = np.roll(table.argmin(axis=0), -1)
    chosen = pd.Series(values.index.to_numpy()[best], index=values.columns)
    return rows[rows[option] == rows["seed"].map(chosen)].sort_values("seed")


def chosen_options(rows: pd.DataFrame, option: str) -> str:
    """What the seeds chose, in their order: "8" if it is one, else "8, 12, 8"."""
    values = [f"{value:g}" for value in rows.sort_values("seed")[option]]
    return values[0] if len(set(values)) == 1 else ", ".join(values)
