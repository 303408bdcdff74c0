"""The report in a real browser, on a wide screen and on a phone."""

import pytest


@pytest.fixture
def open_report(browser, report):
    """Opens the report in a window; whatever the browser complains of is an error at the end."""
    pages, complaints = [], []

    def open_page(width: int, height: int = 800):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda message: complaints.append(message.text))
        page.on("requestfailed", lambda request: complaints.append(request.url[:80]))
        page.route("http*://**", lambda route: complaints.append(route.request.url))
        pages.append(page)
        page.goto(report.as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []


LETTERS = """() => [...document.querySelectorAll("body *:not(script, style)")]
  .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3))
  .map((e) => [parseFloat(getComputedStyle(e).fontSize), e.outerHTML])
  .sort((a, b) => a[0] - b[0])[0]"""
# By what each picture is shrunk: their letters have 8.3 points, those of charts 9.
SHRUNK = """() => [...document.images].map((image) => {
  const drawn = image.currentSrc === image.src ? image : image.previousElementSibling;
  return image.getBoundingClientRect().width / drawn.getAttribute("width");
})"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_and_every_letter_is_legible(open_report, width):
    page = open_report(width)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths and min(widths) > 0
    size, where = page.evaluate(LETTERS)
    assert size >= 11, where
    assert min(page.evaluate(SHRUNK)) > 0.99


@pytest.mark.slow
def test_the_first_screen_shows_claims_samples_and_figure_8(open_report):
    page = open_report(1280, 900)
    shown = [*page.locator(".headlines li").all(), *page.locator("#in-short > figure img").all()]
    assert len(shown) == 5 + 2
    boxes = [each.bounding_box() for each in shown]
    assert all(box["y"] + box["height"] / 2 < 900 for box in boxes)
