"""`from pipeline import MaskGIT`: what it draws, edits and takes, by name and by number."""

import io
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.api import pictures as convert
from pipeline.api.labels import class_labels
from pipeline.config.paths import TOKENIZER
from pipeline.data.images.crops import center_crop
from pipeline.data.seeds import mix
from pipeline.decoding import generate
from pipeline.prepare.pictures import clean_picture
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model
from tests.tiny_project import CLASSES, CODES, GRID, SIDE, validation, with_params

FACTOR = SIDE // GRID


@pytest.fixture(scope="module")
def model(project) -> MaskGIT:
    return MaskGIT.from_pretrained(project / "models", device="cpu")


@pytest.fixture
def pictures(project, monkeypatch) -> torch.Tensor:
    monkeypatch.chdir(project)
    return validation(5)[0]


def test_a_project_gives_its_model_its_classes_and_its_settings(project, model):
    assert model.classes == ("class0", "class1", "class2")
    assert (model.image_size, model.channels, model.grid) == (SIDE, 1, GRID)
    assert model.defaults.decoding == with_params().decoding_settings()
    second = MaskGIT.from_pretrained(project, seed=1, device="cpu")
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
    steps = generate(model.transformer, labels, settings, seed=mix(7, "batch", 0))
    tokenizer = load_model(project / TOKENIZER, "tokenizer")
    assert torch.equal(images, tokens_to_images(tokenizer, steps[-1].sampled))
    assert images.dtype == torch.uint8 and images.shape == (4, 1, SIDE, SIDE)


def test_a_seed_repeats_and_another_differs(model):
    first = model.sample(count=20, seed=3)
    assert torch.equal(first, model.sample(count=20, seed=3))
    assert not torch.equal(first, model.sample(count=20, seed=4))
    assert len(model.sample()) == CLASSES
    assert torch.equal(model.sample("1", 2), model.sample("class1", 2))
    assert torch.equal(model.sample(torch.tensor([1, 2])), model.sample(["class1", 2]))


def test_numbers_of_numpy_are_the_same_numbers(model, pictures):
    ours = model.sample(count=3, seed=5, iterations=4, temperature=2.5)
    numpys = {"seed": np.int64(5), "iterations": np.int32(4), "temperature": np.float32(2.5)}
    assert torch.equal(model.sample(count=np.int64(3), **numpys), ours)
    box = np.array([0, 0, 4, 4])
    edited = model.edit(pictures, 0, box=tuple(box), seed=np.uint8(3))
    assert torch.equal(edited, model.edit(pictures, 0, box=(0, 0, 4, 4), seed=3))


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
    assert torch.equal(model.edit(pictures, "class1", seed=1), filled)  # the centre, unless told


def test_boxes_and_masks_count_in_the_pixels_of_the_picture_as_it_is(model, pictures):
    small = model.to_pil(pictures[:1])[0]
    large = Image.new("L", (SIDE * 6, SIDE * 4))  # its centred square begins at column 8
    large.paste(small.resize((SIDE * 4, SIDE * 4), Image.Resampling.NEAREST), (SIDE, 0))
    box = (SIDE + 4 * 2, 4 * 2, SIDE + 4 * 6, 4 * 6)
    by_box = model.inpaint(large, 2, box=box)
    resized = torch.from_numpy(np.array(center_crop(large, SIDE)))[None, None]
    # What lies beside the box has a part of it.
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


def test_a_picture_is_turned_once_however_often_it_is_opened():
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    picture.save(file, "PNG", exif=exif)
    turned = clean_picture(Image.open(file))
    assert np.array_equal(turned, np.rot90(picture, -1))
    assert np.array_equal(clean_picture(turned), turned)


def test_masks_and_tokens_of_numpy_and_of_other_types_are_taken(model, pictures):
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:3] = 255
    mask[-2:] = 5  # nearly black
    wanted = model.inpaint(pictures[:1], 1, mask=mask >= 128)
    assert torch.equal(model.inpaint(pictures[:1], 1, mask=mask), wanted)
    assert torch.equal(model.inpaint(pictures[:1], 1, mask=mask[::-1][::-1]), wanted)
    tokens = model.encode(pictures)
    for given in (tokens.numpy(), tokens.to(torch.uint8), tokens.to(torch.int16)):
        assert torch.equal(model.decode(given), model.decode(tokens))
    assert model.sample(torch.tensor(1), 2).shape[0] == 2
    for call in (
        lambda: model.decode([["a"]]),
        lambda: model.decode(tokens > 0),
        lambda: model.to_grid(pictures, columns=0),
    ):
        with pytest.raises(ArgumentError):
            call()


def test_outpainting_adds_to_the_sides_and_keeps_the_picture(model, pictures):
    wide = model.outpaint(pictures, [0, 1, 2, 0, 1], sides=["left", "right"], pixels=5)
    assert wide.shape == (5, 1, SIDE, SIDE + 10)
    assert torch.equal(wide[..., 6 : SIDE + 4], pictures[..., 1:-1])  # less the feather
    assert model.outpaint(pictures, 0, sides="top").shape == (5, 1, SIDE + SIDE // 2, SIDE)


def test_tokens_go_there_and_back(model, pictures):
    tokens = model.encode(pictures)
    assert torch.equal(tokens, model.tokenizer.encode(pictures.float() / 255))
    assert torch.equal(model.reconstruct(model.to_pil(pictures)), model.decode(tokens))
    assert torch.equal(model.encode(pictures.float() / 255), tokens)
    assert torch.equal(model.encode(pictures[0]), tokens[:1])


def test_a_path_is_opened_as_a_picture(model, pictures, tmp_path):
    path = tmp_path / "picture.png"
    model.to_pil(pictures[:1])[0].convert("RGB").save(path)
    assert torch.equal(model.encode(path), model.encode(pictures[:1]))
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(UserError, match=r"picture\.png: truncated or not an image of BMP"):
        model.encode(str(path))
    with pytest.raises(UserError, match="is missing; give the path of a picture"):
        model.encode("nowhere.png")


def test_an_opened_picture_is_the_same_as_its_path(model, tmp_path):
    values = np.linspace(0, 255, 12 * 8).astype(np.uint8).reshape(12, 8)
    turned, clear = Image.Exif(), np.stack([values, 255 - values], -1)
    turned[0x0112] = 6
    Image.fromarray(values).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(clear, "LA").save(tmp_path / "clear.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    for path in sorted(tmp_path.iterdir()):
        images, sizes = convert.as_batch(path, 1, 8)
        with Image.open(path) as picture:
            opened, seen = convert.as_batch(picture, 1, 8)
        assert torch.equal(images, opened) and sizes == seen
    with pytest.raises(ValueError, match=r"pictures: one is of numbers .* convert it to 8 or 16"):
        model.encode(Image.fromarray(np.ones((8, 8), np.float32)))


ODD = [
    torch.zeros(1, 1, 8, 8, device="meta"),
    torch.zeros(1, 1, 8, 8).to_sparse(),
    torch.zeros(1, 1, 8, 8).to(torch.float8_e4m3fn),
]


def odd(tensor, model, pictures):
    model.encode(tensor)


ALL = "exponential, cubic, square, cosine, arccos, linear, square_root, logarithmic"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: m.sample("class7"), "no class class7; did you mean class2?"),
        (lambda m, p: m.sample(3), "no class 3; use 0 to 2, or a name: class0, class1, class2"),
        (lambda m, p: m.sample("٢"), "'٢' is no class; write a number in the digits 0 to 9"),
        (lambda m, p: m.sample(1.5), "no class 1.5; use 0 to 2"),
        (lambda m, p: m.sample([]), "classes: an empty list"),
        (lambda m, p: m.sample(count=0), "count: 0 samples cannot be drawn; give 1 or more"),
        (lambda m, p: m.sample(count=10**12), "count: 1,000,.* limit of 100,000,000"),
        (lambda m, p: m.sample(count=2.5), "count: 2.5 is no whole number"),
        (lambda m, p: m.sample(seed="first"), "seed: first is no whole number"),
        (lambda m, p: m.sample_steps(seed=0.5), "seed: 0.5 is no whole number"),
        (lambda m, p: m.sample(iterations=2.0), "iterations: 2.0 is no whole number"),
        (lambda m, p: m.sample(temperature="hot"), "temperature: hot is no number"),
        (lambda m, p: m.edit(p, 0, seed=None), "seed: None is no whole number"),
        (lambda m, p: m.edit(p, 0, box=(0.5, 0, 4, 4)), "box: 0.5 is no whole number"),
        (lambda m, p: m.outpaint(p, 0, pixels="all"), "pixels: all is no whole number"),
        (lambda m, p: m.sample(temperature=float("inf")), "^temperature: inf"),
        (lambda m, p: m.sample(iterations=0), "iterations: 0 decode nothing; use 1, 2"),
        (lambda m, p: m.sample(iterations=17), "iterations: 17 are more .*; use 1 to 16"),
        (lambda m, p: m.sample(schedule="cosin"), f"schedule: 'cosin' .* one of {ALL}"),
        (lambda m, p: m.sample(temperature=1e31), r"^temperature: 1e\+31 .* limit of 1e\+30"),
        (lambda m, p: m.sample(temperature=-1.0), "^temperature: -1.0 .* from 0 on"),
        (lambda m, p: m.sample(temperature=float("nan")), "^temperature: nan"),
        (lambda m, p: m.sample(guidance=1.0), "guidance: 1.0 needs .* training.label_drop"),
        (lambda m, p: m.sample(iteration=3), "'iteration'; did you mean iterations?"),
        (lambda m, p: m.sample_steps(schedule="x"), "schedule: 'x' is unknown"),
        (lambda m, p: m.sample_steps(count=10**6), "count: 1,000,000 .* at once; give 1 to "),
        (lambda m, p: m.from_pretrained(".", device="gpu"), "device: 'gpu' .* cpu or cuda"),
        (lambda m, p: m.inpaint(p, 0), "box or mask: give one"),
        (lambda m, p: m.inpaint(p, 0, box=(0, 0, 9, 4)), "not inside the picture of 8×8"),
        (lambda m, p: m.inpaint(p, 0, mask=np.zeros((8, 8))), "mask: nothing .* paint that white"),
        (lambda m, p: m.inpaint(p, 0, mask=np.ones((8, 9))), "mask: 9×8 pixels .* has 8×8"),
        (lambda m, p: m.edit(p, 0, box=(0, 0, 2, 2), mask=np.ones((8, 8))), "give one of them"),
        (lambda m, p: m.edit(p, [0, 1]), "classes: 2 of them for 5 pictures"),
        (lambda m, p: m.outpaint(p, 0, sides="up"), "sides: up; use left, right or both"),
        (lambda m, p: m.outpaint(p, 0, pixels=0), "pixels: 0 cannot be added; give 1 to 8192"),
        (lambda m, p: m.encode(p.repeat(1, 3, 1, 1)), r"\(5, 3, 8, 8\); this model takes \(B, 1"),
        (lambda m, p: m.encode(p.float()), "numbers outside of 0 to 1"),
        (lambda m, p: m.encode(p.int()), "torch.int32 is no kind of pixel"),
        (lambda m, p: m.encode([]), "pictures: an empty list"),
        (lambda m, p: m.decode(torch.full((1, 4, 4), CODES)), f"from 0 to {CODES - 1}"),
        (lambda m, p: m.decode(torch.zeros(1, 16).long()), r"give \(B, 4, 4\)"),
        *((partial(odd, tensor), "pictures: no plain, dense tensor; give one") for tensor in ODD),
        (lambda m, p: m.decode(torch.zeros(1, 4, 4, device="meta").long()), "tokens: no plain"),
        (lambda m, p: m.edit(p, 0, mask=torch.ones(8, 8).to_sparse()), "mask: no plain, dense"),
        (lambda m, p: m.to_grid(p[0]), r"images: shape \(1, 8, 8\); give \(B, 1 or 3, H, W\)"),
        (lambda m, p: m.to_grid(p[:0].byte()), r"images: shape \(0, 1, 8, 8\); give"),
        (lambda m, p: m.to_grid(None), "images: NoneType is no tensor; give one"),
        (lambda m, p: m.to_pil(p[:1].double()), "images: torch.float64 is no kind of pixel; give"),
        (lambda m, p: m.to_pil([1]), "images: list is no tensor"),
        (lambda m, p: m.from_released("t", "x", preset="smoke", classes=10), "classes: int is no"),
        (lambda m, p: m.from_released("t", "x", classes="cat"), "classes: str is no list of names"),
        (lambda m, p: m.from_pretrained(".", device="privateuseone"), "device: 'privateuseone' is"),
        (lambda m, p: m.sample(count=10**5000), "count: a whole number of more than 64 bits"),
        (lambda m, p: m.sample(seed=-(10**5000)), "seed: a whole number of more than 64 bits"),
        (lambda m, p: m.sample(10**5000), "classes: a whole number of more than 64 bits"),
        (lambda m, p: m.sample(temperature=10**5000), "temperature: a number that is too large"),
    ],
)
def test_what_is_not_allowed_says_what_is(model, pictures, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, pictures)


def test_a_name_of_two_classes_is_none_to_choose_one_by():
    names = ["crane", "maillot", "crane"]  # as in torchvision's ImageNet
    with pytest.raises(ArgumentError, match="crane is the name of 0, 2; give one of these"):
        class_labels("crane", names)
    assert class_labels(["2", 0, "maillot"], names).tolist() == [2, 0, 1]


def test_importing_the_package_imports_nothing_large():
    code = "import pipeline, sys; assert 'MaskGIT' in dir(pipeline); print('torch' in sys.modules)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    import pipeline

    with pytest.raises(AttributeError, match="has no attribute 'MaskGit'"):
        _ = pipeline.MaskGit
