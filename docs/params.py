"""Makes docs/params.md, the reference of params.yaml: `python docs/params.py`.

What a knob means is its comment in the default preset, what it may be is its type
(pipeline/config/schema.py), and who reads it is dvc.yaml.
"""

import re
from pathlib import Path
from typing import Any

from pipeline.config.presets import BASE
from pipeline.config.schema import Sections
from pipeline.runtime.files import read_yaml, write_text

PAGE = Path(__file__).with_suffix(".md")
DAG = Path(__file__).parents[1] / "dvc.yaml"
OPENING = """# Every param

`params.yaml` holds every knob of the pipeline. This page is made of the comments there, the types
that the values are checked against and `dvc.yaml`, by `python docs/params.py`; a test compares it.
The values are the default's, preset `mnist5k`. Numbers with no bound here have those of
[Limits](limits.md). A param that no stage depends on changes no result; since the report lists all
but those of `mlflow`, `analysis` runs again after a change, and is not named beside each.

A wrong value stops the first stage with one line that names the key and the way out, before any
work. `maskgit params` checks the file as it is and prints it. `dvc exp run -S
training.lr=2e-4` changes one value and runs what depends on it; a list is quoted for the shell,
`-S 'sweep.iterations=[2,4,8]'`.
"""
KEY = re.compile(r"^( *)([a-z_0-9]+):(?: +[^#\s][^#]*)?(?: *# (.*))?$")


def comments(text: str) -> dict[str, str]:
    """The comment of each dotted key: on the lines above it, or at the end of its own."""
    found, above, section = {}, [], ""
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            above.append(line.strip(" #"))
        elif match := KEY.match(line):
            indent, key, beside = match.groups()
            section = section if indent else key
            dotted = f"{section}.{key}" if indent else key
            found[dotted] = " ".join([*above, *filter(None, [beside])])
            above = []
        elif not line.strip():
            above = []
    return found


def allowed(kind: dict[str, Any]) -> str:
    """What a value may be, from the JSON schema of its type."""
    if "anyOf" in kind:
        first, _ = kind["anyOf"]
        return f"{allowed(first)}, or null"
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] == "array":
        pair = kind.get("minItems") == kind.get("maxItems") == 2
        many = "two of" if pair else "a list of" if "minItems" in kind else "a list, or `[]`, of"
        return f"{many}: {allowed(kind['items'])}"
    return {"boolean": "true, false", "string": "a text"}.get(kind["type"]) or number(kind)


def number(kind: dict[str, Any]) -> str:
    """The kind of number with the bounds that say more than that it is not absurd."""
    name = "integer" if kind["type"] == "integer" else "number"
    low, high = kind.get("minimum"), kind.get("maximum")
    bounds = []
    if kind.get("multipleOf"):
        bounds.append(f"multiple of {kind['multipleOf']}")
    if low is not None:
        bounds.append(f"≥ {low}" if low >= 1 or low == 0 else "> 0")
    if "exclusiveMinimum" in kind:
        bounds.append(f"> {kind['exclusiveMinimum']}")
    if "exclusiveMaximum" in kind:
        bounds.append(f"< {kind['exclusiveMaximum']}")
    elif high is not None and high <= 1:
        bounds.append(f"≤ {high}")
    return ", ".join([name, *bounds])


def stages(key: str, dag: dict[str, Any]) -> str:
    """The stages that depend on a param, or on the section that it is of, but for `analysis`, which
    lists all params and has a section of its own."""
    names = [
        name
        for name, stage in dag["stages"].items()
        if {key, key.split(".")[0]} & set(stage.get("params", ()))
    ]
    if not key.startswith("analysis."):
        names = [name for name in names if name != "analysis"]
    return ", ".join(f"`{name}`" for name in names) or "none: it changes no result"


def shown(value: Any) -> str:
    """A value as it is given to `-S`."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def cell(text: str) -> str:
    """A text for a table of Markdown."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def page() -> str:
    """The whole page."""
    said, values, dag = comments(BASE.read_text(encoding="utf-8")), read_yaml(BASE), read_yaml(DAG)
    schema = Sections.model_json_schema()
    parts = [OPENING]
    for name, kind in schema["properties"].items():
        if "$ref" not in kind:
            parts.append(
                f"## {name}\n\n{said[name]}\n\nDefault `{values[name]}`: {allowed(kind)}.\n"
            )
            continue
        fields = schema["$defs"][kind["$ref"].split("/")[-1]]["properties"]
        rows = [
            f"| `{key}` | `{shown(values[name][key])}` | {allowed(field)} | "
            f"{cell(said[f'{name}.{key}'])} | {stages(f'{name}.{key}', dag)} |"
            for key, field in fields.items()
        ]
        head = ["| param | default | may be | meaning | of stages |", "|---|---|---|---|---|"]
        about = [said[name], ""] if said[name] else []
        parts.append("\n".join([f"## {name}", "", *about, *head, *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    write_text(PAGE, page())
