"""docs/limits.md says every limit."""

import re
from decimal import Decimal

from pipeline.runtime import limits
from pipeline.weights.released import formats
from tests.project import ROOT

VALUES = {name: value for name, value in vars(limits).items() if name.isupper()}
VALUES |= {name: value for name, value in vars(formats).items() if name.startswith("MAX_")}


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
