"""Editing: masks and feather against brute force and SciPy; what an edit may change, on tiny models
with random weights."""

import functools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.data.images.pixels import as_float, as_uint8
from pipeline.decoding import DecodingSettings
from pipeline.editing import (
    SIDES,
    box_mask,
    center_mask,
    edit,
    feather_weight,
    fill_unknown,
    outpaint_beyond,
    outpaint_mask,
    pixel_mask_to_tokens,
)
from pipeline.runtime.errors import UserError
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig

F_PIXELS, CODES, CLASSES = 2, 11, 3
DECODING = DecodingSettings(iterations=3, schedule="cosine", choice_temperature=4.5)


@functools.cache
def models(grid: int) -> tuple[MaskGitTransformer, Tokenizer]:
    """Random weights, scaled up so that what is predicted depends on the input."""
    torch.manual_seed(grid)
    config = TransformerConfig(
        grid**2, CODES, CLASSES, layers=2, hidden=16, heads=2, mlp=32, dropout=0.1
    )
    transformer = MaskGitTransformer(config).eval().requires_grad_(False)
    for weight in transformer.parameters():
        if weight.ndim == 2:
            weight.mul_(20)
    tokenizer = Tokenizer(TokenizerConfig(3, 32, (2, 2), 1, 8, CODES))
    torch.nn.init.normal_(tokenizer.quantizer.codebook)
    torch.nn.init.constant_(tokenizer.decoder.out.bias, 0.5)
    return transformer, tokenizer.eval().requires_grad_(False)


def random_images(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def distance(mask: torch.Tensor) -> torch.Tensor:
    """How many rows or columns, whichever is more, each pixel is from the mask; (H, W)."""
    if not mask.any():
        return torch.full(mask.shape, 10**6)
    return torch.from_numpy(ndimage.distance_transform_cdt(~mask.numpy(), "chessboard"))


@st.composite
def masks(draw, grid: int, batch: int = 1) -> torch.Tensor:
    """(B, H, W): empty, whole, a box, or any scatter of pixels, drawn for each row."""
    side = grid * F_PIXELS
    rows = []
    for _ in range(batch):
        kind = draw(st.sampled_from(["empty", "whole", "box", "scatter"]))
        if kind == "box":
            top, left = draw(st.integers(0, side - 1)), draw(st.integers(0, side - 1))
            height, width = draw(st.integers(1, side - top)), draw(st.integers(1, side - left))
            rows.append(box_mask((side, side), top, left, height, width))
        else:
            share = {"empty": 0.0, "whole": 1.0, "scatter": draw(st.floats(0, 1))}[kind]
            noise = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
            rows.append(torch.rand(side, side, generator=noise) < share)
    return torch.stack(rows)


# --- masks ----------------------------------------------------------------------------------------


def test_masks_of_table_2():
    center, right = center_mask((8, 12), 0.5), outpaint_mask((8, 12), "right", 0.5)
    rows, columns = center.nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([2, 3, 4, 5], [3, 4, 5, 6, 7, 8])
    assert center.sum() == 4 * 6
    assert right[:, 6:].all() and not right[:, :6].any()


def test_outpaint_masks_are_flips_and_turns_of_one_another():
    left = outpaint_mask((6, 8), "left", 0.25)
    assert left[:, :2].all() and not left[:, 2:].any()
    assert torch.equal(outpaint_mask((6, 8), "right", 0.25), left.flip(1))
    top = outpaint_mask((8, 6), "top", 0.25)
    assert torch.equal(top, left.T)
    assert torch.equal(outpaint_mask((8, 6), "bottom", 0.25), top.flip(0))


@pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, 0, 3, 9), (6, 0, 3, 3), (0, 0, 0, 3)])
def test_box_outside_of_the_image_names_itself(box):
    with pytest.raises(UserError, match="not inside an image of 8×8 pixels") as raised:
        box_mask((8, 8), *box)
    assert "\n" not in str(raised.value)


@settings(max_examples=60, deadline=None)
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


@pytest.mark.parametrize(
    ("top", "left", "height", "width"), [(64, 32, 128, 144), (0, 240, 256, 16)]
)
def test_tokens_of_an_aligned_box_match_the_release(top, left, height, width):
    """The release's bounds of the latent mask, for 256 pixels."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    rows = slice(max(0, top // 16 - 1), min(16, height // 16 + top // 16 + 1))
    columns = slice(max(0, left // 16 - 1), min(16, left // 16 + width // 16 + 1))
    mask[rows, columns] = True
    box = box_mask((256, 256), top, left, height, width)
    assert torch.equal(pixel_mask_to_tokens(box[None], 16)[0], mask)


@settings(max_examples=60, deadline=None)
@given(masks(8), st.integers(0, 9))
@example(box_mask((16, 16), 5, 0, 4, 3)[None], 9)
def test_feather_matches_scipy(mask, feather):
    radius = feather // 2
    reach = 2 * (feather - radius) + 1
    grown = ndimage.grey_dilation(mask[0].numpy().astype(float), (reach, reach), mode="nearest")
    expected = ndimage.gaussian_filter(grown, max(radius / 2, 1), mode="nearest", radius=radius)
    weight = feather_weight(mask, feather)[0]
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    away = distance(mask[0])
    assert (weight[away == 0] == 1).all() and (weight[away > feather] == 0).all()
    assert ((weight > 0) == (away <= feather)).all() and weight.max() <= 1


def test_feather_falls_with_the_distance():
    weight = feather_weight(box_mask((64, 64), 0, 0, 64, 20)[None], 16)[0]
    assert torch.equal(weight, weight[:1].expand(64, -1))
    ramp = weight[0, 19:37]
    assert ramp[0] == 1 and ramp[-1] == 0 and (ramp.diff() <= 0).all()
    assert ramp[8] > 0.5 > ramp[9]  # half-way


# --- fill -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(masks(3, 2), st.integers(0, 1000))
def test_unknown_pixels_take_a_nearest_known_value(mask, seed):
    images = random_images(seed, 2, 3, 6, 6)
    filled = fill_unknown(images, mask)
    for b in range(2):
        known = (~mask[b]).nonzero()
        for y in range(6):
            for x in range(6):
                if len(known) == 0:
                    assert (filled[b, :, y, x] == 0).all()
                    continue
                squared = (known - torch.tensor([y, x])).pow(2).sum(dim=1)
                nearest = known[squared == squared.min()]
                candidates = images[b][:, nearest[:, 0], nearest[:, 1]]  # (C, ties)
                assert (candidates == filled[b, :, y, x, None]).all(dim=0).any()


# --- an edit --------------------------------------------------------------------------------------


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


# --- beyond the image -----------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    side=st.sampled_from(list(SIDES)),
    wider=st.integers(0, 5),
    pixels=st.integers(0, 23),
    overlap=st.integers(1, 9),
    feather=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_outpainting_beyond_keeps_the_image(side, wider, pixels, overlap, feather, seed):
    model, tokenizer = models(5)
    axis, before = SIDES[side]
    shape = [1, 3, 10, 10]
    shape[axis] += wider
    images, labels = random_images(seed, *shape), torch.tensor([1])
    how = {"side": side, "pixels": pixels, "overlap": overlap, "feather": feather, "seed": seed}
    wide = outpaint_beyond(model, tokenizer, images, labels, DECODING, **how)

    shape[axis] += pixels
    assert list(wide.shape) == shape and wide.dtype == torch.uint8
    original = wide.narrow(axis, pixels if before else 0, images.shape[axis])
    if pixels == 0:
        feather = 0
    kept = images.shape[axis] - feather  # the rest is next to what was generated
    start = feather if before else 0
    assert torch.equal(original.narrow(axis, start, kept), images.narrow(axis, start, kept))
    again = outpaint_beyond(model, tokenizer, images, labels, DECODING, **how)
    assert torch.equal(wide, again)


@pytest.mark.parametrize("side", SIDES)
def test_outpainting_beyond_is_edits_of_windows_in_turn(side):
    model, tokenizer = models(5)
    axis, before = SIDES[side]
    images, labels = random_images(5, 2, 3, 10, 10), torch.tensor([0, 1])

    def outpaint(pixels):
        return outpaint_beyond(
            model,
            tokenizer,
            images,
            labels,
            DECODING,
            side=side,
            pixels=pixels,
            overlap=6,
            seed=9,
        )

    one, two, three = outpaint(4), outpaint(8), outpaint(10)
    # A longer extension goes on from a shorter one and changes it next to its edge only.
    for shorter, longer in ((one, two), (two, three)):
        extent = shorter.shape[axis]
        start = longer.shape[axis] - extent if before else 0
        part = longer.narrow(axis, start, extent)
        inner = (F_PIXELS if before else 0, extent - F_PIXELS)
        assert torch.equal(part.narrow(axis, *inner), shorter.narrow(axis, *inner))
        new = longer.narrow(axis, 0 if before else extent, longer.shape[axis] - extent)
        assert (new.flatten(2).amax(dim=-1) > 0).all()  # the blank that the window started with


def test_windows_draw_noise_of_their_own():
    model, tokenizer = models(5)
    images, labels = random_images(6, 1, 3, 10, 10), torch.tensor([0])
    # One column of overlap is not a whole token: both windows are generated from nothing.
    wide = outpaint_beyond(
        model, tokenizer, images, labels, DECODING, side="right", pixels=18, overlap=1, seed=0
    )
    assert not torch.equal(wide[..., 10:17], wide[..., 19:26])


def test_outpainting_beyond_says_what_does_not_fit():
    model, tokenizer = models(5)
    labels, how = torch.tensor([0]), {"side": "right", "pixels": 4, "seed": 0}
    with pytest.raises(UserError, match="8 pixels from side to side, a window 10"):
        outpaint_beyond(
            model, tokenizer, random_images(0, 1, 3, 10, 8), labels, DECODING, overlap=5, **how
        )
    with pytest.raises(UserError, match=r"overlap: .* 10 is not within 1–9"):
        outpaint_beyond(
            model, tokenizer, random_images(0, 1, 3, 10, 10), labels, DECODING, overlap=10, **how
        )
    with pytest.raises(UserError, match="the image has 12×10 pixels"):
        outpaint_beyond(
            model, tokenizer, random_images(0, 1, 3, 12, 10), labels, DECODING, overlap=5, **how
        )
