"""Everything that the analysis makes: tables, figures and the report."""

from pathlib import Path

from analysis.exhibits import figure5
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.inputs.results import read_results
from analysis.report.contents import sections
from analysis.report.page import write_report
from analysis.report.provenance import write_sources
from pipeline.config.params import Params


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
