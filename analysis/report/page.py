"""Writes the report as one self-contained HTML page, which loads no other file."""

import base64
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from analysis.exhibits import drawing
from analysis.exhibits.base import Exhibit, Figure, Table
from analysis.exhibits.claims import Verdict
from analysis.exhibits.formatting import NONE, count, listed, millions, number, percent
from analysis.exhibits.results import Results
from pipeline.config.params import Params
from pipeline.runtime.files import write_text
from pipeline.runtime.provenance import OutOfDate, Record, described

HERE = Path(__file__).parent
CSS_DPI = 96  # CSS pixels per inch, by definition
INTERVAL = re.compile(r", (± 95% interval over .+)$")
PAPER = re.compile(r" \((paper.*)\)$")
UNDER = Markup('<span class="paper">{}</span>')


@dataclass(frozen=True)
class Section:
    """A section of the report: its tables and figures, and the labels of out-of-date ones."""

    title: str
    exhibits: Sequence[Exhibit]
    left_out: list[str]


@dataclass(frozen=True)
class Opening:
    """The top of the report: warnings about barely trained networks, the main claims (the paper's
    and our own), and two figures (None if out of date)."""

    warnings: list[str]
    headlines: dict[str, list[Verdict]]
    samples: Figure | None
    figure8: Exhibit | None


def write_report(
    path: Path,
    opening: Opening,
    sections: list[Section],
    figures: Path,
    results: Results,
    params: Params,
    stale: OutOfDate,
) -> None:
    """Write the report to `path`. The folder `figures` has the drawn figures. `stale` stages are
    out of date; `sections` must have no tables or figures made from their results."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"emphasized": _emphasized, "anchor": _anchor, "grid": _grid}
    environment.globals["picture"] = lambda figure: _picture(figures / f"{figure.name}.png")
    environment.globals["drawn"] = _drawn
    environment.tests["table"] = lambda exhibit: isinstance(exhibit, Table)
    page = environment.get_template("report.html.j2").render(
        title="MaskGIT" if "prepare" in stale else f"MaskGIT on {_data_name(params)}",
        stale=described(stale),
        sections=sections,
        opening=opening,
        facts=_facts(results, params, stale),
        provenance=_runs(results),
        parameters=yaml.safe_dump(
            params.model_dump(exclude={"mlflow"}), sort_keys=False, allow_unicode=True
        ),
        preset=params.preset,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
    )
    write_text(path, page.strip() + "\n")


def _emphasized(text: str) -> Markup:
    """Set words between ** in bold, and keep "±" and "=" on the line of their operands."""
    unbroken = re.sub(" ([±=]) ", "\u00a0\\1\u00a0", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", unbroken))


class Grid(NamedTuple):
    """A table as HTML. `interval` says what "±" means; empty if meanings differ by column."""

    headings: list[Markup]
    rows: list[tuple[Markup, ...]]
    interval: str


def _grid(strings: pd.DataFrame) -> Grid:
    """Convert a table of strings to HTML; the paper's values go below ours, in the same cells."""
    found = [INTERVAL.search(name) for name in strings if "±" in name]
    intervals = {match[1] if match else "" for match in found}
    interval = intervals.pop() if len(intervals) == 1 else ""
    columns: dict[Markup, list[Markup]] = {}
    for name, values in strings.items():
        cells = [_emphasized(value) for value in values]
        if paper := PAPER.search(name):
            heading, ours = columns.popitem()
            under = ["" if cell == NONE else UNDER.format(cell) for cell in cells]
            both = [own + theirs for own, theirs in zip(ours, under, strict=True)]
            columns[heading + UNDER.format(paper[1])] = both
        else:
            columns[_emphasized(INTERVAL.sub(" ±", name) if interval else name)] = cells
    return Grid(list(columns), list(zip(*columns.values(), strict=True)), interval)


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _drawn(figure: Figure, **form: bool) -> dict[str, str | int]:
    """Draw a picture for the page alone: samples at its top, or a chart for narrow screens."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.png"
        figure.draw(path, **form)
        return _picture(path)


def _picture(path: Path) -> dict[str, str | int]:
    """A PNG as a data URI, with its size in CSS pixels."""
    with Image.open(path, formats=("PNG",)) as image:
        width, height = (round(side * CSS_DPI / drawing.DPI) for side in image.size)
    data = base64.b64encode(path.read_bytes()).decode()
    return {"src": f"data:image/png;base64,{data}", "width": width, "height": height}


# Facts about the run: data, networks, machines and code


def _data_name(params: Params) -> str:
    """The name of the data set, such as mnist5k or CIFAR10, or the name of its folder."""
    kind, _, name = params.data.source.partition(":")
    return Path(name).name or kind


def _facts(results: Results, params: Params, stale: Container[str]) -> list[tuple[str, str]]:
    """Facts about the run as pairs (subject, fact); stages that are out of date give no facts."""
    data, tokenizer, ours = results.data, results.tokenizer, results.evaluation["transformer"]
    size, network, training = params.data.image_size, params.transformer, params.training
    decoding, weights = params.decoding, params.transformer.pretrained
    trained = (
        f"{count(training.steps)} steps of {training.batch_size} images, mask schedule "
        f"{training.mask_schedule}; VQGAN∗ {count(params.autoregressive.steps)} steps"
    )
    if weights:
        trained = f"none: released weights, {Path(weights).name}"
    # (stage that the fact is from, subject) → fact
    found = {
        ("prepare", "Data"): f"{_data_name(params)}: {count(data['train_images'])} training and "
        f"{count(data['val_images'])} validation images of {count(data['classes'])} classes, "
        f"{size}×{size} {'grey' if params.data.channels == 1 else 'RGB'}",
        ("train_tokenizer", "Tokens"): f"{params.grid}×{params.grid} per image, from "
        f"{params.tokenizer.codebook_size} codes ({percent(tokenizer['code_usage'])} used); PSNR "
        f"{number(tokenizer['psnr'])} dB",
        ("evaluate", "Transformer"): f"{network.layers} layers, hidden {network.hidden}, "
        f"{network.heads} heads; {millions(ours['parameters'])} parameters with the tokenizer",
        ("evaluate", "Training"): trained,
        ("evaluate", "Decoding"): f"T = {decoding.iterations} iterations, choice temperature "
        f"{decoding.choice_temperature:g}, guidance scale {decoding.guidance_scale:g}",
    }
    told = [(name, fact) for (stage, name), fact in found.items() if stage not in stale]
    return told + _run(list(results.sources.values()))


def _run(entries: list[Record]) -> list[tuple[str, str]]:
    """Commit, machine and cost, from the records of the stages."""
    if not entries:
        return []
    hours = sum(entry["seconds"] for entry in entries) / 3600
    duration = f"{hours:.1f} hours" if hours >= 2 else f"{hours * 60:.0f} minutes"
    devices = {worker["device"] for entry in entries for worker in entry["workers"]}
    chosen = sorted(device[5:] for device in devices if device.startswith("cpu, "))
    return [
        ("Machine", listed(sorted(set(map(_machine, entries))))),
        ("Precision on CPUs", listed(chosen) if chosen else "bfloat16 was not tried"),
        ("Cost", f"{duration} in {len(entries)} stages, one after the other"),
        ("Commit", listed(sorted(set(map(commit, entries))))),
        ("Finished", max(entry["finished"] for entry in entries)),
    ]


def _machine(entry: Record) -> str:
    gpus = [f"{entry['gpus'].count(name)} × {name}" for name in sorted(set(entry["gpus"]))]
    return ", ".join([f"{entry['cpus']} CPUs", f"{entry['memory_gib']:g} GiB", *gpus])


def commit(entry: Record) -> str:
    """The commit of a stage's record, and whether the code had uncommitted changes."""
    state = {False: "", True: " (changed)", None: " (changes unknown)"}[entry["dirty"]]
    return f"{entry['commit'][:12]}{state}"


def _runs(results: Results) -> pd.DataFrame:
    """One row per stage, with the run and the commit that made its results."""
    rows = [
        {
            "stage": stage,
            "commit": commit(entry),
            "run": entry["run_id"][:12],
            "params and inputs": entry["key"][:12],
            "seconds": number(entry["seconds"]),
            "finished": entry["finished"],
        }
        for stage, entry in results.sources.items()
    ]
    return pd.DataFrame(rows)
