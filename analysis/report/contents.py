"""What is shown, and in which order: the paper's exhibits by subject."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

from analysis.exhibits import (
    ablations,
    figure2,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
    figure9,
    figure10,
    scoreboard,
    table1,
    table2,
    table3,
    table4,
    table5,
    temperature,
)
from analysis.exhibits.base import Exhibit
from analysis.exhibits.claims import judge
from analysis.exhibits.inputs.results import Results
from pipeline.config.params import Params


class Place(NamedTuple):
    """Where an exhibit stands, known before it is made.

    Args:
        anchor: of its article in the report; claims name it.
        label: how readers know it.
        stages: that made the result files that it shows.
    """

    anchor: str
    label: str
    make: Callable[[Results, Params], Exhibit]
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One subject of the paper: what is shown of it, and what is not, as it is out of date."""

    title: str
    exhibits: list[Exhibit]
    left_out: list[str]


SCOREBOARD = "In short"
PLACES: dict[str, list[Place]] = {
    "Class-conditional generation": [
        Place("table1-table", "Table 1", table1.table, ("evaluate", "cas", "temperature")),
        Place("smoothing-table", "label smoothing", ablations.smoothing, ("evaluate",)),
        Place("figure5", "Figure 5", figure5.comparison, ("evaluate",)),
        Place("figure2", "Figure 2", figure2.pictures, ("evaluate",)),
        Place("neighbours", "nearest training images", figure5.neighbours, ("evaluate",)),
    ],
    "Speed": [
        Place("figure4", "Figure 4", figure4.chart, ("speed",)),
        Place("speed-table", "Figure 4 in numbers", figure4.table, ("speed",)),
    ],
    "Mask schedules and iterations": [
        Place("table3-table", "Table 3", table3.table, ("sweep", "evaluate")),
        Place("figure8", "Figure 8, right", figure8.quality, ("sweep",)),
        Place("schedules", "Figure 8, left", figure8.schedules, ("schedules", "sweep")),
        Place("rank_correlation-table", "agreement of orderings", table3.agreement, ("sweep",)),
        Place("crossing-table", "schedules crossed", ablations.crossing, ("sweep", "evaluate")),
        Place("sweep-table", "every schedule at every T", table3.grid, ("sweep", "evaluate")),
    ],
    "Choice temperature": [
        Place("temperature", "choice temperature", temperature.chart, ("temperature",)),
        Place("temperature-table", "its numbers", temperature.table, ("temperature", "evaluate")),
    ],
    "Diversity": [Place("table5-table", "Table 5", table5.table, ("evaluate", "cas"))],
    "Rejection sampling": [Place("table4-table", "Table 4", table4.table, ("reject", "evaluate"))],
    "Editing": [
        Place("table2-table", "Table 2", table2.table, ("edit",)),
        Place("inpainting", "inpainting", figure6.inpainting, ("edit",)),
        Place("figure6", "Figure 6", figure6.class_edit, ("edit",)),
        Place("figure7", "Figure 7", figure7.outpainting, ("edit",)),
        Place("panorama", "panorama", figure7.panorama, ("edit",)),
    ],
    "Reconstruction": [
        Place("figure10", "Figure 10", figure10.chart, ("reconstruct",)),
        Place("figure9", "Figure 9", figure9.pictures, ("reconstruct",)),
        Place("reconstruction-table", "Figure 10 in numbers", figure10.table, ("reconstruct",)),
    ],
}


def sections(results: Results, params: Params, stale: Collection[str] = ()) -> list[Section]:
    """Everything that is shown, the scoreboard first.

    Args:
        stale: stages whose results are out of date. What shows them is left out, and its claims are
            not in the scoreboard.
    """
    out = {place for places in PLACES.values() for place in places if set(place.stages) & {*stale}}
    results = replace(results, left_out=frozenset(place.anchor for place in out))
    made = [
        Section(
            title,
            [place.make(results, params) for place in places if place not in out],
            [place.label for place in places if place in out],
        )
        for title, places in PLACES.items()
    ]
    board: list[Exhibit] = [scoreboard.table(results, params)] if judge(results, params) else []
    return [Section(SCOREBOARD, board, []), *made]
