"""Makes docs/params.md, the reference of params.yaml: `python docs/params.py`.

Types, defaults and meanings are those of pipeline/config; dvc.yaml says which stages read a param.
"""

from pathlib import Path
from typing import Any

from pipeline.config.params import Params
from pipeline.config.schema import Section
from pipeline.runtime.files import read_yaml, write_text

PAGE = Path(__file__).with_suffix(".md")
DAG = Path(__file__).parents[1] / "dvc.yaml"
OPENING = """# Every param

`params.yaml` holds every param of the pipeline. `python docs/params.py` makes this page of
`pipeline/config/schema.py` and `dvc.yaml`; a test compares them. The values are the defaults, which
are those of the preset `mnist5k`. A param that no stage lists changes no result. The report lists
all but those of `mlflow`, so `analysis` runs again after a change; it is not named in each row.

A wrong value stops the first stage with one line that names the key and the way out, before any
work. `maskgit params` checks the file and prints it. `dvc exp run -S training.lr=2e-4` changes one
value and runs what depends on it; a list is quoted for the shell, `-S 'sweep.iterations=[2,4,8]'`.
"""
HEAD = ["| param | default | may be | meaning | of stages |", "|---|---|---|---|---|"]
BOUNDS = {"multipleOf": "multiple of", "minimum": "≥", "exclusiveMinimum": ">"}
BOUNDS |= {"maximum": "≤", "exclusiveMaximum": "<"}


def allowed(kind: dict[str, Any]) -> str:
    """What a value may be, from the JSON schema of its type."""
    if "anyOf" in kind:
        return f"{allowed(kind['anyOf'][0])}, or null"
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind["type"] == "array":
        pair = kind.get("minItems") == kind.get("maxItems") == 2
        many = "two of" if pair else "a list of" if "minItems" in kind else "a list, or `[]`, of"
        return f"{many}: {allowed(kind['items'])}"
    name = {"boolean": "true, false", "string": "a text"}.get(kind["type"], kind["type"])
    return ", ".join(
        [name, *(f"{said} {kind[key]:,}" for key, said in BOUNDS.items() if key in kind)]
    )


def stages(key: str, dag: dict[str, Any]) -> str:
    """The stages that list a param or its section; `analysis` lists all, so it is left out."""
    names = [
        name
        for name, stage in dag["stages"].items()
        if {key, key.split(".")[0]} & set(stage.get("params", ()))
        and (name != "analysis" or key.startswith("analysis."))
    ]
    return ", ".join(f"`{name}`" for name in names) or "none: it changes no result"


def shown(value: Any) -> str:
    """A value as it is given to `-S`."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def rows(fields: dict[str, dict[str, Any]], prefix: str, dag: dict[str, Any]) -> list[str]:
    """A row for each param, from the JSON schemas of their types."""
    return [
        f"| `{key}` | `{shown(field['default'])}` | {allowed(field)} | "
        f"{' '.join(field['description'].split()).replace('|', '&#124;').replace('<', '&lt;')} | "
        f"{stages(prefix + key, dag)} |"
        for key, field in fields.items()
    ]


def page() -> str:
    """The whole page."""
    dag, whole = read_yaml(DAG), Params.model_json_schema()["properties"]
    top = {key: field for key, field in whole.items() if "$ref" not in field}
    parts = [OPENING, "\n".join([*HEAD, *rows(top, "", dag), ""])]
    for name, field in Params.model_fields.items():
        if name not in top:
            section: type[Section] = field.annotation
            kind = section.model_json_schema()
            about = [" ".join(kind["description"].split()), ""] if "description" in kind else []
            lines = rows(kind["properties"], f"{name}.", dag)
            parts.append("\n".join([f"## {name}", "", *about, *HEAD, *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    write_text(PAGE, page())
