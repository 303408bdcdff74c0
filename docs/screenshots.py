"""Takes screenshots of a finished run's report and MLflow pages for docs/report.md and
docs/mlflow.md: `docs/screenshots.py PROJECT`.

Needs the `test` extra (playwright) and a Chromium on the PATH.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
# Name of the screenshot -> width of the window, and CSS selector of the element at its top.
SHOTS = {"report-wide": (1280, "body"), "report-phone": (390, "#figure8 figure")}
HEIGHT = 860
MLFLOW = {"width": 1280, "height": HEIGHT}  # window for MLflow's pages
MAIN = {"x": 198, "y": 0, "width": 1082, "height": HEIGHT}  # that window without its sidebar
UNFOLDED = "train_transformer"  # the run whose children are shown


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def photograph(report: Path) -> None:
    """Write screenshots of the report to `docs/report-*.png`."""
    with chromium() as browser:
        for name, (width, top) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": HEIGHT})
            page.goto(report.absolute().as_uri())
            page.evaluate("top => document.querySelector(top).scrollIntoView()", top)
            _shoot(page, name)


def photograph_mlflow(project: Path) -> None:
    """Write screenshots of the pages that `maskgit ui` links to `docs/mlflow-*.png`."""
    with _mlflow(project) as links, chromium() as browser:
        page = _opened(browser, links["all runs"])
        _unfold(page.get_by_role("gridcell").filter(has=page.locator("a[href*='/runs/']")).first)
        _unfold(page.get_by_role("gridcell").filter(has_text=UNFOLDED).first)
        page.wait_for_timeout(2000)
        _shoot(page, "mlflow-runs", clip=MAIN)
        page = _opened(browser, links["Figure 8"])  # a new page, since MLflow remembers charts
        page.wait_for_timeout(12_000)  # each chart loads its values
        _shoot(page, "mlflow-figure8", clip=MAIN)


def _opened(browser: Any, link: str) -> Any:
    page = browser.new_page(viewport=MLFLOW)
    page.goto(link)
    page.get_by_role("button", name="Close").click()  # closes the assistant
    return page


def _unfold(cell: Any) -> None:
    cell.get_by_role("button").first.click()


@contextmanager
def _mlflow(project: Path) -> Iterator[dict[str, str]]:
    """Run `maskgit ui` within the block, and yield the links by name."""
    command = (sys.executable, "-m", "pipeline", "ui")
    env = os.environ | {"PYTHONPATH": str(HERE.parent)}
    server = subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    links = {}
    try:
        for line in server.stdout:
            what, _, link = line.partition(":")
            links[what] = link.strip()
            if len(links) == 2:
                break
        if "all runs" not in links:
            raise SystemExit(f"error: `maskgit ui` prints no links in {project}")
        _wait_for(links["all runs"].partition("/#")[0])
        yield links
    finally:
        server.terminate()
        server.wait()


def _wait_for(address: str) -> None:
    for _ in range(120):
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        time.sleep(0.5)
    raise SystemExit(f"error: nothing answers at {address}")


def _shoot(page: Any, name: str, **options: Any) -> None:
    """Write a screenshot with few colours, so that the file is small."""
    path = HERE / f"{name}.png"
    page.screenshot(path=path, **options)
    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    photograph(Path(sys.argv[1]) / "analysis/report.html")
    photograph_mlflow(Path(sys.argv[1]))
