"""`from pipeline import MaskGIT`: sampling, editing, encoding, and the arguments of each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.api.labels import labels_for
from pipeline.api.pictures import pixel_mask
from pipeline.config.paths import TOKENIZER
from pipeline.data.images.pixels import center_crop
from pipeline.data.seeds import mix
from pipeline.decoding.iterative import generate
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.schedules import SCHEDULES
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model
from tests.errors import refused
from tests.tiny_project import CLASSES, CODES, GRID, SIDE, validation, with_params

FACTOR = SIDE // GRID
HALF = np.zeros((8, 8), bool)
HALF[:, :4] = True


@pytest.fixture
def pictures(project, monkeypatch) -> torch.Tensor:
    monkeypatch.chdir(project)
    return validation(5)[0]


def test_a_project_gives_its_model_its_classes_and_its_settings(project, model):
    assert model.classes == ("class0", "class1", "class2")
    assert (model.image_size, model.channels, model.grid) == (SIDE, 1, GRID)
    assert model.defaults.decoding == with_params().decoding_settings()
    second = MaskGIT.from_pretrained(project / "models", seed=1, device="cpu")
    other = load_model(project / "models/transformer/main/seed1", "transformer")
    for ours, theirs in zip(second.transformer.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_samples_are_those_of_the_decoder_and_the_tokenizer(project, model):
    images = model.sample(["class2", 0], 4, seed=7, iterations=2, schedule="linear", temperature=0)
    settings = with_params(
        decoding={"iterations": 2, "choice_temperature": 0.0},
        training={"mask_schedule": "linear"},
    ).decoding_settings()
    labels = torch.tensor([2, 0, 2, 0])
    *_, last = generate(model.transformer, labels, settings, seed=mix(7, "batch", 0))
    tokenizer = load_model(project / TOKENIZER, "tokenizer")
    assert torch.equal(images, tokens_to_images(tokenizer, last.sampled))
    assert images.dtype == torch.uint8 and images.shape == (4, 1, SIDE, SIDE)


def test_a_seed_repeats_and_numbers_of_any_library_are_the_same(model, pictures):
    first = model.sample(count=20, seed=3)
    assert torch.equal(first, model.sample(count=20, seed=3))
    assert not torch.equal(first, model.sample(count=20, seed=4))
    ours = model.sample(count=3, seed=5, iterations=4, temperature=2.5)
    numpys = {"seed": np.int64(5), "iterations": np.int32(4), "temperature": np.float32(2.5)}
    assert torch.equal(model.sample(count=np.int64(3), **numpys), ours)
    edited = model.edit(pictures, 0, box=np.array([0, 0, 4, 4]), seed=np.uint8(3))
    assert torch.equal(edited, model.edit(pictures, 0, box=(0, 0, 4, 4), seed=3))
    tokens = model.encode(pictures)
    for given in (tokens.numpy(), tokens.to(torch.uint8)):
        assert torch.equal(model.decode(given), model.decode(tokens))


def test_classes_are_names_or_numbers(model):
    assert len(model.sample()) == CLASSES
    expected = model.sample("class1", 2)
    for given in ("1", 1, [1], np.array(1), torch.tensor([1]), np.int64(1)):
        assert torch.equal(model.sample(given, 2), expected)
    names = ["crane", "maillot", "crane"]  # as in torchvision's ImageNet
    with pytest.raises(ArgumentError, match="0, 2 are all named crane"):
        labels_for("crane", None, names)
    assert labels_for(["2", 0, "maillot"], None, names).tolist() == [2, 0, 1]
    # If class names are numbers, a text is only a name, never a class number.
    for names, text in ((["01", "02", "03"], "1"), (["1", "2", "3"], "0"), (["10", "20"], "1")):
        with pytest.raises(ArgumentError):
            labels_for(text, None, names)
        assert labels_for([names[1], 1], None, names).tolist() == [1, 1]  # a name, and a number


def test_the_canvas_fills_until_it_is_the_sample(model):
    canvases = list(model.sample_steps("class1", 6, seed=2))
    assert [canvas.iteration for canvas in canvases] == [1, 2, 3]
    hidden = [int(canvas.masked.sum()) for canvas in canvases]
    assert hidden[0] > hidden[1] > hidden[2] == 0
    first = canvases[0]
    assert (first.shown[first.masked[:, None]] == 128).all()
    assert torch.equal(first.shown[~first.masked[:, None]], first.images[~first.masked[:, None]])
    blocks = first.masked.unflatten(1, (GRID, FACTOR)).unflatten(3, (GRID, FACTOR))
    assert torch.equal(blocks.amax((2, 4)), blocks.amin((2, 4)))  # whole tokens are masked
    assert torch.equal(canvases[-1].images, model.sample("class1", 6, seed=2))


def test_inpainting_keeps_what_is_far_from_the_hole_and_reads_nothing_in_it(model, pictures):
    box = (2, 2, 6, 6)
    filled = model.inpaint(pictures, 1, box=box, seed=1)
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[2:6, 2:6] = True
    near = torch.zeros_like(hole)
    near[1:7, 1:7] = True  # editing.feather is 1
    assert torch.equal(filled[..., ~near], pictures[..., ~near])
    assert not torch.equal(filled[..., hole], pictures[..., hole])
    blank = pictures.masked_fill(hole, 0)
    assert torch.equal(model.inpaint(blank, 1, mask=hole, seed=1)[..., hole], filled[..., hole])
    assert torch.equal(model.edit(pictures, "class1", seed=1), filled)  # by default, the centre


def test_boxes_and_masks_count_in_the_pixels_of_the_picture_as_it_is(model, pictures):
    small = model.to_pil(pictures[:1])[0]
    large = Image.new("L", (SIDE * 6, SIDE * 4))  # its centred square begins at column 8
    large.paste(small.resize((SIDE * 4, SIDE * 4), Image.Resampling.NEAREST), (SIDE, 0))
    box = (SIDE + 4 * 2, 4 * 2, SIDE + 4 * 6, 4 * 6)
    by_box = model.inpaint(large, 2, box=box)
    resized = torch.from_numpy(np.array(center_crop(large, SIDE)))[None, None]
    # Resized pixels next to the box depend on pixels in the box.
    assert torch.equal(model.inpaint(resized, 2, box=(1, 1, 7, 7)), by_box)
    mask = np.zeros((SIDE * 4, SIDE * 6), np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    assert torch.equal(model.inpaint(large, 2, mask=Image.fromarray(mask)), by_box)
    assert torch.equal(model.inpaint([large], 2, mask=mask > 0), by_box)


@pytest.mark.parametrize("side", [2 * SIDE, 7 * SIDE + 3])
def test_nothing_in_a_hole_is_looked_at_though_the_picture_is_made_smaller(model, side):
    noise = np.random.default_rng(0).integers(0, 256, (side, side), dtype=np.uint8)
    box = (side // 4, side // 4, side // 2, side // 2)
    filled = []
    for value in (0, 255):
        noise[box[1] : box[3], box[0] : box[2]] = value
        filled.append(model.inpaint(Image.fromarray(noise), 1, box=box))
    assert torch.equal(*filled)


def test_outpainting_adds_to_the_sides_and_keeps_the_picture(model, pictures):
    wide = model.outpaint(pictures, [0, 1, 2, 0, 1], sides=["left", "right"], pixels=5)
    assert wide.shape == (5, 1, SIDE, SIDE + 10)
    assert torch.equal(wide[..., 6 : SIDE + 4], pictures[..., 1:-1])  # without the feather
    assert model.outpaint(pictures, 0, sides="top").shape == (5, 1, SIDE + SIDE // 2, SIDE)


def test_tokens_go_there_and_back(model, pictures, tmp_path):
    tokens = model.encode(pictures)
    assert torch.equal(tokens, model.tokenizer.encode(pictures.float() / 255))
    assert torch.equal(model.reconstruct(model.to_pil(pictures)), model.decode(tokens))
    assert torch.equal(model.encode(pictures.float() / 255), tokens)
    assert torch.equal(model.encode(pictures[0]), tokens[:1])
    path = tmp_path / "picture.png"
    model.to_pil(pictures[:1])[0].convert("RGB").save(path)
    assert torch.equal(model.encode(path), tokens[:1])
    with refused("nowhere.png"):
        model.encode("nowhere.png")


@pytest.mark.parametrize(
    ("call", "subject", "words"),
    [
        (lambda m, p: m.sample("class7"), "classes", "use 0 to 2, or a name such as class2"),
        (lambda m, p: m.sample(3), "classes", "a name such as class0, class1, class2"),
        (lambda m, p: m.sample([]), "classes", "empty"),
        (lambda m, p: m.sample(count=0), "count", "1"),
        (lambda m, p: m.sample(seed=1.0), "seed", "whole number"),
        (lambda m, p: m.sample(temperature=float("nan")), "choice_temperature", "number ≥ 0"),
        (lambda m, p: m.sample(iterations=17), "iterations", "use 1 to 16"),
        (lambda m, p: m.sample(schedule="cosin"), "schedule", ", ".join(SCHEDULES)),
        (lambda m, p: m.sample(guidance=1.0), "guidance", "training.label_drop"),
        (lambda m, p: m.sample(sampler="halto"), "sampler", "confidence, entropy"),
        (lambda m, p: m.sample(top_p=1.5), "top_p", "> 0 and ≤ 1"),
        (lambda m, p: m.sample(top_k="8"), "top_k", "integer ≥ 0"),
        (lambda m, p: m.sample(temperature="hot"), "choice_temperature", "number ≥ 0"),
        (lambda m, p: m.sample(bf16="yes"), "bf16", "true, false or 'force'"),
        (lambda m, p: m.sample(iteration=3), "iteration", "iterations"),
        (lambda m, p: m.sample_steps(count=10**6), "count", "at once"),
        (lambda m, p: m.edit(p, 0, box=(0.5, 0, 4, 4)), "box", "whole number"),
        (lambda m, p: m.edit(p, [0, 1]), "classes", "2 classes for 5 pictures"),
        (lambda m, p: m.edit(p, 0, box=(0, 0, 2, 2), mask=HALF), "box and mask", "only one"),
        (lambda m, p: m.inpaint(p, 0, box=(0, 0, 9, 4)), "box", "picture of 8×8"),
        (lambda m, p: m.inpaint(p, 0, mask=~HALF & HALF), "mask", "white (True) pixels"),
        (lambda m, p: m.inpaint(p, 0, mask=np.ones((8, 9))), "mask", "9×8 pixels"),
        (lambda m, p: m.outpaint(p, 0, sides=["left", "top"]), "sides", "left and/or right"),
        (lambda m, p: m.outpaint(p, 0, pixels=0), "pixels", "1 or more"),
        (lambda m, p: m.encode(p.repeat(1, 3, 1, 1)), "pictures", "(5, 3, 8, 8)"),
        (lambda m, p: m.encode(p.float()), "pictures", "floats from 0 to 1"),
        (lambda m, p: m.encode(p.numpy()), "pictures", "ndarray"),
        (lambda m, p: m.decode(torch.full((1, 4, 4), CODES)), "tokens", f"0 to {CODES - 1}"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(model, pictures, call, subject, words):
    with pytest.raises(ArgumentError) as error:
        call(model, pictures)
    assert error.value.subject == subject and words in str(error.value)


def test_a_mask_is_light_where_it_is_made_anew_and_is_not_transparent():
    light = HALF.astype("u1") * 154 + 100
    for mask in (HALF.astype("u1"), HALF * 255.0, light, torch.from_numpy(HALF)):
        assert torch.equal(pixel_mask(None, mask, {(8, 8)}, 8), torch.from_numpy(HALF))
    # White strokes on transparency: a white background would mark every pixel.
    strokes = Image.new("RGBA", (8, 8))
    strokes.paste("white", (1, 1, 3, 3))
    with pytest.raises(UserError, match="partly transparent"):
        pixel_mask(None, strokes, {(8, 8)}, 8)


def test_another_state_of_pytorch_would_change_results_and_is_refused(model):
    with torch.autocast("cpu"), pytest.raises(ArgumentError, match=r"^torch\.autocast"):
        model.sample("class1", 2)
    with torch.device("meta"), pytest.raises(ArgumentError, match="default dtype or device"):
        model.sample("class1", 2)


@pytest.mark.parametrize("options", [{}, {"sides": ["left", "right"], "pixels": 5}])
def test_edits_of_many_pictures_come_batch_by_batch(project, options):
    model = MaskGIT.from_pretrained(project, device="cpu")
    model.defaults = replace(model.defaults, batch_size=2)
    pictures = model.sample(count=1).repeat(5, 1, 1, 1)
    whole, each = model.edit, model.edit_batches
    if options:
        whole, each = model.outpaint, model.outpaint_batches
    batches = [*each(pictures, 0, seed=3, **options)]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches), whole(pictures, 0, seed=3, **options))
    assert not torch.equal(batches[0], batches[1])  # the same picture, but each batch has a seed
    with pytest.raises(ArgumentError, match=r"^seed: "):  # before any work
        each(pictures, 0, seed=0.5, **options)
