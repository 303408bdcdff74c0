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
    """Of the page; its server says nothing else, and leaves nothing behind."""
    folder = tmp_path_factory.mktemp("tmp")
    # A proxy that does not answer, as people have one that does not know their own machine.
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder),
        "HTTP_PROXY": "http://[::1]:9",
    }
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
    """The page, opened; it reports no error and asks nobody else for anything."""
    window, complaints = browser.new_page(viewport={"width": 1280, "height": 1000}), []
    window.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    window.on("pageerror", lambda error: complaints.append(str(error)))
    window.on("request", lambda r: ours(r.url, address) or complaints.append(r.url))
    window.goto(address)
    window.get_by_role("button", name="Draw").wait_for()
    yield window
    window.close()
    assert complaints == []


def ours(url: str, address: str) -> bool:
    return url.startswith((address, "blob:", "data:"))


def shown(page, number: int = 0) -> Image.Image:
    """A picture of the tab in front, as the server sent it."""
    source = page.locator(".image-frame img:visible").nth(number).get_attribute("src")
    return Image.open(BytesIO(page.request.get(source).body()))


def field(page, label: str):
    """A control of the tab in front."""
    return page.get_by_label(label, exact=True).locator("visible=true")


def message(page) -> str:
    """What the page says is wrong; then it is closed."""
    toast = page.locator(".toast-body")
    text = toast.inner_text().split("\n")[-1]
    toast.get_by_role("button").last.click()
    return text


def same(picture: Image.Image, wanted: Image.Image) -> bool:
    enlarged = demo_page.enlarged(wanted)
    return np.array_equal(np.array(picture.convert("L")), np.array(enlarged))


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError("not within 20 seconds")


def test_samples_are_drawn_and_the_slider_goes_back(page, model):
    field(page, "Seed").fill("4")
    page.get_by_role("button", name="Draw").click()
    canvases = [canvas for canvas, _ in demo_page.canvases(model, None, 10, 4)]
    wait_until(lambda: same(shown(page), canvases[3]))
    assert re.fullmatch(r"cosine, \d+\.\d\d s", page.locator(".prose:visible").last.inner_text())
    field(page, "number input for Iteration shown").fill("1")
    wait_until(lambda: same(shown(page), canvases[1]))


def test_two_schedules_start_from_one_seed(page, model):
    page.get_by_role("tab", name="Two schedules").click()
    field(page, "Class").click()
    page.get_by_role("option", name="class2").click()
    wait_until(lambda: field(page, "Class").input_value() == "class2")
    field(page, "number input for Iterations T").fill("5")
    field(page, "number input for Iterations T").press("Tab")
    slider = field(page, "range slider for Iterations T")
    wait_until(lambda: slider.input_value() == "5")  # it follows what the page has taken
    page.get_by_role("button", name="Draw").click()
    for number, schedule in enumerate(("cosine", "exponential")):
        settings = {"schedule": schedule, "iterations": 5}
        *_, (last, _) = demo_page.canvases(model, "class2", 10, 0, **settings)
        wait_until(lambda n=number, wanted=last: same(shown(page, n), wanted))
        assert page.get_by_text(f"{schedule}, ").count() == 1


def test_a_part_that_is_drawn_over_is_filled(page, model):
    page.get_by_role("tab", name="Edit a picture").click()
    page.get_by_role("button", name="Fill").click()
    assert "there is no picture yet" in message(page)
    page.locator(".thumbnail-item").nth(1).click()
    wait_until(lambda: field(page, "Class that it becomes").input_value() == "class1")
    page.wait_for_timeout(1000)  # until the canvas shows it
    canvas = page.locator("canvas").first.bounding_box()
    x, y = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(x, y - 40)
    page.mouse.down()
    page.mouse.move(x, y + 40, steps=10)
    page.mouse.up()
    page.wait_for_timeout(500)
    page.get_by_role("button", name="Fill").click()
    page.get_by_text(re.compile(r"^cosine, \d+\.\d\d s$")).locator("visible=true").wait_for()
    row = demo_page.grid_picture(model.sample(["class1"] * 4), 4)
    wait_until(lambda: shown(page).size == demo_page.enlarged(row).size)


@pytest.mark.parametrize(
    ("label", "value", "said"), [("Choice temperature", "-1", "temperature"), ("Seed", "", "seed")]
)
def test_a_wrong_value_is_a_message_in_the_page(page, label, value, said):
    field(page, label).fill(value)
    page.get_by_role("button", name="Draw").click()
    assert said in message(page)
