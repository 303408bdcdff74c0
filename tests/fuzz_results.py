"""Hostile result files, as a disk or a hand leaves them, read by the analysis."""

import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.fuzz_caches import damage
from tests.fuzzing import Case
from tests.params import make_params
from tests.synthetic_results import FILES, write_results, write_tables


@functools.cache
def good() -> Path:
    return write_results(Path(tempfile.mkdtemp()) / "results")


def cases(random: random.Random) -> list[Case]:
    made = [Case("results as they are", "accept", partial(_changed, "sweep/rows.csv", bytes))]
    for file in FILES:
        how = random.choice(("empty", "gone", "folder", "fifo"))
        made.append(Case(f"{file}: {how}", "refuse", partial(_damaged, file, how)))
        run = partial(_damaged, file, random.randrange(2**32))
        made.append(Case(f"{file}: bytes", "either", run))
        for name in random.sample(sorted(CONTENTS), 1):
            must = "refuse" if name in REFUSED else "either"
            made.append(Case(f"{file}: {name}", must, partial(_changed, file, CONTENTS[name])))
        kind = {".csv": TABLES, ".json": VALUES, ".npz": ARRAYS}[Path(file).suffix]
        for name in random.sample(sorted(kind), 5):  # each kind of damage to several files
            made.append(Case(f"{file}: {name}", "either", partial(_altered, file, kind[name])))
    return made


def _copy(folder: Path) -> Path:
    for name in good().parent.iterdir():
        if name.is_dir():
            shutil.copytree(name, folder / name.name)
    return folder / "results"


def _tables(results: Path, folder: Path) -> None:
    write_tables(results, folder / "tables", make_params(analysis={"dpi": 40}))


def _damaged(file: str, how: int | str, folder: Path) -> None:
    results = _copy(folder)
    damage(results / file, how)
    _tables(results, folder)


def _changed(file: str, change: Callable[[bytes], bytes], folder: Path) -> None:
    results = _copy(folder)
    (results / file).write_bytes(change((results / file).read_bytes()))
    _tables(results, folder)


def _altered(file: str, change: Callable[[Any], Any], folder: Path) -> None:
    results = _copy(folder)
    path = results / file
    if path.suffix == ".csv":
        change(pd.read_csv(path)).to_csv(path, index=False)
    elif path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        with np.load(path) as archive:
            np.savez(path, **change(dict(archive)))
    _tables(results, folder)


CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda b: bytes(len(b)),
    "half": lambda b: b[: len(b) // 2],
    "text": lambda b: b"no results",
    "HTML": lambda b: b"<html><body>404</body></html>",
    "not UTF-8": lambda b: b"\xff\xfe" + b,
    "NUL within": lambda b: b[: len(b) // 2] + b"\0" + b[len(b) // 2 :],
    "a quote within": lambda b: b[: len(b) // 2] + b'"' + b[len(b) // 2 :],
    "a page of brackets": lambda b: b"[" * 100_000,
    "DOS line ends": lambda b: b.replace(b"\n", b"\r\n"),
}
REFUSED = ("zeros", "text", "HTML", "a page of brackets")
Table = Callable[[pd.DataFrame], pd.DataFrame]


def _cell(value: Any) -> Table:
    """The value in the last number of the last row."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        numbers = [c for c in table.columns if pd.api.types.is_numeric_dtype(table[c])]
        return table.astype(object).where(
            (table.index != len(table) - 1)[:, None] | (table.columns != numbers[-1]), value
        )

    return change


TABLES: dict[str, Table] = {
    "no rows": lambda t: t.iloc[:0],
    "one row": lambda t: t.iloc[:1],
    "the last row gone": lambda t: t.iloc[:-1],
    "every row twice": lambda t: pd.concat([t, t]),
    "rows in another order": lambda t: t.iloc[::-1],
    "the first column gone": lambda t: t.iloc[:, 1:],
    "the last column gone": lambda t: t.iloc[:, :-1],
    "a column more": lambda t: t.assign(surprise=1),
    "a column twice": lambda t: pd.concat([t, t.iloc[:, -1:]], axis=1),
    "columns of nothing": lambda t: t.assign(**{t.columns[-1]: None}),
    "numbers for names": lambda t: t.assign(**{t.columns[0]: 7}),
    "names for numbers": lambda t: t.assign(**{t.columns[-1]: "x"}),
    "names of $\\frac$": lambda t: t.assign(**{t.columns[0]: "$\\frac$\n<b>"}),
    "another seed": lambda t: t.assign(seed=99),
    "fractions of seeds": lambda t: t.assign(seed=0.5),
    "infinite": _cell(float("inf")),
    "not a number": _cell(float("nan")),
    "negative": _cell(-1.0),
    "huge": _cell(1e308),
    "an integer of hundreds of digits": _cell(10**400),
    "a date": _cell("2026-01-01"),
    "true": _cell(True),
}
VALUES: dict[str, Callable[[Any], Any]] = {
    "a list": lambda v: [v],
    "null": lambda v: None,
    "nothing": lambda v: {},
    "text values": lambda v: dict.fromkeys(v, "x"),
    "null values": lambda v: dict.fromkeys(v),
    "NaN values": lambda v: dict.fromkeys(v, float("nan")),
    "negative values": lambda v: dict.fromkeys(v, -1),
    "deep values": lambda v: {key: {"a": [1]} for key in v},
    "zero": lambda v: dict.fromkeys(v, 0),
    "huge": lambda v: dict.fromkeys(v, 10**400),
}
ARRAYS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "no arrays": lambda a: {},
    "one array gone": lambda a: dict(list(a.items())[1:]),
    "one more": lambda a: a | {"surprise": np.zeros(3)},
    "empty": lambda a: {k: v[:0] for k, v in a.items()},
    "flat": lambda a: {k: v.reshape(-1) for k, v in a.items()},
    "floats": lambda a: {
        k: v.astype(float) for k, v in a.items() if v.dtype != object and v.dtype.kind != "U"
    },
    "text": lambda a: {k: np.array(["x"]) for k in a},
    "objects": lambda a: {k: np.array([{}], dtype=object) for k in a},
    "scalars": lambda a: {k: np.array(1) for k in a},
    "other lengths": lambda a: {k: v[: n + 1] for n, (k, v) in enumerate(a.items())},
    "complex": lambda a: {k: np.ones(v.shape, complex) for k, v in a.items()},
}
