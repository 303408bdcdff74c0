"""The sets of images that are measured (Tables 1 and 5): both networks', decoded and real ones."""

import pandas as pd

from analysis.exhibits import intervals
from analysis.exhibits.comparisons.networks import trained_with
from analysis.exhibits.inputs.metrics import MODELS, NETWORKS
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import over_seeds
from pipeline.config.params import Params


def sets_of(results: Results, params: Params, metrics: list[str]) -> pd.DataFrame:
    """Every set in a row: means over the trainings of a network, of others the one set's values.

    Returns:
        Columns model, over (what the intervals are over: "3 training seeds", or "images" where
        there is one set), seeds, and of every metric those of `over_seeds`.
    """
    rows = results.rows.reindex(columns=results.rows.columns.union(metrics, sort=False))
    main = rows.loc[trained_with(results, params.training.label_smoothing).index]
    parts = []
    for name, model in MODELS.items():
        own = main[main["images"] == name] if name in NETWORKS else rows[rows["images"] == name]
        if own["seed"].nunique() > 1:
            part = over_seeds(own, ["images"], metrics).drop(columns="images")
        else:
            part = intervals.of_one_set(own.head(1), metrics, params.evaluation.halves)
            part.insert(0, "seeds", own["seed"].nunique())
        part.insert(0, "over", intervals.seeds_of(part["seeds"], params) or "images")
        part.insert(0, "model", model)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
