"""Make every table and figure, and the report: `python -m analysis`, from the root."""

import gc
import sys
from pathlib import Path

from analysis.exhibits import figure5
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.inputs.results import read_results
from analysis.report.contents import sections
from analysis.report.page import write_report
from analysis.report.provenance import write_sources
from pipeline.config.params import Params, load_params
from pipeline.config.paths import CURVES, RESULTS
from pipeline.runtime.errors import UserError


def build(results_folder: Path, curves: Path, output: Path, params: Params) -> list[Path]:
    """Make everything from the result files alone, and return the files written.

    Args:
        curves: folder with γ of each mask schedule as numbers.
        output: gets tables/ (CSV, Markdown, LaTeX), figures/, timings/ (tables that no second run
            repeats), sources/ (what each table was made from) and report.html.

    Raises:
        UserError: a result file is missing or damaged; nothing has been written then.
    """
    results = read_results(results_folder, curves)
    contents = sections(results, params)
    samples = figure5.samples(results, params)
    exhibits = [exhibit for section in contents for exhibit in section.exhibits]
    written = []
    for table in (exhibit for exhibit in exhibits if isinstance(exhibit, Table)):
        written += table.write(output / ("timings" if table.timed else "tables"))
        written.append(write_sources(table, results, output / "sources"))
    figures = output / "figures"
    for drawing in [samples, *(exhibit for exhibit in exhibits if isinstance(exhibit, Figure))]:
        drawing.draw(figures / f"{drawing.name}.png", params.analysis.dpi)
        written.append(figures / f"{drawing.name}.png")
    report = output / "report.html"
    write_report(report, contents, samples, figures, results, params)
    return [*written, report]


def main() -> int:
    try:
        written = build(RESULTS, CURVES, Path("analysis"), load_params())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {len(written)} files from results/; open {written[-1]}")
    for path in written:
        print(f"  {path}")
    gc.freeze()  # or the interpreter looks through all of the libraries again to end
    return 0


if __name__ == "__main__":
    sys.exit(main())
