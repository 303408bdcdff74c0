"""Hostile parameter files: a wrong value in every key's place, and files that are none."""

import math
import random
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.params import load_params
from pipeline.runtime.files import read_yaml
from tests.damage import no_file
from tests.fuzzing import Case
from tests.project import ROOT

PRESETS = sorted((ROOT / "presets").glob("*.yaml"))
BASE = ROOT / "presets/mnist5k.yaml"
# No param takes any of these.
NEVER = [math.inf, -math.inf, math.nan, {"a": 1}, "a\0b", "\x1b[2J", "x" * 10_000, 10**40, -(10**9)]
NEVER += [[[]], "", [1, "a"], ["a", "a"], "\ud800", [math.inf]]
MAY_BE_EMPTY = ("crossed", "other_label_smoothings")  # lists that need no value
# Of a type none of these fits.
WRONG: dict[type, list[Any]] = {
    bool: [0, 1, "yes", None, [True], 1.0],
    int: [True, 1.5, "3", None, -1, 2**63, [], 10**20],
    float: [True, "0.1", None, -0.5, 1e300, [], 1e-320 * -1],
    str: [5, True, [], {}, 1.5, "\n", "tab\t"],
    type(None): [-5, True, [], -1.5, "\0"],
    list: [[], {}, "a", 5, None, [None], ["\0"], [True]],
}


def cases(random: random.Random) -> list[Case]:
    base = read_yaml(BASE)
    made = []
    for section, values in base.items():
        for key, value in values.items() if isinstance(values, dict) else [(None, values)]:
            name = f"{section}.{key}" if key else section
            hostile = random.sample(NEVER, 2) + random.sample(WRONG[type(value)], 1)
            if isinstance(value, list) and len(value) > 1 and key not in ("multipliers", "betas"):
                hostile.append(value + value[:1])
            if type(value) is int:
                hostile.append(True)  # 1 to Python
            if key == "dpi":  # as large as its user likes
                hostile = [bad for bad in hostile if type(bad) is not int or bad < 0]
            if key in MAY_BE_EMPTY:
                hostile = [bad for bad in hostile if bad != []]
            for bad in hostile:
                run = partial(_changed, base, section, key, bad)
                made.append(Case(f"{name} = {repr(bad)[:40]}", "refuse", run))
        made.append(Case(f"{section} missing", "refuse", partial(_without, base, section)))
    for text in ('"seed "', '""', "a.b"):
        made.append(
            Case(f"key {text}", "refuse", partial(_text, f"{BASE.read_text()}\n{text}: 1\n"))
        )
    made += [Case(name, "refuse", partial(_text, text)) for name, text in FILES.items()]
    made += [Case(what, "refuse", partial(_no_file, what)) for what in ("fifo", "folder", "zero")]
    for _ in range(60):
        made.append(Case("bytes changed", "either", partial(_damaged, random.randrange(2**32))))
    return made + [Case(path.stem, "accept", partial(_preset, path)) for path in PRESETS]


def _load(folder: Path, values: dict) -> None:
    path = folder / "params.yaml"
    with open(path, "w", encoding="utf-8", errors="surrogatepass") as handle:
        YAML(typ="safe", pure=True).dump(values, handle)
    load_params(path)


def _changed(base: dict, section: str, key: str | None, value: Any, folder: Path) -> None:
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in base.items()}
    if key is None:
        values[section] = value
    else:
        values[section][key] = value
    _load(folder, values)


def _without(base: dict, section: str, folder: Path) -> None:
    _load(folder, {k: v for k, v in base.items() if k != section})


def _text(text: str | bytes, folder: Path) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "params.yaml").write_bytes(content)
    load_params(folder / "params.yaml")


def _no_file(what: str, folder: Path) -> None:
    path = folder / "params.yaml"
    no_file(what, path)
    load_params(path)


def _damaged(seed: int, folder: Path) -> None:
    content, draw = bytearray(BASE.read_bytes()), random.Random(seed)
    for _ in range(draw.randint(1, 4)):
        where, how = draw.randrange(len(content)), draw.random()
        if how < 0.4:
            content[where] = draw.randrange(256)
        elif how < 0.7:
            del content[where : where + draw.randint(1, 200)]
        else:
            content[where:where] = draw.choice(JUNK)
    _text(bytes(content), folder)


def _preset(path: Path, folder: Path) -> None:
    from pipeline.config.presets import apply_preset

    apply_preset(path.stem, folder / "params.yaml")


JUNK = [
    b"\0",
    b"{",
    b"[" * 40,
    b": ",
    b"\t",
    b"'",
    b"&a ",
    b"*a",
    b"!!x ",
    b"\xff",
    b"\n\n-\n",
    b"#",
    b"?",
]


FILES: dict[str, str | bytes] = {
    "empty": "",
    "a list": "- 1\n- 2\n",
    "a number": "7",
    "deep flow": "[" * 500_000,
    "deep maps": "{a: " * 50_000,
    "deep blocks": "\n".join(" " * i + "a:" for i in range(900)),
    "too large": "#" * 2**21,
    "a long key": "k" * 500_000 + ": 1",
    "a long scalar": "seed: '" + "x" * 900_000 + "'",
    "not UTF-8": b"seed: \xff\xfe",
    "UTF-16": "seed: 1".encode("utf-16"),
    "NUL": "seed: \0",
    "a tag": "seed: !!python/object/apply:os.system [true]",
    "a date that is none": "seed: 2001-99-99",
    "5,000 digits": "seed: " + "9" * 5000,
    "an exponent": "seed: 1e999999999",
    "two documents": "seed: 1\n---\nseed: 2\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a directive": "%YAML 3.1\n---\nseed: 1\n",
    "tabs": "data:\n\tsource: x\n",
    "a control character": "seed: \x1b[31m",
}
