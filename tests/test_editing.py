"""What an edit may change and what it may see, on tiny models with random weights."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.images.pixels import as_float, as_uint8
from pipeline.decoding import DecodingSettings
from pipeline.editing import (
    box_mask,
    edit,
    feather_weight,
    fill_unknown,
    outpaint_mask,
    pixel_mask_to_tokens,
)
from pipeline.runtime.errors import UserError
from tests.editing_inputs import (
    CLASSES,
    CODES,
    DECODING,
    F_PIXELS,
    distance,
    masks,
    models,
    random_images,
)


@st.composite
def edits(draw) -> dict:
    """Arguments of any edit, rows of a batch with masks of their own."""
    grid = draw(st.sampled_from([1, 2, 5]))
    batch, seed = draw(st.integers(1, 3)), draw(st.integers(0, 1000))
    return {
        "images": random_images(seed, batch, 3, grid * F_PIXELS, grid * F_PIXELS),
        "mask": draw(masks(grid, batch)),
        "labels": torch.arange(batch) % CLASSES,
        "settings": DecodingSettings(
            iterations=draw(st.integers(1, 5)),
            schedule=draw(st.sampled_from(["cosine", "exponential", "logarithmic"])),
            choice_temperature=4.5,
            bf16=draw(st.booleans()),
        ),
        "seed": seed,
        "dilate": draw(st.integers(0, 2)),
        "feather": draw(st.sampled_from([None, 0, 1, 3, 8])),
    }


def grid_of(arguments: dict) -> int:
    return arguments["images"].shape[-1] // F_PIXELS


@settings(max_examples=60, deadline=None)
@given(edits())
def test_edit_changes_what_it_may_and_nothing_else(arguments):
    model, tokenizer = models(grid_of(arguments))
    images, mask = arguments["images"], arguments["mask"]
    edited = edit(model, tokenizer, **arguments)

    expected = pixel_mask_to_tokens(mask, grid_of(arguments), arguments["dilate"])
    assert torch.equal(edited.unknown, expected)
    assert ((edited.tokens >= 0) & (edited.tokens < CODES)).all()  # no [MASK] survives
    known = tokenizer.encode(as_float(fill_unknown(images, mask)))
    assert torch.equal(edited.tokens[~edited.unknown], known[~edited.unknown])
    assert torch.equal(edited.canvas, as_uint8(tokenizer.decode(edited.tokens)))

    feather = arguments["feather"]
    if feather is None:
        feather = arguments["dilate"] * F_PIXELS
    away = torch.stack([distance(row) for row in mask])
    weight = feather_weight(mask, feather)[:, None].double()
    blended = weight * edited.canvas + (1 - weight) * images
    assert ((edited.composite - blended).abs() < 0.5 + 1e-3).all()
    for got, image, canvas, apart in zip(
        edited.composite, images, edited.canvas, away, strict=True
    ):
        assert torch.equal(got[:, apart > feather], image[:, apart > feather])
        assert torch.equal(got[:, apart == 0], canvas[:, apart == 0])


@settings(max_examples=30, deadline=None)
@given(edits(), st.integers(0, 1000))
def test_edit_sees_nothing_of_what_is_hidden(arguments, other_seed):
    model, tokenizer = models(grid_of(arguments))
    images, hidden = arguments["images"], arguments["mask"][:, None]
    other = torch.where(hidden, random_images(other_seed, *images.shape), images)
    one = edit(model, tokenizer, **arguments)
    two = edit(model, tokenizer, **arguments | {"images": other})
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@settings(max_examples=30, deadline=None)
@given(edits())
def test_default_feather_blends_with_generated_content_only(arguments):
    model, tokenizer = models(grid_of(arguments))
    edited = edit(model, tokenizer, **arguments | {"feather": None})
    generated = edited.unknown.repeat_interleave(F_PIXELS, 1).repeat_interleave(F_PIXELS, 2)
    changed = (edited.composite != arguments["images"]).any(dim=1)
    assert not (changed & ~generated).any()


@pytest.mark.parametrize("grid", [1, 5])
def test_empty_mask_returns_the_image_and_whole_mask_the_canvas(grid):
    model, tokenizer = models(grid)
    side = grid * F_PIXELS
    images, labels = random_images(0, 2, 3, side, side), torch.tensor([0, 1])
    nothing = torch.zeros(side, side, dtype=torch.bool)
    empty = edit(model, tokenizer, images, nothing, labels, DECODING, seed=0)
    assert torch.equal(empty.composite, images) and not empty.unknown.any()
    whole = edit(model, tokenizer, images, ~nothing, labels, DECODING, seed=0)
    assert torch.equal(whole.composite, whole.canvas) and whole.unknown.all()
    assert not torch.equal(whole.composite, images)


def test_edit_is_a_function_of_its_seed():
    model, tokenizer = models(5)
    images, labels = random_images(1, 2, 3, 10, 10), torch.tensor([0, 2])
    mask = outpaint_mask((10, 10), "right", 0.5)

    def run(seed):
        return edit(model, tokenizer, images, mask, labels, DECODING, seed=seed)

    assert all(torch.equal(a, b) for a, b in zip(run(3), run(3), strict=True))
    assert not torch.equal(run(3).tokens, run(4).tokens)


def test_every_iteration_starts_from_what_is_known(monkeypatch):
    """⌊10·cos(πk/8)⌋ of 10 unknown tokens are masked in the k-th pass; the others stay."""
    model, tokenizer = models(5)
    images, box = random_images(3, 1, 3, 10, 10), box_mask((10, 10), 0, 0, 10, 4)
    seen, predict = [], model.predict
    monkeypatch.setattr(model, "predict", lambda *inputs: seen.append(inputs) or predict(*inputs))
    four = replace(DECODING, iterations=4)
    edited = edit(model, tokenizer, images, box, torch.tensor([0]), four, seed=0, dilate=0)
    assert [mask.sum().item() for _, mask, _ in seen] == [10, 9, 7, 3]
    assert torch.equal(seen[0][1], edited.unknown.flatten(1))
    for tokens, mask, _ in seen:
        assert torch.equal(edited.tokens.flatten(1)[~mask], tokens[~mask])


def test_another_label_or_guidance_changes_the_box_only():
    """Class-conditional editing, Figure 6."""
    model, tokenizer = models(5)
    images, box = random_images(2, 1, 3, 10, 10), box_mask((10, 10), 0, 0, 4, 4)

    def run(label, **changes):
        labels, how = torch.tensor([label]), replace(DECODING, **changes)
        return edit(model, tokenizer, images, box, labels, how, seed=0)

    own = run(0)
    for other in (run(1), run(0, guidance_scale=3.0)):
        assert not torch.equal(other.tokens[other.unknown], own.tokens[own.unknown])
        outside = distance(box) > F_PIXELS
        assert torch.equal(other.composite[..., outside], own.composite[..., outside])


@pytest.mark.parametrize("name", ["image", "mask"])
def test_wrong_size_names_what_has_it(name):
    model, tokenizer = models(2)
    sizes = {"image": 4, "mask": 4} | {name: 6}
    images, mask = random_images(0, 1, 3, 4, sizes["image"]), torch.ones(4, sizes["mask"]).bool()
    with pytest.raises(UserError, match=f"the {name} has 4×6 pixels .* 4×4; resize"):
        edit(model, tokenizer, images, mask, torch.tensor([0]), DECODING, seed=0)
