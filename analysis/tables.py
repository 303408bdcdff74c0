"""The tables: the paper's Table 3, the sweep's full grid, rank correlations, the evaluation."""

from pathlib import Path

import pandas as pd

from analysis import paper
from analysis.formatting import latex, markdown, number, spread
from analysis.results import Sweep, find_extractor, metric_kind, metric_label
from analysis.statistics import best_iterations, rank_correlation, summarize
from analysis.verdict import verdict
from pipeline.runtime.files import write_csv, write_text


def write_sweep_table(sweep: Sweep, folder: Path) -> list[Path]:
    """Write the full grid, mean and std over seeds per (schedule, T), as CSV and Markdown."""
    summary = summarize(sweep)
    text = markdown(_readable(summary, sweep, sweep.metrics))
    write_csv(folder / "sweep.csv", summary.to_dict("records"))
    write_text(folder / "sweep.md", f"# Sweep\n\n{text}\n\n{_sampling_note(summary)}\n")
    return [folder / "sweep.csv", folder / "sweep.md"]


def write_table3(sweep: Sweep, best_by: str, folder: Path) -> list[Path]:
    """Write Table 3 as CSV, Markdown and LaTeX, and the rank correlations with the paper's."""
    best = best_iterations(summarize(sweep), sweep, best_by)
    correlation = rank_correlation(best, sweep)
    chosen_by = metric_label(sweep.column(best_by), sweep.extractor)
    theirs = [paper.TABLE_3.get(name) for name in best["schedule"]]

    readable = _readable(best, sweep, sweep.table_metrics).drop(columns="seeds")
    readable["T (paper)"] = [str(row.iterations) if row else "–" for row in theirs]
    readable[paper.LABELS["fid"]] = [f"{row.fid:.2f}" if row else "–" for row in theirs]
    readable[paper.LABELS["is"]] = [f"{row.is_:.1f}" if row else "–" for row in theirs]
    readable[paper.LABELS["nll"]] = [f"{row.nll:.2f}" if row else "–" for row in theirs]

    numeric = best.copy()
    numeric["paper_iterations"] = [row and row.iterations for row in theirs]
    numeric["paper_fid_inception"] = [row and row.fid for row in theirs]
    numeric["paper_is_inception"] = [row and row.is_ for row in theirs]
    numeric["paper_nll"] = [row and row.nll for row in theirs]

    caption = f"Mask schedules, each at its best T by {chosen_by}, beside the paper's Table 3"
    text = [
        f"# {caption}",
        markdown(readable),
        _sampling_note(best),
        "Columns marked (paper …) are the paper's Table 3 on ImageNet 256×256: compare orderings, "
        "not values.",
        *verdict(best, sweep, best_by),
        "Agreement with the paper's ordering of the schedules (Spearman's ρ, exact two-sided p):",
        _correlation_text(correlation, sweep.extractor),
    ]
    paths = [folder / f"table3.{suffix}" for suffix in ("csv", "md", "tex")]
    paths.append(folder / "rank_correlation.csv")
    write_csv(paths[0], numeric.to_dict("records"))
    write_text(paths[1], "\n\n".join(text) + "\n")
    write_text(paths[2], latex(readable, f"{caption}. {_sampling_note(best)}"))
    write_csv(paths[3], correlation.to_dict("records"))
    return paths


def write_evaluation_table(metrics: dict[str, float], source: Path, folder: Path) -> list[Path]:
    """Write the main model's metrics beside the paper's Table 1, as CSV and Markdown."""
    extractor = find_extractor(metrics, source)
    numeric, readable = [], []
    for name in sorted(metrics):
        kind = metric_kind(name, extractor)
        theirs = paper.TABLE_1.get(kind, float("nan"))
        label = paper.LABELS[kind] if kind in paper.TABLE_1 else ""
        numeric.append(
            {"metric": name, "value": metrics[name], "paper_value": theirs, "paper_metric": label}
        )
        readable.append(
            {
                "metric": metric_label(name, extractor),
                "here": number(metrics[name]),
                "paper": f"{theirs:g}" if kind in paper.TABLE_1 else "–",
                "the paper's metric": label or "–",
            }
        )
    note = (
        "The paper's values are its Table 1, MaskGIT on ImageNet 256×256. Another data set and, "
        "unless the extractor is inception, other features: an orientation, not a target. "
        "Accuracies are fractions."
    )
    table = markdown(pd.DataFrame(readable))
    write_csv(folder / "evaluation.csv", numeric)
    write_text(folder / "evaluation.md", f"# Evaluation of the main model\n\n{table}\n\n{note}\n")
    return [folder / "evaluation.csv", folder / "evaluation.md"]


def _readable(cells: pd.DataFrame, sweep: Sweep, metrics: list[str]) -> pd.DataFrame:
    table = pd.DataFrame({"schedule": cells["schedule"].str.replace("_", " ")})
    table["T"] = cells["iterations"].astype(str)
    table["seeds"] = cells["seeds"].astype(str)
    for metric in metrics:
        pairs = zip(cells[f"{metric}_mean"], cells[f"{metric}_std"], strict=True)
        table[metric_label(metric, sweep.extractor)] = [spread(*pair) for pair in pairs]
    return table


def _sampling_note(cells: pd.DataFrame) -> str:
    """How many seeds and samples the numbers stand on."""
    seeds, samples = _extent(cells["seeds"]), _extent(cells["samples"])
    if seeds == "1":
        return f"One seed of {samples} samples: no spread can be given."
    return f"Mean ± sample standard deviation over {seeds} seeds of {samples} samples each."


def _extent(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _correlation_text(correlation: pd.DataFrame, extractor: str) -> str:
    table = pd.DataFrame(
        {
            "metric": [metric_label(name, extractor) for name in correlation["metric"]],
            "against": correlation["paper_metric"],
            "schedules": correlation["schedules"].astype(str),
            "ρ": [number(value) for value in correlation["spearman_rho"]],
            "p": [number(value) for value in correlation["p_value"]],
        }
    )
    undefined = correlation["spearman_rho"].isna().any()
    why = "\n\n– : not defined for fewer than three schedules, or if all have the same value."
    return markdown(table) + (why if undefined else "")
