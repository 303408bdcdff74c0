"""Regenerate every table and figure from the result files: `python -m analysis`, from the root."""

import sys
from pathlib import Path

from analysis.curves import draw_quality, draw_schedules
from analysis.pictures import draw_decoding, draw_samples
from analysis.results import read_arrays, read_metrics, read_sweep
from analysis.tables import write_evaluation_table, write_sweep_table, write_table3
from pipeline.errors import UserError


def build(results: Path, output: Path, dpi: int, best_by: str) -> list[Path]:
    """Read the results, write `output/tables` and `output/figures`, and return the files written.

    Args:
        dpi: resolution of the figures.
        best_by: metric that picks the best T of a schedule, "fid" or "is".

    Raises:
        UserError: a result file is missing or damaged; nothing has been written then.
    """
    sweep = read_sweep(results / "sweep/rows.csv")
    metrics_file = results / "evaluation/metrics.json"
    metrics = read_metrics(metrics_file)
    samples = read_arrays(results / "evaluation/class_grid.npz", "images", "class_names")
    decoding = read_arrays(results / "evaluation/decoding.npz", "images", "masked")

    tables, figures = output / "tables", output / "figures"
    written = write_evaluation_table(metrics, metrics_file, tables)
    written += write_table3(sweep, best_by, tables)
    written += write_sweep_table(sweep, tables)
    names = ("schedules", "figure8", "samples", "figure2")
    pictures = [figures / f"{name}.png" for name in names]
    draw_schedules(sweep, pictures[0], dpi)
    draw_quality(sweep, pictures[1], dpi)
    draw_samples(*samples, pictures[2], dpi)
    draw_decoding(*decoding, pictures[3], dpi)
    return written + pictures


def main() -> int:
    from pipeline.params import load_params  # imports torch, which `build` can do without

    try:
        settings = load_params().analysis
        written = build(Path("results"), Path("analysis"), settings.dpi, settings.best_by)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {len(written)} files from results/:")
    for path in written:
        print(f"  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
