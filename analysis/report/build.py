"""Everything that the analysis makes: tables, figures and the report."""

import shutil
from dataclasses import replace
from pathlib import Path

from analysis.exhibits import figure5
from analysis.exhibits.base import Exhibit, Figure, Table
from analysis.exhibits.headline import headline
from analysis.exhibits.inputs.results import Results, read_results
from analysis.report.contents import sections
from analysis.report.page import write_report
from analysis.report.provenance import write_sources
from pipeline.config.params import Params
from pipeline.runtime.errors import UserError, printable
from pipeline.runtime.files import atomic_file, remove_temporary, temporary_folder, write_json
from pipeline.runtime.provenance import OutOfDate, described

FOLDERS = ("tables", "timings", "sources", "figures")
METRICS, REPORT = "metrics.json", "report.html"
NEW = "new"  # the folder in which all is made before any of it is in its place


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
        UserError: a result file is missing or damaged, all is out of date, or a folder of the
            output is a link; nothing has been written then.
    """
    for folder in (output / name for name in FOLDERS):
        if folder.is_symlink():
            raise UserError(
                f"{folder} is a link, and what lies in that folder is made anew; delete the link, "
                f"and copy files from there"
            )
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
    remove_temporary(output, NEW)
    with temporary_folder(output / NEW) as made:
        paths = _make(made, exhibits, samples, results, params.analysis.dpi)
        write_json(made / METRICS, headline(results, stale))
        write_report(made / REPORT, contents, samples, made / "figures", results, params, stale)
        # All is there: whatever failed until here has left what an earlier analysis made.
        written = [_publish(path, output / path.relative_to(made)) for path in paths]
        _remove_others(output, written)
        written.append(_publish(made / METRICS, results_folder / METRICS))
        written.append(_publish(made / REPORT, output / REPORT))
    return written


def _make(
    folder: Path, exhibits: list[Exhibit], samples: Figure | None, results: Results, dpi: int
) -> list[Path]:
    """Write the tables, with what each was made from, and the figures; their paths."""
    made = []
    for table in (exhibit for exhibit in exhibits if isinstance(exhibit, Table)):
        made += table.write(folder / ("timings" if table.timed else "tables"))
        made.append(write_sources(table, results, folder / "sources"))
    for drawing in [samples, *exhibits]:
        if isinstance(drawing, Figure):
            drawing.draw(folder / f"figures/{drawing.name}.png", dpi)
            made.append(folder / f"figures/{drawing.name}.png")
    return made


def _publish(made: Path, target: Path) -> Path:
    """Put a finished file in its place."""
    with atomic_file(target) as temporary:
        shutil.move(made, temporary)  # results/ may lie on another disk
    return target


def _remove_others(output: Path, written: list[Path]) -> None:
    """Remove what an earlier analysis left and this one did not make: of other results."""
    files = [path for folder in FOLDERS for path in (output / folder).glob("*") if path.is_file()]
    others = sorted(set(files) - set(written))
    for path in others:
        path.unlink()
    if others:
        names = printable(", ".join(path.name for path in others))
        print(f"removed, as of no result as it is now: {names[:200]}", flush=True)
