"""Which pixels an edit changes and which it reads, on tiny models with random weights."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.data.images.pixels import as_float, as_uint8
from pipeline.decoding.samplers import SAMPLERS
from pipeline.decoding.settings import DecodingSettings
from pipeline.editing import (
    box_mask,
    center_mask,
    edit,
    feather_weight,
    fill_unknown,
    outpaint_mask,
    pixel_mask_to_tokens,
)
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
    """Draw the arguments of an edit."""
    grid = draw(st.sampled_from([1, 2, 5]))
    batch, seed = draw(st.integers(1, 3)), draw(st.integers(0, 1000))
    return {
        "images": random_images(seed, batch, 3, grid * F_PIXELS, grid * F_PIXELS),
        "mask": draw(masks(grid))[0],
        "labels": torch.arange(batch) % CLASSES,
        "settings": DecodingSettings(
            iterations=draw(st.integers(1, 5)),
            schedule=draw(st.sampled_from(["cosine", "exponential", "logarithmic"])),
            choice_temperature=4.5,
            bf16=draw(st.booleans()),
            sampler=draw(st.sampled_from(list(SAMPLERS))),
            remasking=0.5,
        ),
        "seed": seed,
        "dilate": draw(st.integers(0, 2)),
        "feather": draw(st.sampled_from([0, 1, 3, 8])),
    }


def grid_of(arguments: dict) -> int:
    return arguments["images"].shape[-1] // F_PIXELS


@settings(max_examples=30, deadline=None)
@given(edits())
def test_edit_changes_what_it_may_and_nothing_else(arguments):
    model, tokenizer = models(grid_of(arguments))
    images, mask = arguments["images"], arguments["mask"]
    edited = edit(model, tokenizer, **arguments)

    expected = pixel_mask_to_tokens(mask[None], grid_of(arguments), arguments["dilate"])
    assert torch.equal(edited.unknown, expected.expand(len(images), -1, -1))
    assert ((edited.tokens >= 0) & (edited.tokens < CODES)).all()  # no [MASK] survives
    known = tokenizer.encode(as_float(fill_unknown(images, mask)))
    assert torch.equal(edited.tokens[~edited.unknown], known[~edited.unknown])
    assert torch.equal(edited.canvas, as_uint8(tokenizer.decode(edited.tokens)))

    feather, away = arguments["feather"], distance(mask)
    weight = feather_weight(mask[None], feather)[:, None].double()
    blended = weight * edited.canvas + (1 - weight) * images
    assert ((edited.composite - blended).abs() < 0.5 + 1e-3).all()
    assert torch.equal(edited.composite[..., away > feather], images[..., away > feather])
    assert torch.equal(edited.composite[..., away == 0], edited.canvas[..., away == 0])


@settings(max_examples=15, deadline=None)
@given(edits(), st.integers(0, 1000))
def test_edit_sees_nothing_of_what_is_hidden(arguments, other_seed):
    model, tokenizer = models(grid_of(arguments))
    images, hidden = arguments["images"], arguments["mask"]
    other = torch.where(hidden, random_images(other_seed, *images.shape), images)
    one = edit(model, tokenizer, **arguments)
    two = edit(model, tokenizer, **arguments | {"images": other})
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_every_iteration_starts_from_what_is_known(monkeypatch):
    """In pass k, ⌊10·cos(πk/8)⌋ of 10 unknown tokens are masked; known ones stay."""
    model, tokenizer = models(5)
    images, box = random_images(3, 1, 3, 10, 10), box_mask((10, 10), 0, 0, 10, 4)
    seen, predict = [], model.predict
    monkeypatch.setattr(model, "predict", lambda *inputs: seen.append(inputs) or predict(*inputs))
    four = replace(DECODING, iterations=4)
    edited = edit(
        model, tokenizer, images, box, torch.tensor([0]), four, seed=0, dilate=0, feather=0
    )
    assert [mask.sum().item() for _, mask, _ in seen] == [10, 9, 7, 3]
    assert torch.equal(seen[0][1], edited.unknown.flatten(1))
    for tokens, mask, _ in seen:
        assert torch.equal(edited.tokens.flatten(1)[~mask], tokens[~mask])


def test_another_label_or_guidance_gives_other_tokens():
    """Class-conditional editing (Figure 6)."""
    (model, tokenizer), images = models(5), random_images(2, 1, 3, 10, 10)

    def tokens(label, **changes):
        how, box = replace(DECODING, **changes), box_mask((10, 10), 0, 0, 4, 4)
        label, borders = torch.tensor([label]), {"dilate": 1, "feather": 2}
        return edit(model, tokenizer, images, box, label, how, seed=0, **borders).tokens

    for other in (tokens(1), tokens(0, guidance_scale=3.0)):
        assert not torch.equal(other, tokens(0))


def test_masks_of_table_2():
    center, right = center_mask((8, 12), 0.5), outpaint_mask((8, 12), "right", 0.5)
    rows, columns = center.nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([2, 3, 4, 5], [3, 4, 5, 6, 7, 8])
    assert right[:, 6:].all() and not right[:, :6].any()
    left, top = outpaint_mask((6, 8), "left", 0.25), outpaint_mask((8, 6), "top", 0.25)
    assert torch.equal(outpaint_mask((6, 8), "right", 0.25), left.flip(1))
    assert torch.equal(top, left.T) and left[:, :2].all() and not left[:, 2:].any()
    assert torch.equal(outpaint_mask((8, 6), "bottom", 0.25), top.flip(0))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5).flatmap(lambda g: st.tuples(st.just(g), masks(g, 2))), st.integers(0, 2))
def test_pixel_mask_to_tokens_matches_loops(grid_and_mask, dilate):
    grid, mask = grid_and_mask
    expected = torch.zeros(len(mask), grid, grid, dtype=torch.bool)
    for b, y, x in mask.nonzero().tolist():
        for row in range(grid):
            for column in range(grid):
                near = max(abs(row - y // F_PIXELS), abs(column - x // F_PIXELS)) <= dilate
                expected[b, row, column] |= near
    assert torch.equal(pixel_mask_to_tokens(mask, grid, dilate), expected)


@settings(max_examples=30, deadline=None)
@given(masks(8), st.integers(0, 9))
@example(box_mask((16, 16), 5, 0, 4, 3)[None], 9)
def test_feather_matches_scipy(mask, feather):
    radius = feather - feather // 2
    reach = 2 * (feather // 2) + 1
    grown = ndimage.grey_dilation(mask[0].numpy().astype(float), (reach, reach), mode="nearest")
    expected = ndimage.gaussian_filter(grown, max(radius / 2, 1), mode="nearest", radius=radius)
    expected[mask[0]] = 1
    weight = feather_weight(mask, feather)[0]
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    away = distance(mask[0])
    assert (weight[away == 0] == 1).all() and (weight[away > feather] == 0).all()
    assert ((weight > 0) == (away <= feather)).all() and weight.max() <= 1


@settings(max_examples=15, deadline=None)
@given(masks(3), st.integers(0, 1000))
def test_unknown_pixels_take_a_nearest_known_value(mask, seed):
    images = random_images(seed, 2, 3, 6, 6)
    hidden = mask[0]
    filled = fill_unknown(images, hidden)
    places = torch.ones(6, 6).nonzero()
    for image, found in zip(images.flatten(2), filled.flatten(2), strict=True):
        if hidden.all():
            assert not found.any()
            continue
        apart = (places[:, None] - places).pow(2).sum(dim=-1)[:, ~hidden.flatten()]
        nearest = apart == apart.min(dim=1, keepdim=True).values
        same = (found[:, :, None] == image[:, None, ~hidden.flatten()]).all(dim=0)
        assert (same & nearest).any(dim=1).all()
