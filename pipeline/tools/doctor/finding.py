"""What `maskgit doctor` finds of one subject."""

from typing import Literal, NamedTuple

State = Literal["good", "note", "fails"]  # a note stops nothing


class Finding(NamedTuple):
    subject: str
    state: State
    found: str
    way_out: str = ""
