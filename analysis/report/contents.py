"""What is shown, and in which order: the paper's exhibits by subject."""

from collections.abc import Callable
from dataclasses import dataclass

from analysis.exhibits import (
    figure2,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
    figure9,
    figure10,
    table1,
    table2,
    table3,
    table4,
    table5,
    temperature,
)
from analysis.exhibits.base import Exhibit
from analysis.exhibits.inputs.results import Results
from pipeline.config.params import Params


@dataclass(frozen=True)
class Section:
    """One subject of the paper."""

    title: str
    exhibits: list[Exhibit]


SECTIONS: dict[str, list[Callable[[Results, Params], Exhibit]]] = {
    "Class-conditional generation": [
        table1.table,
        figure5.comparison,
        figure2.pictures,
        figure5.neighbours,
    ],
    "Speed": [figure4.chart, figure4.table],
    "Mask schedules and iterations": [
        table3.table,
        figure8.quality,
        figure8.schedules,
        table3.agreement,
        table3.grid,
    ],
    "Choice temperature": [temperature.chart, temperature.table],
    "Diversity": [table5.table],
    "Rejection sampling": [table4.table],
    "Editing": [
        table2.table,
        figure6.inpainting,
        figure6.class_edit,
        figure7.outpainting,
        figure7.panorama,
    ],
    "Reconstruction": [figure10.chart, figure9.pictures, figure10.table],
}


def sections(results: Results, params: Params) -> list[Section]:
    return [
        Section(title, [make(results, params) for make in makers])
        for title, makers in SECTIONS.items()
    ]
