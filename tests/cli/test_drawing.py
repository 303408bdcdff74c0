"""`maskgit sample`, `edit` and similar commands write what the Python API draws."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline import MaskGIT
from pipeline.data.images.pixels import grid_picture
from tests.command_line import maskgit
from tests.tiny_project import SIDE


@pytest.fixture
def run(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    return lambda *arguments: maskgit(*arguments, capsys=capsys)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A user's picture: RGB, not square, larger than the model's images."""
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_options_reach_the_decoder(run, tmp_path):
    file = tmp_path / "new/one.png"
    options = ("-T", "3", "--schedule", "linear", "--temperature", "0", "--seed", "5")
    rest = ("--rounding", "ceil", "--replicate", "1", "--classes", "class2,0")
    done = run("sample", "--count", "12", "-o", str(file), *options, *rest)
    assert (done.code, done.out) == (0, f"samples in {file}\n")
    second = MaskGIT.from_pretrained(".", seed=1, device="cpu")
    settings = {"iterations": 3, "schedule": "linear", "temperature": 0.0, "rounding": "ceil"}
    images = second.sample(["class2", 0], 12, seed=5, **settings)
    assert np.array_equal(pixels(file), np.array(grid_picture(images, 10)))
    floor = second.sample(["class2", 0], 12, seed=5, **settings | {"rounding": "floor"})
    assert not torch.equal(images, floor)


@pytest.mark.parametrize("command", ["sample", "inpaint", "outpaint"])
def test_any_decoding_setting_is_an_option(run, model, photo, tmp_path, command):
    file, settings = tmp_path / "one.png", {"sampler": "halton", "top_k": 2}
    given = ["--classes", "1"] if command == "sample" else [str(photo), "--class", "1"]
    options = ("--set", "sampler=halton", "--set", "top_k=2", "--count", "1", "-o", str(file))
    assert run(command, *given, *options).code == 0
    if command == "sample":
        wanted = np.array(grid_picture(model.sample(1, 1, **settings), 1))
    else:
        wanted = getattr(model, command)(photo, 1, **settings)[0, 0].numpy()
    assert np.array_equal(pixels(file), wanted)
    assert run(command, *given, "--set", "sampler").err.startswith("error: --set: ")


def test_every_kind_of_file_holds_the_samples(run, model, tmp_path):
    run("sample", "--classes", "2,1", "--count", "5", "--output", str(tmp_path / "s.npz"))
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["arr_1"].tolist() == [2, 1, 2, 1, 2]
        grey = torch.from_numpy(arrays["arr_0"][..., 0])
    assert torch.equal(grey, model.sample([2, 1], 5)[:, 0])
    run("export", "transformer", f"{tmp_path}/published.npz", "--all")
    with np.load(tmp_path / "published.npz") as arrays:
        assert arrays["arr_0"].shape == (90, SIDE, SIDE, 3)
    run("sample", "--count", "2", "--output", f"{tmp_path}/folder/")
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png"]
    assert np.array_equal(pixels(files[1]), model.sample(None, 2)[1, 0].numpy())
    run("sample", "--count", "2", "--output", str(tmp_path / "s.gif"))
    gif = Image.open(tmp_path / "s.gif")
    assert gif.n_frames == 1 + 3  # the blank canvas, and T steps
    canvases = [canvas.shown for canvas in model.sample_steps(None, 2)]
    for number, images in enumerate([torch.full_like(canvases[0], 128), *canvases]):
        gif.seek(number)
        wanted = np.array(grid_picture(images, 2)).astype(int)
        assert np.abs(np.array(gif.convert("L")) - wanted).max() <= 1


@pytest.mark.parametrize("command", ["edit", "inpaint"])
def test_a_part_is_drawn_again_by_box_or_by_mask(run, model, photo, tmp_path, command):
    box, hole = (22, 10, 42, 30), np.zeros((40, 64), np.uint8)
    hole[10:30, 22:42] = 255
    Image.fromarray(hole).save(tmp_path / "hole.png")
    files = [tmp_path / name for name in ("box.png", "mask.png")]
    options = ("--class", "0", "--count", "3", "--seed", "3", "-T", "2", "--temperature", "9")
    run(command, str(photo), *options, "--box", "22,10,42,30", "-o", str(files[0]))
    run(command, str(photo), *options, "--mask", f"{tmp_path}/hole.png", "-o", str(files[1]))
    how = {"box": box, "seed": 3, "iterations": 2}
    wanted, others = (model.inpaint([photo] * 3, 0, temperature=t, **how) for t in (9.0, 0.0))
    assert not torch.equal(wanted, others)
    for file in files:
        assert np.array_equal(pixels(file), np.array(grid_picture(wanted, 3)))


def test_a_picture_is_edited_extended_and_reconstructed_as_one_png(run, model, photo, tmp_path):
    file = tmp_path / "a.png"
    done = run("edit", str(photo), "--class", "class1", "--output", str(file))
    assert done.out == f"edited picture in {file}\n"
    assert f"64×40) was cut and resized to the model's {SIDE}×" in done.err
    assert np.array_equal(pixels(file), model.edit(photo, "class1")[0, 0].numpy())
    options = ("--class", "0", "--sides", "left,right", "--pixels", "5", "--schedule", "linear")
    run("outpaint", str(photo), *options, "-o", str(file))
    wanted = model.outpaint(photo, 0, sides=["left", "right"], pixels=5, schedule="linear")
    assert np.array_equal(pixels(file), wanted[0, 0].numpy())
    run("reconstruct", str(photo), "-o", str(file))
    assert np.array_equal(pixels(file), model.reconstruct(photo)[0, 0].numpy())


def test_a_saved_model_is_drawn_from_elsewhere(run, model, tmp_path, monkeypatch):
    done = run("save", str(tmp_path / "saved"))
    monkeypatch.chdir(tmp_path)
    assert f"--model {tmp_path / 'saved'}" in done.out
    run("sample", "--model", "saved", "--count", "4")
    wanted = np.array(grid_picture(model.sample(None, 4), 4))
    assert np.array_equal(pixels(Path("samples.png")), wanted)
    done = run("sample", "--model", "saved", "--replicate", "99999")
    assert done.code == 1 and "holds only the model of seed" in done.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("sample --classes class9", "class9"),
        ("sample --output x.jpg", "--output"),
        ("edit PHOTO --class 0 --output x.webp", "--output"),
        ("edit PHOTO --class 0 --box 0,0,5,5 --mask m.png", "box and mask"),
        ("save data", "data"),
    ],
)
def test_an_error_is_one_line_that_names_the_thing(run, photo, arguments, named):
    done = run(*(str(photo) if word == "PHOTO" else word for word in arguments.split()))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("error: ") and named in done.err


def test_an_output_that_cannot_be_written_is_refused_before_a_model_is_opened(run, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "file/a.png", "full", "file", "folder.png"):
        done = run("sample", "--model", "nowhere", "--output", f"{tmp_path}/{name}")
        assert done.code == 1 and name in done.err and "nowhere" not in done.err
    done = run("export", "transformer", f"{tmp_path}/full")
    assert done.code == 1 and "full" in done.err
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png", "full", "pipe.png"]


def test_an_output_where_dvc_deletes_or_hashes_is_refused(run, project):
    (project / "dvc.yaml").write_text("stages: {}\n")
    for place in ("pipeline/a.png", "data/images/a.png"):
        assert "belongs to the project" in run("sample", "--output", place).err
        assert not (project / place).exists()
    (project / "dvc.yaml").unlink()


@pytest.mark.parametrize("command", [("reconstruct",), ("edit", "--class=0")])
def test_a_picture_that_is_read_is_not_overwritten(run, photo, command):
    link, before = photo.with_name("link.png"), photo.read_bytes()
    own = photo.rename(photo.with_suffix(".png"))
    link.symlink_to(own.name)
    name, *options = command
    for output in (own, link):
        done = run(name, str(own), *options, "--output", str(output))
        assert done.code == 1 and "--output" in done.err and own.read_bytes() == before
