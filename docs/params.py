"""Makes docs/params.md, the reference of params.yaml: `python docs/params.py`.

Types, defaults and meanings come from pipeline/config; dvc.yaml tells which stages read a param.
"""

from collections import Counter
from pathlib import Path
from typing import Any, cast

from pipeline.config.params import Params
from pipeline.config.schema import Section
from pipeline.runtime.files import read_yaml, write_text
from pipeline.runtime.limits import SEED

PAGE = Path(__file__).with_suffix(".md")
DAG = Path(__file__).parents[1] / "dvc.yaml"
OPENING = """# Every param

`dvc exp run -S training.lr=2e-4` changes one value of `params.yaml` and runs what depends on it.
Quote a list for the shell: `-S 'sweep.iterations=[2,4,8]'`. `maskgit params` checks `params.yaml`.

Each line shows a param's default and, in parentheses, its allowed values. Without a range, a whole
number must be above 0. *Reruns* names the first stages that run again after a change; a param
without *Reruns* reruns its section's stages. Later stages that use new outputs also run, up to the
report (`analysis`). *Paper* and *release* are the authors' values for ImageNet.

`python docs/params.py` makes this page.
"""
BOUNDS = {"multipleOf": "multiple of ", "minimum": "≥", "exclusiveMinimum": ">"}
BOUNDS |= {"maximum": "≤", "exclusiveMaximum": "<"}


def allowed(kind: dict[str, Any]) -> str:
    """The allowed values of a param, from its JSON schema; empty if the default shows them."""
    if "anyOf" in kind:
        first = kind["anyOf"][0]
        if {"type": "null"} not in kind["anyOf"]:
            return "true, false or `force`"
        return f"{allowed(first) or ('file' if first['type'] == 'string' else '')} or null".strip()
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] == "array":
        items = allowed(kind["items"])
        return f"each {items}" if items else ""
    if kind["type"] == "integer" and kind.get("exclusiveMinimum") == 0:
        return ""
    bounds = [f"{said}{kind[key]}" for key, said in BOUNDS.items() if kind.get(key, SEED) != SEED]
    return ", ".join(bounds)


def sources(dag: dict[str, Any]) -> dict[str, set[str]]:
    """Map each stage to all stages whose outputs the stage needs, directly or indirectly."""
    outs = {
        name: [next(iter(out)) if isinstance(out, dict) else out for out in stage["outs"]]
        for name, stage in dag["stages"].items()
    }
    found: dict[str, set[str]] = {}
    for name, stage in dag["stages"].items():  # dvc.yaml lists them in the order of a run
        direct = {
            other
            for other in found
            for out in outs[other]
            if any(f"{dep}/".startswith(f"{out}/") for dep in stage["deps"])
        }
        found[name] = direct.union(*(found[other] for other in direct))
    return found


def stages(key: str, dag: dict[str, Any]) -> str:
    """The first stages that read a param. `analysis` reads all params, so it is left out."""
    names = {
        name
        for name, stage in dag["stages"].items()
        if {key, key.split(".")[0]} & set(stage.get("params", ())) and name != "analysis"
    }
    needed = sources(dag)
    first = [name for name in dag["stages"] if name in names and not needed[name] & names]
    return ", ".join(f"`{name}`" for name in first) or "no stage"


def shown(value: Any) -> str:
    """Format a value as `dvc exp run -S` takes it."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{shown(each)}' for name, each in value.items())}}}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def section(fields: dict[str, dict[str, Any]], prefix: str, dag: dict[str, Any]) -> str:
    """The body of a section: the stages that its params reach, and one line per param."""
    reached = {key: stages(prefix + key, dag) for key in fields}
    usual, _ = Counter(reached.values()).most_common(1)[0]
    lines = [f"Reruns {usual}.", ""]
    for key, field in fields.items():
        kind = allowed(field)
        meaning = " ".join(field["description"].split()).replace("<", "&lt;")
        if reached[key] != usual:
            meaning += f" Reruns {reached[key]}."
        lines.append(
            f"- `{key}: {shown(field['default'])}`{f' ({kind})' if kind else ''}. {meaning}"
        )
    return "\n".join([*lines, ""])


def page() -> str:
    """The text of docs/params.md."""
    dag, whole = read_yaml(DAG), Params.model_json_schema()["properties"]
    top = {key: field for key, field in whole.items() if "$ref" not in field}
    parts = [OPENING, section(top, "", dag)]
    for name, field in Params.model_fields.items():
        if name not in top:
            kind = cast(type[Section], field.annotation).model_json_schema()
            about = [" ".join(kind["description"].split()), ""] if "description" in kind else []
            body = section(kind["properties"], f"{name}.", dag)
            parts.append("\n".join([f"## {name}", "", *about, body]))
    return "\n".join(parts)


if __name__ == "__main__":
    write_text(PAGE, page())
