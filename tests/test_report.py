"""The report: as a document, and in a real browser."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.params import make_params
from tests.synthetic_results import analyse, write_results, write_source
from tests.synthetic_tables import evaluation_metrics

VOID = {"meta", "link", "img", "br", "hr", "input"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PARAMS = make_params(analysis={"dpi": 60})


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    results = write_results(folder / "results")
    write_source(results, "evaluate", seconds=5400.0, gpus=["H100", "H100"])
    write_source(results, "cas", seconds=5400.0, dirty=True, gpus=["H100", "H100"])
    analyse(results, folder / "out", PARAMS)
    return folder / "out/report.html"


def number_of_figures(report: Path) -> int:
    """How many pictures the analysis drew beside the report."""
    return len(list((report.parent / "figures").glob("*.png")))


class Document(HTMLParser):
    """Checks that tags are nested, and collects what they say."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_document_is_well_formed_complete_and_of_one_piece(report):
    text = report.read_text()
    document = Document(text)
    assert text.startswith("<!doctype html>") and len(text) < 6_000_000
    ids = [attributes["id"] for _, attributes in document.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in document.all("a")]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    images = document.all("img")
    assert len(images) == number_of_figures(report)
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all(len(image["alt"]) > 20 for image in images)
    assert not re.search(r"https?:|url\(|@import|<script src|<link rel=.stylesheet", text)
    assert "nan" not in re.sub(r'"data:[^"]*"', "", text)


def test_every_table_and_figure_is_there(report):
    document = Document(report.read_text())
    articles = {attributes["id"] for attributes in document.all("article")}
    names = {path.stem for path in (report.parent / "figures").iterdir()} - {"samples"}
    for folder in ("tables", "timings"):
        names |= {f"{path.stem}-table" for path in (report.parent / folder).glob("*.csv")}
    assert articles == names
    assert {f"table{i}-table" for i in (1, 2, 3, 4, 5)} <= articles
    assert {f"figure{i}" for i in (2, 4, 5, 6, 7, 8, 9, 10)} <= articles


def test_what_was_run_is_told(report):
    text = report.read_text()
    for fact in (
        "mnist5k: 4,000 training and 1,000 validation images of 3 classes, 28×28 grey",
        "7×7 of 64 codes, 100% of them used; PSNR 18.75 dB",
        "2 CPUs, 16 GiB, 2 × H100",
        "3.0 hours in 2 stages",
        "abcdef012345 and abcdef012345 (changed)",
        "2025-01-02T03:04:05Z",
        "evaluate-run",
        "choice_temperature: 4.5",
    ):
        assert fact in text, fact
    assert "maskgit-experiment" not in text and "mlflow:" not in text


def test_a_run_without_records_says_what_it_knows(tmp_path):
    analyse(write_results(tmp_path / "results"), tmp_path / "out", PARAMS)
    text = (tmp_path / "out/report.html").read_text()
    assert "<dt>Commit</dt>" not in text and "The run behind each stage" not in text
    assert "cpu, 2 threads (Figure 4)" in text


def test_names_are_escaped(report):
    text = report.read_text()
    assert "two &lt;&amp;&gt;" in text and "two <&>" not in text


def test_the_report_says_when_it_is_the_other_way_round(tmp_path):
    results = write_results(tmp_path / "results")
    metrics = evaluation_metrics()
    metrics["transformer"]["fid_classifier"], metrics["autoregressive"]["fid_classifier"] = 4.5, 4.0
    pd.Series(metrics).to_json(results / "evaluation/metrics.json")
    analyse(results, tmp_path / "out", PARAMS)
    summary = (tmp_path / "out/report.html").read_text().split("</dl>")[0]
    assert "FID (classifier): <strong>VQGAN∗</strong> is better than MaskGIT, unlike" in summary
    # √(0.3² + 0.4²) is as large as the gap.
    assert "is no more than their combined standard deviation of 0.500" in summary


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@pytest.fixture
def open_report(browser, report):
    """Opens the report in a window; whatever the browser complains of is an error at the end."""
    pages, complaints = [], []

    def open_page(width: int, theme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
        page.route("http*://**", lambda route: complaints.append(route.request.url))
        pages.append(page)
        page.goto(report.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window_and_every_picture_loads(open_report, report, width):
    page = open_report(width)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert len(widths) == number_of_figures(report) and min(widths) > 0
    boxes = page.evaluate(
        "[...document.querySelectorAll('main *:not(.scroll *):not(pre *)')]"
        ".map((e) => e.getBoundingClientRect().right)"
    )
    assert max(boxes) <= width + 1


@pytest.mark.slow
def test_wide_tables_scroll_in_their_own_box_on_a_phone(open_report):
    page = open_report(360)
    box = page.locator("#table1-table .scroll")
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth")
    box.evaluate("(e) => e.scrollTo(400, 0)")
    assert box.evaluate("(e) => e.scrollLeft") == 400
    # The names of the rows stay in sight.
    header = box.locator("tbody th").first.bounding_box()
    assert header["x"] == pytest.approx(box.bounding_box()["x"], abs=1)


def _luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    channels = np.array([int(x) for x in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(page, selector: str, ground: str) -> float:
    """WCAG 2's contrast of the text of one element on the ground of another."""
    style = "(e) => getComputedStyle(e)."
    text = page.locator(selector).first.evaluate(style + "color")
    below = page.locator(ground).first.evaluate(style + "backgroundColor")
    light, dark = sorted(map(_luminance, (text, below)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_is_legible_in_both_themes(open_report, theme):
    page = open_report(1280, theme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert _luminance(ground) > 0.9 if theme == "light" else _luminance(ground) < 0.02
    assert _contrast(page, "main p.notes", "body") > 4.5
    assert _contrast(page, "main dd", "body") > 7
    assert _contrast(page, "nav a", "body") > 4.5
    assert _contrast(page, "p.paper", "p.paper") > 7
    assert _contrast(page, "main .here", "main .here") > 7
    assert _contrast(page, "td.paper", "td.paper") > 7


@pytest.mark.slow
def test_charts_are_dark_where_the_page_is_dark(open_report):
    def brightness(theme: str) -> float:
        from io import BytesIO

        from PIL import Image

        image = open_report(1280, theme).locator("#figure8 img").screenshot()
        return np.asarray(Image.open(BytesIO(image)).convert("L")).mean()

    assert brightness("light") > 200 and brightness("dark") < 60


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_a_picture_is_enlarged_and_closed_again(open_report, width):
    page = open_report(width)
    small = page.locator("#figure4 img").bounding_box()
    page.locator("#figure4 button").click()
    large = page.locator("dialog img")
    assert page.locator("dialog").is_visible()
    assert large.bounding_box()["width"] > 1.2 * small["width"]
    assert large.get_attribute("alt") == page.locator("#figure4 img").get_attribute("alt")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # By the keyboard alone, and closed by pressing the picture.
    page.locator("#figure9 button").focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog").is_visible()
    page.locator("dialog").click()
    assert not page.locator("dialog").is_visible()


@pytest.mark.slow
def test_contents_lead_to_their_sections(open_report):
    page = open_report(1280)
    page.emulate_media(reduced_motion="reduce")  # else it glides there
    page.locator("nav a", has_text="Editing").click()
    assert 0 <= page.locator("#editing").bounding_box()["y"] < 60
    assert page.locator("nav").bounding_box()["y"] >= 0  # still in sight
