"""docs/limits.md says every limit, and messages keep theirs."""

import re
from decimal import Decimal

import pytest

from pipeline.runtime import limits, pytorch_files
from pipeline.runtime.errors import UserError, one_line
from pipeline.weights.released import formats
from tests.project import ROOT

VALUES = {name: value for name, value in vars(limits).items() if name.isupper()}
for reader in (pytorch_files, formats):
    VALUES |= {name: value for name, value in vars(reader).items() if name.startswith("MAX_")}


def test_the_page_has_every_limit_with_its_value():
    text = (ROOT / "docs/limits.md").read_text(encoding="utf-8")
    rows = {name: value for value, name in re.findall(r"\| ([^|]+) \| `([A-Z_]+)` \|", text)}
    assert rows.keys() == VALUES.keys()
    for name, value in VALUES.items():
        said = rows[name].split(" (")[0]
        if isinstance(value, tuple):
            assert said.split(", ") == [str(each) for each in value], name
        else:
            assert Decimal(said.replace(",", "")) == Decimal(repr(value)), name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain γ 日本", "plain γ 日本"),
        ("two\nlines\tof\x00it", "two lines of\\x00it"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\udcff bytes", "\\xff bytes"),
        ("half \ud800", "half \\ud800"),
    ],
)
def test_a_message_is_one_line_of_what_can_be_printed(text, shown):
    assert one_line(text) == str(UserError(text)) == shown
    assert one_line(shown) == shown  # as Ray does to an error that it passes on


def test_long_words_and_messages_are_shortened_in_the_middle():
    path = "/start/" + "x" * 900 + "/end.png"
    line = one_line(f"{path} is broken; delete it")
    assert line.startswith("/start/") and "/end.png is broken; delete it" in line
    assert len(line.split()[0]) == limits.WORD
    line = one_line("word " * 1000 + "end")
    assert len(line) == limits.MESSAGE and line.endswith("word end") and one_line(line) == line
