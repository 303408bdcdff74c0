"""Writes all exhibits (tables and figures), in the report's order, as files and as one page."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from analysis.exhibits import (
    designs,
    editing,
    oracle,
    quality,
    reconstruction,
    rejection,
    samples,
    schedules,
    speed,
    temperature,
)
from analysis.exhibits.base import Exhibit, Figure, Table
from analysis.exhibits.claims import Verdict, headlines, judge, scoreboard, warnings
from analysis.exhibits.headline import headline
from analysis.exhibits.results import FILES, Results, read_results
from analysis.report.page import Opening, Section, write_report
from pipeline.config.params import Params
from pipeline.config.paths import RESULTS
from pipeline.runtime import dag
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import (
    file_hash,
    publish_folder,
    remove_temporary,
    temporary_folder,
    write_json,
)
from pipeline.runtime.provenance import OutOfDate, described

FOLDERS = ("tables", "timings", "sources", "figures")
METRICS, REPORT = "metrics.json", "report.html"
NEW = "new"  # the folder in which all files are made before any is moved to its place


class Place(NamedTuple):
    """An entry of the report: an exhibit (a table or figure), and how to make it."""

    anchor: str  # HTML id of the exhibit in the report; claims refer to this id
    label: str  # name of the exhibit for readers
    make: Callable[[Results, Params], Exhibit]
    files: str  # the fields of `Results` that the exhibit is made from, separated by spaces


# Modules with claims, in the scoreboard's order; fields of `Results` that the scoreboard uses.
CLAIMS = (quality, speed, schedules, designs, oracle, rejection, editing, reconstruction)
SCOREBOARD = "rows cas sweep crossing designs oracle editing rejection reconstruction speed"
BEYOND = "Beyond the paper"  # left out if `sweep.designs` is empty
PLACES: dict[str, list[Place]] = {
    "Class-conditional generation": [
        Place("samples", "samples", samples.by_class, "class_grid"),
        Place("table1-table", "Table 1", quality.table1, "rows evaluation real cas"),
        Place("smoothing-table", "label smoothing", quality.smoothing, "rows evaluation real"),
        Place("figure5", "Figure 5", samples.comparison, "class_grid"),
        Place("figure2", "Figure 2", samples.iterations, "decoding"),
        Place("neighbours", "nearest training images", samples.neighbours, "neighbours evaluation"),
    ],
    "Speed": [
        Place("figure4", "Figure 4", speed.chart, "speed"),
        Place("speed-table", "Figure 4 in numbers", speed.table, "speed"),
    ],
    "Mask schedules and iterations": [
        Place("table3-table", "Table 3", schedules.table3, "sweep real"),
        Place("figure8", "Figure 8, right", schedules.quality, "sweep"),
        Place("schedules", "Figure 8, left", schedules.curves, "curves sweep"),
        Place("crossing-table", "schedules crossed", schedules.crossing, "crossing real"),
        Place("sweep-table", "every schedule at every T", schedules.grid, "sweep real"),
    ],
    "Decoding without a network": [
        Place("oracle", "Figure 8 without a network", oracle.chart, "oracle"),
        Place("oracle-table", "Figure 8 without a network, in numbers", oracle.table, "oracle"),
    ],
    BEYOND: [
        Place("designs", "designs", designs.chart, "designs sweep"),
        Place("designs-table", "designs in numbers", designs.table, "designs sweep"),
    ],
    "Choice temperature": [
        Place("temperature", "choice temperature", temperature.chart, "temperature"),
        Place("temperature-table", "temperature in numbers", temperature.table, "temperature real"),
    ],
    "Diversity": [Place("table5-table", "Table 5", quality.table5, "rows cas")],
    "Rejection sampling": [Place("table4-table", "Table 4", rejection.table, "rejection real")],
    "Editing": [
        Place("table2-table", "Table 2", editing.table, "editing"),
        Place("inpainting", "inpainting", editing.inpainting, "edits"),
        Place("figure6", "Figure 6", editing.class_edit, "edits"),
        Place("figure7", "Figure 7", editing.outpainting, "edits"),
        Place("panorama", "panorama", editing.panorama, "edits"),
    ],
    "Reconstruction": [
        Place("figure10", "Figure 10", reconstruction.chart, "reconstruction"),
        Place("figure9", "Figure 9", reconstruction.pictures, "rebuilt"),
        Place(
            "reconstruction-table", "Figure 10 in numbers", reconstruction.table, "reconstruction"
        ),
    ],
}


def contents(
    results: Results, params: Params, stale: Collection[str] = ()
) -> tuple[Opening, list[Section]]:
    """The report's opening, and its sections: the scoreboard of claims, then tables and figures.
    Exhibits and claims from the results of `stale` stages, which are out of date, are left out."""
    places = [place for each in PLACES.values() for place in each]
    made = dag.makers()
    out = {p.anchor for p in places if any(_maker(name, made) in stale for name in p.files.split())}
    verdicts = judged(results, params, out)

    def exhibit(place: Place) -> Exhibit:
        found = place.make(results, params)
        claimed = [each.sentence for each in verdicts if each.claim.exhibit == place.anchor]
        return replace(found, here=claimed + found.here, files=place.files.split())

    warned = warnings(results, params, out)
    board = [replace(scoreboard(verdicts, warned), files=SCOREBOARD.split())] if verdicts else []
    subjects = [
        Section(
            title,
            [exhibit(place) for place in each if place.anchor not in out],
            [place.label for place in each if place.anchor in out],
        )
        for title, each in PLACES.items()
        if title != BEYOND or len(results.designs)
    ]
    opening = Opening(
        warned,
        headlines(verdicts),
        None if "samples" in out else samples.opening(results, params),
        next((e for s in subjects for e in s.exhibits if e.name == "figure8"), None),
    )
    return opening, [Section("In short", board, []), *subjects]


def judged(results: Results, params: Params, left_out: Collection[str] = ()) -> list[Verdict]:
    """The verdicts on all claims, in the order of the scoreboard."""
    claims = [claim for module in CLAIMS for claim in module.claims(results, params)]
    return judge(claims, results, params, left_out)


def _maker(name: str, made: Mapping[str, str]) -> str:
    """The stage that makes the field `name` of `Results`. `made` maps each file to its stage."""
    return made[os.path.normpath(RESULTS / FILES[name])]


def build(
    results_folder: Path, output: Path, params: Params, stale: OutOfDate | None = None
) -> list[Path]:
    """Make all tables, figures and the report from result files, without the results of `stale`
    stages, which are out of date; return paths of written files.

    The folder `output` gets tables/ (CSV, Markdown, LaTeX), figures/, timings/ (tables of timings),
    sources/ (the files and runs behind each table) and report.html. Existing folders are replaced.
    The headline numbers are written to metrics.json beside the results. If a file is missing or
    damaged, or all results are out of date, raises a `UserError` and writes no file.
    """
    results, stale = read_results(results_folder), stale or {}
    results = replace(results, sources={s: r for s, r in results.sources.items() if s not in stale})
    opening, sections = contents(results, params, stale)
    exhibits = [exhibit for section in sections for exhibit in section.exhibits]
    if not exhibits:
        raise UserError("results", f"all are out of date: {described(stale)}", "run `dvc repro`")
    remove_temporary(output, NEW)
    with temporary_folder(output / NEW) as made:
        for folder in FOLDERS:
            (made / folder).mkdir()
        for exhibit in exhibits:
            if isinstance(exhibit, Figure):
                exhibit.draw(made / f"figures/{exhibit.name}.png")
            elif isinstance(exhibit, Table):
                exhibit.write(made / ("timings" if exhibit.timed else "tables"))
                _write_sources(exhibit, results, made / "sources")
        write_report(made / REPORT, opening, sections, made / "figures", results, params, stale)
        numbers = headline(results, stale)
        # All files are made. A failure before this line leaves an earlier analysis unchanged.
        for folder in FOLDERS:
            publish_folder(made / folder, output / folder)
        os.replace(made / REPORT, output / REPORT)
        write_json(results_folder / METRICS, numbers)
    written = [path for folder in FOLDERS for path in sorted((output / folder).iterdir())]
    return [*written, results_folder / METRICS, output / REPORT]


def _write_sources(table: Table, results: Results, folder: Path) -> None:
    """Write `<table>.sources.json`: the SHA-256 of each result file behind the table, and the run,
    commit and machine of each stage behind the table (null if not recorded)."""
    made, files = dag.makers(), [FILES[name] for name in table.files]
    stages = {s for name in table.files for s in dag.stages_up_to(_maker(name, made))}
    hashes = {name: file_hash(results.folder / name) for name in files}
    records = {stage: results.sources.get(stage) for stage in stages}
    write_json(folder / f"{table.name}.sources.json", {"files": hashes, "stages": records})
