"""`maskgit sample`, `edit` and their like: files of what the Python API draws."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pipeline import MaskGIT
from pipeline.data.image_grid import grid_picture
from pipeline.runtime.files import write_json
from tests.command_line import maskgit
from tests.tiny_project import SIDE, with_params


@pytest.fixture
def run(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    return lambda *arguments: maskgit(*arguments, capsys=capsys)


@pytest.fixture
def photo(tmp_path) -> Path:
    """A picture of one's own: RGB, no square, larger than the model's."""
    path = tmp_path / "photo.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_a_png_is_a_grid_of_the_samples(run, model, tmp_path):
    file = tmp_path / "new/grid.png"
    done = run("sample", "--classes", "class2,0", "--count", "12", "--output", str(file))
    assert (done.code, done.out) == (0, f"samples in {file}\n")
    images = model.sample(["class2", 0], 12)
    assert np.array_equal(pixels(file), np.array(grid_picture(images, 10)))


def test_options_reach_the_decoder(run, model, tmp_path):
    file = tmp_path / "one.png"
    options = ("-T", "2", "--schedule", "linear", "--temperature", "0", "--seed", "5")
    params = ("-S", "decoding.rounding=ceil")
    run("sample", "--count", "1", "-o", str(file), *options, *params, "--replicate", "1")
    second = MaskGIT.from_pretrained(".", seed=1, device="cpu")
    images = second.sample(
        None, 1, iterations=2, schedule="linear", temperature=0.0, rounding="ceil", seed=5
    )
    assert np.array_equal(pixels(file), np.array(grid_picture(images, 1)))


def test_an_npz_is_the_adm_suites_with_labels(run, model, tmp_path):
    run("sample", "--classes", "2,1", "--count", "5", "--output", str(tmp_path / "s.npz"))
    with np.load(tmp_path / "s.npz") as arrays:
        assert arrays["arr_1"].tolist() == [2, 1, 2, 1, 2]
        grey = torch.from_numpy(arrays["arr_0"][..., 0])
    assert torch.equal(grey, model.sample([2, 1], 5)[:, 0])


def test_a_gif_shows_the_canvas_as_it_fills(run, model, tmp_path):
    run("sample", "--count", "2", "--output", str(tmp_path / "s.gif"))
    gif = Image.open(tmp_path / "s.gif")
    assert gif.n_frames == 1 + 3  # blank, and T
    canvases = [canvas.shown for canvas in model.sample_steps(None, 2)]
    for number, images in enumerate([torch.full_like(canvases[0], 128), *canvases]):
        gif.seek(number)
        wanted = np.array(grid_picture(images, 2)).astype(int)
        assert np.abs(np.array(gif.convert("L")) - wanted).max() <= 1
    assert torch.equal(canvases[-1], model.sample(None, 2))


def test_no_suffix_is_a_folder_of_single_pngs(run, model, tmp_path):
    run("sample", "--count", "3", "--output", f"{tmp_path}/folder/")
    files = sorted((tmp_path / "folder").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    assert np.array_equal(pixels(files[1]), model.sample(None, 3)[1, 0].numpy())
    assert "is there already" in run("sample", "--output", f"{tmp_path}/folder").err


def test_a_picture_of_ones_own_is_edited(run, model, photo, tmp_path):
    file = tmp_path / "edited.png"
    done = run("edit", str(photo), "--class", "class1", "--output", str(file), "--seed", "3")
    assert done.out == f"edited picture in {file}\n"
    wanted = model.edit(photo, "class1", seed=3)
    assert np.array_equal(pixels(file), wanted[0, 0].numpy())


def test_a_hole_is_filled_by_box_or_by_mask_as_often_as_is_asked(run, model, photo, tmp_path):
    box, hole = (22, 10, 42, 30), np.zeros((40, 64), np.uint8)
    hole[10:30, 22:42] = 255
    Image.fromarray(hole).save(tmp_path / "hole.png")
    files = [tmp_path / name for name in ("box.png", "mask.png")]
    options = ("--class", "0", "--count", "3")
    run("inpaint", str(photo), *options, "--box", "22,10,42,30", "-o", str(files[0]))
    run("inpaint", str(photo), *options, "--mask", f"{tmp_path}/hole.png", "-o", str(files[1]))
    wanted = np.array(grid_picture(model.inpaint([photo] * 3, 0, box=box), 3))
    assert np.array_equal(pixels(files[0]), wanted)
    assert np.array_equal(pixels(files[1]), wanted)


def test_a_picture_is_extended_and_reconstructed(run, model, photo, tmp_path):
    file = tmp_path / "wide.png"
    run("outpaint", str(photo), "--class", "0", "--sides", "left,right", "-o", str(file))
    assert pixels(file).shape == (SIDE, 2 * SIDE)
    run("reconstruct", str(photo), "-o", str(file))
    assert np.array_equal(pixels(file), model.reconstruct(photo)[0, 0].numpy())


def test_a_saved_model_is_drawn_from_elsewhere(run, model, tmp_path, monkeypatch):
    done = run("save", str(tmp_path / "saved"))
    monkeypatch.chdir(tmp_path)
    assert f"--model {tmp_path / 'saved'}" in done.out
    run("sample", "--model", "saved", "--count", "4")
    assert np.array_equal(
        pixels(Path("samples.png")), np.array(grid_picture(model.sample(None, 4), 4))
    )


def test_a_model_of_other_params_is_said_to_be_of_an_earlier_run(run, project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "project")
    outs = {"metrics": [f"results/sources/{stage}.json" for stage in ("train_transformer",)]}
    stage = {"cmd": "x", "params": ["training.lr"], "outs": ["models/transformer"]} | outs
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train_transformer": stage}}))
    record = folder / "results/sources/train_transformer.json"
    options = ("sample", "--count", "1", "--output", str(tmp_path / "a.png"), "--model")
    write_json(record, {})

    def locked(lr: float) -> None:
        entry = {"cmd": "x", "params": {"params.yaml": {"training.lr": lr}}}
        lock = {"stages": {"train_transformer": entry}}
        (folder / "dvc.lock").write_text(yaml.safe_dump(lock))

    locked(with_params().training.lr)
    assert run(*options, str(folder)).err == ""
    locked(123.0)
    done = run(*options, str(folder))
    assert done.code == 0 and done.err.count("\n") == 1
    assert done.err.startswith("note: the model is of an earlier run: train_transformer ran with")
    assert "training.lr: 123.0, now" in done.err


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ("sample --classes class9", "--classes: "),
        ("sample --count 0", "--count: "),
        ("sample -T 99", "--iterations: "),
        ("sample --temperature -1", "--temperature: "),
        ("sample -S decoding.steps=3", "-S: "),
        ("sample -S decoding.rounding=up", "rounding: "),
        ("sample -S decoding.choice_temperature=hot", "--temperature: "),
        ("sample --output x.jpg", "--output: "),
        ("sample --output ~/x.png", "--output: "),
        ("sample --classes=", "--classes: "),
        ("sample --model nowhere", "nowhere: "),
        ("sample --replicate 7", "there is no replicate 7"),
        ("edit PHOTO --class 0 --box 1,2,3", "--box: "),
        ("edit PHOTO --class 0 --output x.webp", "--output: "),
        ("inpaint PHOTO --class 0", "--box or --mask: "),
        ("inpaint PHOTO --class 0 --box 0,0,80,9", "--box: "),
        ("inpaint PHOTO --class 0 --box 0,0,2,2", "--box: "),
        ("outpaint PHOTO --class 0 --sides up", "--sides: "),
        ("edit nothing.png --class 0", "nothing.png: missing"),
        ("save data", "data is there already"),
    ],
)
def test_an_error_is_one_line_and_1(run, photo, monkeypatch, arguments, start):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = run(*(str(photo) if word == "PHOTO" else word for word in arguments.split()))
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith(f"error: {start}")


@pytest.mark.parametrize(
    "command", [("reconstruct",), ("edit", "--class=0"), ("outpaint", "--class=0")]
)
def test_a_picture_that_is_read_is_not_overwritten(run, photo, command):
    name, *options = command
    for own in (photo.with_name("own.png"), photo.with_name("link.png")):
        shutil.copy(photo, photo.with_name("own.png"))
        if not own.exists():
            own.symlink_to("own.png")
        before = own.read_bytes()
        done = run(name, str(photo.with_name("own.png")), *options, "--output", str(own))
        assert done.code == 1 and "is a picture that is read; name another output" in done.err
        assert own.read_bytes() == before


@pytest.mark.parametrize("command", ["sample --output", "export transformer", "save", "scale"])
def test_an_output_where_dvc_deletes_is_refused(run, project, command):
    (project / "dvc.yaml").write_text("stages:\n  prepare:\n    outs: [data/images]\n")
    done = run(*command.split(), "data/images/x.png")
    assert done.code == 1 and "lies in data/images, which a stage makes and DVC deletes" in done.err


def test_a_saved_model_has_no_other_replicates(run, tmp_path):
    run("save", str(tmp_path / "saved"))
    done = run("sample", "--model", str(tmp_path / "saved"), "--replicate", "99999")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("error: --replicate: ") and "leave the option out" in done.err


def test_more_samples_than_memory_holds_are_refused(run, project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run("sample", "--model", str(project), "--count", "99999999")
    assert done.code == 1 and not [*tmp_path.iterdir()]
    assert done.err.startswith("error: --count: 99,999,999 samples do not fit into this machine's")
    assert "memory; give " in done.err


@pytest.mark.parametrize(
    "command", [("sample",), ("edit", "PHOTO", "--class=0"), ("outpaint", "PHOTO", "--class=0")]
)
def test_drawing_that_takes_long_says_how_far_it_is(run, monkeypatch, photo, tmp_path, command):
    monkeypatch.setattr("pipeline.tools.sample.PAUSE", 0.0)
    arguments = [str(photo) if argument == "PHOTO" else argument for argument in command]
    done = run(*arguments, "--count", "3", "--output", f"{tmp_path}/a.png")
    assert f"{command[0]} 3/3" in done.out
