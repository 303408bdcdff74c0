"""Arguments of the API that are odd to Python itself: said in a line, or taken as meant."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.api.labels import class_labels
from pipeline.api.numbers import elements, require_name
from pipeline.api.pictures import pixel_mask
from pipeline.cli.options import one_or_all
from pipeline.runtime.errors import ArgumentError, UserError
from tests.errors import one_line

HUGE = 10**5000  # which Python does not show


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, box=np.array(1)),
            "box: ndarray without axes",
        ),
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, box=HUGE), "box: a value of int is not left"),
        (
            lambda m: m.outpaint(torch.zeros(1, 1, 8, 8), 0, sides=torch.tensor(1)),
            "sides: Tensor without axes",
        ),
        (lambda m: m.encode(np.array(1)), "pictures: ndarray without axes; give a list"),
        (lambda m: m.sample(0, 1, bf16=HUGE), "bf16: a value of int is neither true nor false"),
        *(
            (lambda m, of=of: m.sample(of([True, False])), "classes: .* has no class .*True")
            for of in (list, np.array, torch.tensor)
        ),
        (
            lambda m: m.outpaint(torch.zeros(1, 1, 8, 8), 0, sides=np.zeros((2, 2))),
            "sides: .*; use left, right or both",
        ),
        (lambda m: m.sample(""), r"classes: this model has no class \(an empty text\); use 0 to"),
        (lambda m: m.sample(np.array("x")), "classes: this model has no class x"),
        (lambda m: m.encode(""), r"pictures: .*is no path \(it is empty\)"),
        (
            lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, mask=Image.new("F", (8, 8))),
            "mask: one is of numbers whose range",
        ),
        (
            lambda m: m.encode(torch.zeros(1, 1, 8, 8).expand(10**12, -1, -1, -1)),
            "pictures: 1,000,000,000,000 are more than the limit",
        ),
        (
            lambda m: m.to_pil(
                torch.zeros(1, 1, 8, 8, dtype=torch.uint8).expand(10**12, -1, -1, -1)
            ),
            "images: 1,000,000,000,000 are more than the limit",
        ),
        (lambda m: m.sample(0, torch.tensor(1, device="meta")), "count: .* is no whole number"),
        (lambda m: m.sample(0, True), "count: True is no whole number"),
        (lambda m: m.sample(0, torch.tensor(True)), "count: .* is no whole number"),
        (lambda m: m.sample(0, 1, seed=True), "seed: True is no whole number"),
        (lambda m: m.sample(0, 1, temperature=True), "temperature: True is no number"),
        (lambda m: m.sample(range(10**9)), "classes: more than 100,000,000"),
        (lambda m: m.sample(range(10**30)), "classes: .*; give a list"),
        (lambda m: m.sample(np.broadcast_to(np.int64(0), 10**9)), "classes: more than 100,000,000"),
        (lambda m: MaskGIT.from_released("", ""), r"tokenizer: .*is no path \(it is empty\)"),
        (lambda m: MaskGIT.from_released(None, None), "tokenizer: None is no path"),
        (lambda m: m.sample(torch.tensor(1, device="meta")), "classes: this model has no class"),
        *(
            (lambda m, seed=seed: MaskGIT.from_pretrained(".", seed=seed), "seed: .* is no whole")
            for seed in (1.0, torch.tensor([0, 1]), np.array([]), "1")
        ),
    ],
)
def test_what_is_odd_is_said_in_a_line(model, call, message):
    with pytest.raises(ArgumentError, match=message) as error:
        call(model)
    one_line(error)


HALF = np.zeros((8, 8), bool)
HALF[:, :4] = True


@pytest.mark.parametrize(
    "mask",
    [
        *(HALF.astype(kind) for kind in ("u1", "i4", ">i4", "f4", ">f8", "i8")),
        *(HALF.astype(kind) * 255 for kind in ("u1", "i4", ">u2", "f4")),
        HALF.astype("u1") * 154 + 100,
        HALF[:, ::-1][:, ::-1],
        torch.from_numpy(HALF),
    ],
)
def test_a_mask_is_of_0_and_1_or_255_or_a_picture_of_bytes(mask):
    assert torch.equal(pixel_mask(None, mask, {(8, 8)}, 8), torch.from_numpy(HALF))


@pytest.mark.parametrize("value", [0.2, -1.0, float("nan"), -1, 2, 200, 1j, 1 + 0j])
def test_other_numbers_are_no_mask(value):
    with pytest.raises(ArgumentError, match=r"mask: .* numbers.*; give True and False"):
        pixel_mask(None, HALF * value, {(8, 8)}, 8)


def test_a_mask_that_only_says_it_is_large_takes_no_memory():
    sides = (10**7, 10**7)
    for mask in (np.broadcast_to(np.array(True), sides), torch.zeros(1, dtype=bool).expand(sides)):
        with pytest.raises(ArgumentError, match="mask: 100,000,000,000,000 numbers; give fewer"):
            pixel_mask(None, mask, {(8, 8)}, 8)


def test_tokens_of_any_order_of_bytes_are_read(model):
    tokens = np.zeros((2, 4, 4), np.int64)
    expected = model.decode(torch.from_numpy(tokens))
    for given in (tokens.astype(">i8"), tokens[:, ::-1]):
        assert torch.equal(model.decode(given), expected)


def test_a_class_whose_name_has_a_comma_is_chosen_by_it():
    names = ["salt, pepper", "salt", "b"]
    assert one_or_all("salt, pepper", names) == ["salt, pepper"]
    assert one_or_all("salt,b", names) == ["salt", "b"]
    assert one_or_all(None, names) is None


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("s3://bucket/a.png", "is no path but an address; name a file or folder here"),
        ("file:///tmp/a.png", "is no path but an address"),
        ("~/a.png", "begins with ~, which no shell has replaced; write it out"),
    ],
)
def test_an_address_is_no_output(tmp_path, output, reason):
    with pytest.raises(UserError, match=reason) as error:
        require_name("--output", Path(output))
    one_line(error)


@pytest.mark.parametrize("folder", ["s3://bucket/model", "-", "~/model"])
def test_a_model_is_saved_where_a_path_is(model, folder):
    with pytest.raises(UserError, match=r"^folder: .*(no path but an address|nothing|begins)"):
        model.save_pretrained(folder)


def test_what_has_no_end_is_given_up(monkeypatch):
    monkeypatch.setattr("pipeline.api.numbers.BATCH", 100)
    with pytest.raises(ArgumentError, match="more than 100, or without an end; give fewer"):
        elements("classes", itertools.repeat(3))
    assert len(elements("classes", iter(range(100)))) == 100


def test_a_class_in_an_array_without_axes_is_that_class(model):
    expected = model.sample("1", 2)
    for given in (np.array("1"), np.array(1), torch.tensor(1)):
        assert torch.equal(model.sample(given, 2), expected)


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["01", "02", "03"], "1"),
        (["1", "2", "3"], "0"),
        (["10", "20", "30"], "2"),
        (["0", "1", "2"], "01"),
        (["0", "1", "2"], "-0"),
    ],
)
def test_a_number_that_may_mean_another_class_is_none(names, given):
    with pytest.raises(ArgumentError, match=r"^classes: "):
        class_labels(given, names)
    assert class_labels([names[2], 1], names).tolist() == [2, 1]  # a name, and a number


def test_a_mask_with_transparency_is_refused(tmp_path):
    """White strokes on nothing: on a light background all of it would be made anew."""
    strokes = Image.new("RGBA", (64, 40))
    strokes.paste("white", (10, 10, 20, 20))
    strokes.save(tmp_path / "strokes.png")
    for mask in (strokes, tmp_path / "strokes.png"):
        with pytest.raises(UserError, match="partly transparent; paint it in black and white"):
            pixel_mask(None, mask, {(64, 40)}, 8)
    opaque = Image.new("L", (64, 40), 255).convert("LA").convert("La")
    assert pixel_mask(None, opaque, {(64, 40)}, 8).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(b"\x01"), "classes: bytes; give a list"),
        (lambda m: m.sample({1: 2}), "classes: dict; give a list"),
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, box=b"\x00\x00\x04\x04"), "box: bytes"),
        (lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, mask=range(10**9)), "mask: 1,000,000,000"),
        (
            lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, mask=np.ma.masked_all((8, 8), bool)),
            "mask: a masked array; give a plain one",
        ),
        (
            lambda m: m.edit(torch.zeros(1, 1, 8, 8), 0, mask=pd.DataFrame(np.ones((8, 8), bool))),
            "mask: no picture, and no array of numbers; give one",
        ),
        (
            lambda m: m.decode(torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])),
            "tokens: no plain, dense tensor; give one",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_python_goes_through_and_is_no_list_is_refused(model, call, message):
    with pytest.raises(ArgumentError, match=message) as error:
        call(model)
    one_line(error)


@pytest.mark.parametrize("name", ["new\nline.png", "latin\udcff", "~root/x.png"])
def test_outputs_have_names_that_are_text(name):
    with pytest.raises(UserError, match=r"are no text|begins with ~"):
        require_name("FILE", Path(name))
    require_name("FILE", Path("a \u00a0 b\u3000é.png"))
