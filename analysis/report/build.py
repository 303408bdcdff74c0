"""Everything that the analysis makes: tables, figures and the report."""

from dataclasses import replace
from pathlib import Path

from analysis.exhibits import figure5
from analysis.exhibits.base import Figure, Table
from analysis.exhibits.headline import headline
from analysis.exhibits.inputs.results import read_results
from analysis.report.contents import sections
from analysis.report.page import write_report
from analysis.report.provenance import write_sources
from pipeline.config.params import Params
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_json
from pipeline.runtime.records import OutOfDate, described

FOLDERS = ("tables", "timings", "sources", "figures")


def build(
    results_folder: Path, curves: Path, output: Path, params: Params, stale: OutOfDate | None = None
) -> list[Path]:
    """Make everything from the result files alone, and return the files written.

    Args:
        curves: folder with γ of each mask schedule as numbers.
        output: gets tables/ (CSV, Markdown, LaTeX), figures/, timings/ (tables that no second run
            repeats), sources/ (what each table was made from) and report.html. The few numbers that
            DVC shows go to metrics.json beside the results.
        stale: stages whose results are out of date: what shows them is left out, also what an
            earlier analysis made of them, and the report says so.

    Raises:
        UserError: a result file is missing or damaged, or all is out of date; nothing has been
            written then.
    """
    results = read_results(results_folder, curves)
    stale = stale or {}
    current = {stage: entry for stage, entry in results.sources.items() if stage not in stale}
    results = replace(results, sources=current)
    contents = sections(results, params, stale)
    exhibits = [exhibit for section in contents for exhibit in section.exhibits]
    if not exhibits:
        raise UserError(
            f"no result is of params.yaml as it is now: {described(stale)}; run `dvc repro`"
        )
    samples = figure5.samples(results, params) if "evaluate" not in stale else None
    written = []
    for table in (exhibit for exhibit in exhibits if isinstance(exhibit, Table)):
        written += table.write(output / ("timings" if table.timed else "tables"))
        written.append(write_sources(table, results, output / "sources"))
    figures = output / "figures"
    for drawing in [samples, *exhibits]:
        if isinstance(drawing, Figure):
            drawing.draw(figures / f"{drawing.name}.png", params.analysis.dpi)
            written.append(figures / f"{drawing.name}.png")
    _remove_others(output, written)
    metrics = results_folder / "metrics.json"
    write_json(metrics, headline(results, stale))
    report = output / "report.html"
    write_report(report, contents, samples, figures, results, params, stale)
    return [*written, metrics, report]


def _remove_others(output: Path, written: list[Path]) -> None:
    """Remove what an earlier analysis left and this one did not make: of other results."""
    for folder in FOLDERS:
        for path in (output / folder).glob("*"):
            if path.is_file() and path not in written:
                path.unlink()
