"""Claims of the paper's sections 4.2 and 4.3: MaskGIT against its baseline VQGAN∗."""

from functools import partial

import pandas as pd

from analysis.exhibits.comparisons.claim import TIMINGS, Claim, Part, Setup, versus
from analysis.exhibits.comparisons.inference import separation, welch
from analysis.exhibits.comparisons.seeds import by_seed
from analysis.exhibits.inputs.metrics import LOWER_IS_BETTER, MODELS, NETWORKS, metric_label
from analysis.exhibits.inputs.results import Results
from pipeline.runtime.tables import has_param

# Of fewer no order is rarer than one in twenty: all of 3 are below 3 others in 1 of 10, two-sided.
FEWEST_TIMINGS = 4


def trained_with(results: Results, smoothing: float) -> pd.DataFrame:
    """The rows of both networks that were trained with a label smoothing, one a seed."""
    rows = results.rows
    return rows[rows["images"].isin(NETWORKS) & has_param(rows["label_smoothing"], smoothing)]


def other_smoothings(results: Results, main: float) -> list[float]:
    """The label smoothings besides the main one that the networks were trained with."""
    column = results.rows["label_smoothing"].dropna()
    return sorted(set(column[~has_param(column, main)]))


def claims(results: Results, setup: Setup) -> list[Claim]:
    """Quality, diversity and speed."""
    main = trained_with(results, setup.label_smoothing)
    second = results.manifold_extractors[1]
    table1 = {"source": "4.2, Table 1", "exhibit": "table1-table", "shown_in": "Table 1"}
    found = [
        *_quality(main, results, **table1),
        _scores(results, "randaugment", "with RandAugment", "Table 1"),
        _scores(results, "none", "without RandAugment", "Table 5"),
    ]
    if second != "random":  # whose features hold the decoder's texture and little else
        table5 = {"source": "B, Table 5", "exhibit": "table5-table", "shown_in": "Table 5"}
        found.append(_better(main, f"recall_{second}", second, **table5))
    for smoothing in other_smoothings(results, setup.label_smoothing):
        rows = trained_with(results, smoothing)
        where = {"source": "", "exhibit": "smoothing-table", "shown_in": "Label smoothing"}
        found += _quality(rows, results, f" with label smoothing {smoothing:g}", **where)
    return [*found, *_faster(results.speed, setup.tokens)]


def _quality(rows: pd.DataFrame, results: Results, note: str = "", **where: str) -> list[Claim]:
    """MaskGIT against VQGAN∗ by the metrics of Table 1, as trained with one label smoothing."""
    x, (y, _) = results.extractor, results.manifold_extractors
    kinds = {"fid": x, "is": x, "recall": y, "precision": y}
    return [_better(rows, f"{kind}_{z}", z, note, **where) for kind, z in kinds.items()]


def _better(rows: pd.DataFrame, metric: str, extractor: str, note: str = "", **where: str) -> Claim:
    """MaskGIT against VQGAN∗ by one metric, as independent trainings. A seed gives both the same
    first weights and the same batches, but what they learn of them is another task: there is no
    reason that their scores should rise and fall together, as those of two schedules do."""
    label = metric_label(metric, extractor)
    ours, theirs = (by_seed(rows[rows["images"] == name], metric) for name in NETWORKS)
    kind = metric.removesuffix(f"_{extractor}")
    return Claim(
        said=f"MaskGIT outperforms VQGAN∗ by {label}{note}",
        measure=f"{label}{note}",
        sign=-1 if kind in LOWER_IS_BETTER else 1,
        parts=_networks(ours, theirs),
        source=where["source"],
        exhibit=where["exhibit"],
        shown_in=where["shown_in"],
    )


def _networks(ours: pd.Series, theirs: pd.Series) -> list[Part]:
    if ours.empty or theirs.empty:
        return []
    effect = welch(ours.to_numpy(), theirs.to_numpy())
    first, second = (MODELS[name] for name in NETWORKS)
    return [versus(first, second, effect, (ours.mean(), theirs.mean()))]


def _scores(results: Results, augmentation: str, how: str, table: str) -> Claim:
    """The classifiers' top-1 accuracy."""
    rows = results.cas[results.cas["augmentation"] == augmentation]
    ours, theirs = (by_seed(rows[rows["images"] == name], "top1") for name in NETWORKS)
    return Claim(
        said=f"MaskGIT outperforms VQGAN∗ by CAS {how}",
        source=f"{'4.2' if table == 'Table 1' else 'B'}, {table}",
        exhibit=f"{table.replace(' ', '').lower()}-table",
        shown_in=table,
        measure=f"CAS top-1 {how}",
        sign=1,
        parts=_networks(ours, theirs),
    )


def _faster(rows: pd.DataFrame, tokens: int) -> list[Claim]:
    """MaskGIT against the baseline at every batch size that was timed. The paper says nothing of a
    key-value cache, so that what it claims is of a baseline without one."""
    sizes = set(rows["tokens"])
    tokens = tokens if tokens in sizes else max(sizes)
    timed = rows[rows["tokens"] == tokens]
    claim = partial(
        Claim,
        exhibit="figure4",
        shown_in="Figure 4",
        measure=f"seconds an image of {tokens} tokens",
        sign=-1,
        noise=TIMINGS,
        fewest=FEWEST_TIMINGS,
    )
    return [
        claim(
            said="MaskGIT decodes faster than autoregressively",
            source="4.2, Figure 4",
            parts=_timed(timed, "ar_uncached", "without a cache"),
            whole="**MaskGIT is faster than VQGAN∗** without a cache",
        ),
        claim(
            said="MaskGIT decodes faster than autoregressively even with a key-value cache",
            source="",
            parts=_timed(timed, "ar_cached", "with a cache"),
            whole="**MaskGIT is faster than VQGAN∗** even with a cache",
        ),
    ]


def _timed(rows: pd.DataFrame, baseline: str, how: str) -> list[Part]:
    """MaskGIT against a baseline, one part for each batch size."""
    known = rows.set_index(["method", "batch_size"]).to_dict("index")
    parts = []
    for (method, batch), theirs in known.items():
        ours = known.get(("maskgit", batch))
        if method != baseline or ours is None:
            continue
        least = int(min(ours["repeats"], theirs["repeats"]))
        first, second = ((row["low"], row["high"]) for row in (ours, theirs))
        parts.append(
            versus(
                MODELS["transformer"],
                f"VQGAN∗ {how}",
                separation(first, second, least),
                (ours["seconds_per_image"], theirs["seconds_per_image"]),
                relation="**{}** is faster than {}",
                noise="repeated timings",
                where=f"batch {batch}, {how}",
            )
        )
    return parts
