"""Tables and figures of the analysis, each with the findings of the paper and of this run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.exhibits.formatting import latex, markdown
from pipeline.runtime.files import write_csv, write_text

BOLD = "Bold marks the best of the means that can be compared; its lead may be due to chance."


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table or a figure."""

    name: str  # stem of the exhibit's file names
    title: str
    paper: str = ""  # findings of the paper; empty if the paper has no such exhibit
    here: list[str] = field(default_factory=list)  # findings of this run; words between ** are bold
    # The fields of `Results` that the exhibit is made from; set by the report.
    files: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Table(Exhibit):
    cells: pd.DataFrame  # all values, for the CSV file; the paper's are in columns `paper_…`
    # Heading → the values as strings; the paper's are under the headings "… (paper…)".
    columns: Mapping[str, Any] | pd.DataFrame
    notes: list[str]  # sentences about how the numbers were measured
    timed: bool = False  # whether the table has timings, which differ from run to run
    folded: bool = False  # whether the report shows the table, which is long, only after a click
    # For each row, the anchor in the report that the row's last cell links to.
    links: list[str] = field(default_factory=list)

    @property
    def readable(self) -> pd.DataFrame:
        return pd.DataFrame(self.columns)

    def write(self, folder: Path) -> None:
        """Write `<name>.csv` (all values), `.md` and `.tex` (formatted values) to `folder`."""
        bold = [BOLD] if self.readable.map(lambda cell: "**" in str(cell)).any(axis=None) else []
        text = [f"# {self.title}", markdown(self.readable), *self.notes, *bold]
        if self.paper:
            text.append(f"In the paper: {self.paper}")
        if self.here:
            text += ["Here:", "\n".join(f"- {sentence}" for sentence in self.here)]
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("csv", "md", "tex")]
        write_csv(paths[0], self.cells.to_dict("records"), columns=list(self.cells))
        write_text(paths[1], "\n\n".join(text) + "\n")
        write_text(paths[2], latex(self.readable, " ".join([f"{self.title}.", *self.notes])))


@dataclass(frozen=True, kw_only=True)
class Figure(Exhibit):
    alt: str  # alternative text for readers who cannot see the figure
    # Writes a PNG to a path. For a chart, it also accepts `narrow=True`, for narrow screens.
    draw: Callable[..., None]
    chart: bool = False  # whether the figure shows curves on white, not pictures
