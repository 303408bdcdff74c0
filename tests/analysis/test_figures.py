"""The pixels of the analysis' figures, and the curves in the figure of schedules."""

from unittest.mock import patch

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from analysis.exhibits import drawing, samples, schedules
from analysis.exhibits.drawing import draw_mosaic

COLOURS = np.array([[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]], np.uint8)
SOLID = np.broadcast_to(COLOURS.reshape(2, 2, 1, 1, 3), (2, 2, 16, 16, 3))  # cell i has colour i
DPI = 80  # a cell of the smallest size, 0.6 inches, has a whole number of pixels


@pytest.fixture(autouse=True)
def resolution(monkeypatch):
    monkeypatch.setattr(drawing, "DPI", DPI)


def places_of(path, colour: np.ndarray) -> np.ndarray:
    """Return an array (n, 2) with the row and column of each pixel of a colour."""
    pixels = np.asarray(Image.open(path).convert("RGBA"))
    return np.argwhere((pixels[..., :3] == colour).all(-1) & (pixels[..., 3] == 255))


def test_a_mosaic_has_every_picture_in_its_place_on_a_transparent_ground(tmp_path):
    empty = np.array([[False, False], [False, True]])
    labels = {"row_labels": ["a", "b"], "column_labels": ["c", "d"]}
    draw_mosaic(SOLID, tmp_path / "a.png", empty=empty, block=(2, 1), **labels)
    draw_mosaic(SOLID, tmp_path / "b.png", empty=empty, block=(2, 2), **labels)
    places = [places_of(tmp_path / "a.png", colour) for colour in COLOURS]
    *areas, none = [len(place) for place in places]
    assert min(areas) == pytest.approx((0.6 * DPI) ** 2, rel=0.1) and none == 0
    (top, left), (_, right), (bottom, _) = (place.mean(axis=0) for place in places[:3])
    assert left < right and top < bottom
    corner = np.asarray(Image.open(tmp_path / "a.png"))[-1, -1]
    assert corner[3] == 0

    def gap(name: str) -> int:  # pixels between the pictures of the upper row
        left, right = (places_of(tmp_path / name, COLOURS[i])[:, 1] for i in (0, 1))
        return right.min() - left.max()

    assert gap("a.png") > 2 * gap("b.png")


def test_tokens_that_are_masked_again_are_covered_but_not_those_of_the_answer(tmp_path):
    images = np.zeros((2, 1, 16, 16, 3), np.uint8) + COLOURS[0]
    masked = np.zeros((2, 1, 2, 2), bool)
    masked[0, 0, 0] = True  # the upper half is masked after the first iteration
    masked[1] = True  # the last mask is ignored, since the result has no masked tokens
    samples.draw_decoding(images, masked, tmp_path / "decoding.png")
    covered = np.rint(COLOURS[0] * 0.2 + 150 * 0.8)
    seen, hidden = (places_of(tmp_path / "decoding.png", c) for c in (COLOURS[0], covered))
    # One and a half of the two pictures are not covered.
    assert len(seen) == pytest.approx(3 * len(hidden), rel=0.1)
    assert hidden[:, 0].max() < seen[:, 0].max()
    assert hidden[:, 1].max() < seen[:, 1].max()


def test_the_curves_are_those_of_the_swept_schedules(found, params, tmp_path):
    with patch.object(Axes, "plot", autospec=True, side_effect=Axes.plot) as plot:
        schedules.curves(found, params).draw(tmp_path / "a.png")
    drawn = {call.kwargs["label"]: call.args[1:] for call in plot.call_args_list}
    assert len(drawn) == 7
    r, gamma = drawn["square root"][:2]
    expected = found.curves["square_root"].set_index("r")["gamma"]
    assert len(r) > 3 and list(gamma) == list(expected[r])
