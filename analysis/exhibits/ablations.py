"""Ablations that the paper does not have: label smoothing, and what a mask schedule does in
training and in decoding, which the paper always changes together."""

import pandas as pd

from analysis.exhibits import claims, intervals
from analysis.exhibits.base import Table
from analysis.exhibits.comparisons.networks import other_smoothings, trained_with
from analysis.exhibits.formatting import count, extent, number, printed
from analysis.exhibits.inputs.metrics import (
    LOWER_IS_BETTER,
    MODELS,
    NETWORKS,
    measure_note,
    metric_label,
    plain,
)
from analysis.exhibits.inputs.results import Results
from analysis.exhibits.statistics import over_seeds, real_images, schedule_order
from pipeline.config.params import Params


def smoothing(results: Results, params: Params) -> Table:
    """Both networks with every label smoothing that they were trained with."""
    x = results.extractor
    metrics = [*map(results.metric, ("fid", "is", "precision", "recall")), "class_accuracy"]
    main = params.training.label_smoothing
    values = [main, *other_smoothings(results, main)]
    parts = []
    for value in values:
        part = over_seeds(trained_with(results, value), ["images"], metrics)
        parts.append(part.assign(label_smoothing=value))
    cells = pd.concat(parts, ignore_index=True)
    rank = cells["images"].map(NETWORKS.index)
    cells = cells.iloc[rank.argsort(kind="stable")].reset_index(drop=True)
    cells["images"] = cells["images"].map(MODELS)
    samples = results.evaluation["transformer"]["samples"]
    real = real_images(results, samples, {"images": MODELS["real"]})
    cells = pd.concat([cells, real], ignore_index=True)
    over = intervals.seeds_of(cells["seeds"], params)
    readable = {
        "model": cells["images"],
        "label smoothing": printed(cells["label_smoothing"], 1),
    }
    for metric in metrics:
        label = intervals.counted_label(metric, x, pd.Series([samples]))
        heading = intervals.heading(label, over)
        readable[heading] = intervals.column(cells, metric, cells["seeds"].notna())
    return Table(
        name="smoothing",
        title="Label smoothing: both networks with the same one",
        cells=cells.rename(columns={"images": "model"}),
        readable=pd.DataFrame(readable),
        notes=[
            "A network trained with label smoothing learns a smoothed distribution; both draw "
            "tokens from it, the baseline each once, MaskGIT those again that it is least "
            "confident of. The paper trains both with 0.1; the other tables have "
            f"{main:g} for both. "
            f"{measure_note(params, x)}"
        ],
        here=claims.sentences(results, params, "smoothing-table"),
        files=["evaluation/rows.csv", "evaluation/metrics.json", "evaluation/real.csv"],
    )


def crossing(results: Results, params: Params) -> Table:
    """Models trained with one schedule and decoded with another; a row for each model."""
    rows, kind = results.crossing, params.analysis.best_by
    metrics = [results.metric("fid"), results.metric("is")]
    metric = results.metric(kind)
    cells = over_seeds(rows, ["schedule", "decoding_schedule"], metrics)
    label = metric_label(metric, results.extractor)
    over = intervals.seeds_of(cells["seeds"], params) if len(cells) else ""
    least = "lowest" if kind in LOWER_IS_BETTER else "highest"
    return Table(
        name="crossing",
        title=f"One schedule in training, another in decoding: {label}",
        cells=cells,
        readable=_square(cells, metric, over, least),
        notes=[
            f"{label} at T = {extent(rows['iterations'])}, {count(rows['samples'].min())} samples "
            f"a seed{_as_many(results, metric)}. The sweep's models, each decoded with every "
            f"schedule; the {least} means are no verdict. {measure_note(params, results.extractor)}"
            if len(cells)
            else "No schedules were crossed (sweep.crossed is empty)."
        ],
        paper="concave schedules are held to help twice: they train on harder cases, with more "
        "masked, and they decode from less to more; both are always changed together.",
        here=claims.sentences(results, params, "crossing-table"),
        files=["sweep/crossing.csv", "evaluation/real.csv"],
    )


def _as_many(results: Results, metric: str) -> str:
    """What as many real images have; empty where the validation images are too few."""
    real = real_images(results, results.crossing["samples"].min(), {})
    return "" if real.empty else f"; as many real images have {number(real[f'{metric}_mean'][0])}"


def _square(cells: pd.DataFrame, metric: str, over: str, least: str) -> pd.DataFrame:
    """A row for each schedule of training, a column for each of decoding, and the best of each."""
    names = schedule_order(cells["schedule"])
    decoded = schedule_order(cells["decoding_schedule"])
    text = cells.assign(text=intervals.column(cells, metric))
    text = text.pivot(index="schedule", columns="decoding_schedule", values="text")
    means = cells.pivot(index="schedule", columns="decoding_schedule", values=f"{metric}_mean")
    best = means.idxmin if least == "lowest" else means.idxmax
    headings = {name: intervals.heading(f"decoded: {plain(name)}", over) for name in decoded}
    table = {"trained": [plain(name) for name in names]}
    table |= {headings[name]: list(text.loc[names, name].fillna("–")) for name in decoded}
    table[f"{least} in the row"] = [plain(best(axis=1)[name]) for name in names]
    table["mean of the row"] = [number(means.loc[name].mean()) for name in names]
    if not names:
        return pd.DataFrame(table)
    last = {"trained": f"{least} in the column", "mean of the row": "–"}
    last |= {headings[name]: plain(best(axis=0)[name]) for name in decoded}
    last[f"{least} in the row"] = "–"
    return pd.concat([pd.DataFrame(table), pd.DataFrame([last])], ignore_index=True)
