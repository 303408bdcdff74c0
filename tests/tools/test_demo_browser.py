"""`maskgit demo` in a real browser: drawing, two schedules, a mask drawn by mouse, wrong values."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.tools import demo_page
from tests.project import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("gradio") is None, reason="gradio is not installed"),
]


@pytest.fixture(scope="module")
def address(project, tmp_path_factory) -> Iterator[str]:
    """The page's URL. The server prints nothing else, and leaves no files behind."""
    folder = tmp_path_factory.mktemp("tmp")
    # A proxy that does not answer, like a proxy that cannot reach this machine.
    env = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    env |= {"HTTP_PROXY": "http://[::1]:9"}
    log = folder / "log"
    with log.open("w") as output:
        command = (sys.executable, "-m", "pipeline", "demo")
        process = subprocess.Popen(command, cwd=project, env=env, stdout=output, stderr=output)
    while not (found := re.fullmatch(r"the page is at (\S+) .*\n", log.read_text())):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    yield found[1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0
    assert log.read_text() == found[0]
    assert list(folder.iterdir()) == [log]


@pytest.fixture
def page(browser, address) -> Iterator:
    """The opened page, which reports no error and sends no request to other servers."""
    window, complaints = browser.new_page(viewport={"width": 1280, "height": 1000}), []
    window.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    window.on("pageerror", lambda error: complaints.append(str(error)))
    ours = (address, "blob:", "data:")
    window.on("request", lambda r: r.url.startswith(ours) or complaints.append(r.url))
    window.goto(address)
    window.get_by_role("button", name="Draw").wait_for()
    yield window
    window.close()
    assert complaints == []


def shown(page, number: int = 0) -> Image.Image:
    """A picture of the visible tab, as the server sent the picture."""
    source = page.locator(".image-frame img:visible").nth(number).get_attribute("src")
    return Image.open(BytesIO(page.request.get(source).body()))


def field(page, label: str):
    """A control of the visible tab."""
    return page.get_by_label(label, exact=True).locator("visible=true")


def drawn(page, wanted: Image.Image, number: int = 0) -> bool:
    """Whether a picture of the visible tab becomes the wanted picture within 20 seconds."""
    enlarged = np.array(demo_page.enlarged(wanted))
    return waited(lambda: np.array_equal(np.array(shown(page, number).convert("L")), enlarged))


def waited(condition: Callable[[], bool]) -> bool:
    return any(condition() or time.sleep(0.2) for _ in range(100))


def test_samples_are_drawn_and_a_wrong_value_is_a_message(page, model):
    page.get_by_role("tab", name="Two ways to decode").click()
    field(page, "Class").click()
    page.get_by_role("option", name="class2").click()
    assert waited(lambda: field(page, "Class").input_value() == "class2")
    field(page, "Seed").fill("4")
    page.get_by_role("button", name="Draw").click()
    for number, schedule in enumerate(("cosine", "exponential")):
        *_, last = demo_page.canvases(model, "class2", 10, 4, schedule=schedule)
        assert drawn(page, last, number)
    page.get_by_role("tab", name="Sample").click()
    field(page, "Choice temperature").fill("-1")
    page.get_by_role("button", name="Draw").click()
    assert "temperature" in page.locator(".toast-body").inner_text()


def test_a_part_that_is_drawn_over_is_filled(page, model):
    page.get_by_role("tab", name="Edit a picture").click()
    page.get_by_role("button", name="Fill").click()
    toast = page.locator(".toast-body")
    assert "there is no picture yet" in toast.inner_text()
    toast.get_by_role("button").last.click()
    page.locator(".thumbnail-item").nth(1).click()
    assert waited(lambda: field(page, "Class that it becomes").input_value() == "class1")
    page.wait_for_timeout(1000)  # until the canvas shows the example
    canvas = page.locator("canvas").first.bounding_box()
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(x, y - 40)
    page.mouse.down()
    page.mouse.move(x, y + 40, steps=10)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Fill").click()
    row = demo_page.grid_picture(model.sample(["class1"] * 4), 4)
    assert waited(lambda: shown(page).size == demo_page.enlarged(row).size)
