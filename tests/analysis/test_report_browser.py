"""The report in a real browser, on a wide screen and on a phone, light and dark."""

import pytest


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


LETTERS = """() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const sizes = [];
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    const shown = walker.currentNode.data.trim() && parent.checkVisibility();
    if (shown) sizes.push([parseFloat(getComputedStyle(parent).fontSize), parent.outerHTML]);
  }
  return sizes.sort((a, b) => a[0] - b[0])[0];
}"""
# By what each picture is shrunk: their letters have 8.3 points, those of charts 9.
SHRUNK = """() => [...document.images].map((image) => {
  const drawn = image.currentSrc === image.src ? image : image.previousElementSibling;
  return image.getBoundingClientRect().width / drawn.getAttribute("width");
})"""


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window_and_every_letter_is_legible(open_report, width, theme):
    page = open_report(width, theme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert widths and min(widths) > 0
    boxes = page.evaluate(
        "[...document.querySelectorAll('main *:not(.scroll *):not(pre *)')]"
        ".map((e) => e.getBoundingClientRect().right)"
    )
    assert max(boxes) <= width + 1
    size, where = page.evaluate(LETTERS)
    assert size >= 11, where
    assert min(page.evaluate(SHRUNK)) > 0.99


@pytest.mark.slow
def test_wide_tables_scroll_in_their_own_box_on_a_phone_and_say_so(open_report):
    page = open_report(360)
    box = page.locator("#table1-table .scroll").first
    assert box.evaluate("(e) => e.scrollWidth > e.clientWidth && e.classList.contains('wide')")
    assert "scroll" in box.evaluate("(e) => getComputedStyle(e, '::before').content")
    box.evaluate("(e) => e.scrollTo(200, 0)")
    assert box.evaluate("(e) => e.scrollLeft") == 200
    # The names of the rows stay in sight.
    header = box.locator("tbody th").first.bounding_box()
    assert header["x"] == pytest.approx(box.bounding_box()["x"], abs=1)


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
@pytest.mark.parametrize("width", [390, 1280])
def test_contents_lead_to_their_sections_and_say_where_one_is(open_report, width):
    page = open_report(width)
    page.emulate_media(reduced_motion="reduce")  # else it glides there
    contents = page.locator("nav summary")
    assert contents.is_visible() == (width < 1000)
    if width < 1000:
        contents.click()
    page.locator("nav a", has_text="Editing").click()
    assert 0 <= page.locator("#editing").bounding_box()["y"] < 60
    assert page.locator("nav").bounding_box()["y"] >= 0  # still in sight
    page.wait_for_function("document.querySelector('nav [aria-current]').hash === '#editing'")
    if width < 1000:
        assert contents.inner_text() == "Contents: Editing"
        assert not page.locator("nav ol").is_visible()
