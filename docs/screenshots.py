"""Photographs the report of a finished run for docs/report.md: `docs/screenshots.py PROJECT`.

Needs the `test` extra (playwright) and a Chromium on the PATH.
"""

import shutil
import sys
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent
# Name of the picture → width of the window, theme, and what stands at its top.
SHOTS = {
    "report-wide": (1280, "light", "body"),
    "report-phone": (390, "light", "#figure8 figure"),
    "report-dark": (1280, "dark", "#figure8"),
}
HEIGHT = 860


def photograph(report: Path) -> None:
    """Write `docs/report-*.png`, of few colours, so that each is small."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        for name, (width, theme, top) in SHOTS.items():
            size = {"width": width, "height": HEIGHT}
            page = browser.new_page(viewport=size, color_scheme=theme, reduced_motion="reduce")
            page.goto(report.absolute().as_uri())
            page.evaluate("top => document.querySelector(top).scrollIntoView()", top)
            page.mouse.wheel(0, -60)  # below the contents, which stay at the top of a phone
            path = HERE / f"{name}.png"
            page.screenshot(path=path)
            with Image.open(path) as image:
                image.convert("RGB").quantize(128).save(path, optimize=True)
        browser.close()


if __name__ == "__main__":
    photograph(Path(sys.argv[1]) / "analysis/report.html")
