"""What `maskgit doctor` finds of one subject."""

from typing import Literal, NamedTuple

from pipeline.runtime.project import RUNS

GB, GIB = 10**9, 2**30  # of disks and plans, and of memory
WRITTEN = (".dvc", RUNS, "data", "models", "results", "analysis")  # folders of a project

State = Literal["good", "note", "fails"]  # a note stops nothing


class Finding(NamedTuple):
    subject: str
    state: State
    found: str
    way_out: str = ""
