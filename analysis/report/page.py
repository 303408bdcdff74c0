"""One self-contained HTML page of everything: no network, no other file."""

import base64
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from analysis.exhibits.base import Draw, Figure, Table
from analysis.exhibits.inputs.results import Results
from analysis.report.contents import Section
from analysis.report.facts import data_name, facts
from analysis.report.layout import layout
from analysis.report.provenance import runs
from pipeline.config.params import Params
from pipeline.runtime.files import write_text
from pipeline.runtime.provenance import OutOfDate, described

HERE = Path(__file__).parent
CSS_DPI = 96  # pixels of an inch, by definition


def write_report(
    path: Path,
    sections: list[Section],
    samples: Figure | None,
    figures: Path,
    results: Results,
    params: Params,
    stale: OutOfDate,
) -> None:
    """Write the report.

    Args:
        samples: the figure that opens the page, unless it is out of date.
        figures: folder with the figures, drawn.
        stale: stages that are out of date, whose results are not among the sections.
    """
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"emphasized": _emphasized, "anchor": _anchor, "layout": layout}
    dpi = params.analysis.dpi
    environment.globals["picture"] = lambda figure: _picture(figures / f"{figure.name}.png", dpi)
    environment.globals["narrow"] = lambda draw: _narrow(draw, dpi)
    environment.tests["table"] = lambda exhibit: isinstance(exhibit, Table)
    page = environment.get_template("report.html.j2").render(
        title="MaskGIT" if "prepare" in stale else f"MaskGIT on {data_name(params)}",
        stale=described(stale),
        sections=sections,
        samples=samples,
        facts=facts(results, params, stale),
        provenance=runs(results),
        parameters=yaml.safe_dump(
            params.model_dump(exclude={"mlflow"}), sort_keys=False, allow_unicode=True
        ),
        preset=params.preset,
        style=Markup((HERE / "report.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "report.js").read_text(encoding="utf-8")),
    )
    write_text(path, page.strip() + "\n")


def _emphasized(text: str) -> Markup:
    """Words between ** in bold, as the Markdown files have them; "±" and "=" stay with theirs."""
    unbroken = re.sub(" ([±=]) ", "\u00a0\\1\u00a0", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", unbroken))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _narrow(draw: Draw, dpi: int) -> dict[str, str | int]:
    """The form for a narrow screen, which the page alone has."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "narrow.png"
        draw(path, dpi)
        return _picture(path, dpi)


def _picture(path: Path, dpi: int) -> dict[str, str | int]:
    """A PNG as a data URI, and the size in CSS pixels at which its letters have theirs."""
    with Image.open(path, formats=("PNG",)) as image:
        width, height = (round(side * CSS_DPI / dpi) for side in image.size)
    data = base64.b64encode(path.read_bytes()).decode()
    return {"src": f"data:image/png;base64,{data}", "width": width, "height": height}
