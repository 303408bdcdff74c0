"""Hostile command lines of `maskgit`, in a project with a model."""

import contextlib
import functools
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.cli.app import main
from pipeline.runtime.errors import UserError
from tests.fuzzing import Case
from tests.images import noise_image
from tests.project import ROOT
from tests.tiny_project import make_project, with_params

HERE = "HERE"  # stands for the case's own folder


@functools.cache
def project() -> Path:
    folder = make_project(Path(tempfile.mkdtemp()))
    (folder / "params.yaml").write_text(json.dumps(with_params().model_dump()))
    return folder


def cases(random: random.Random) -> list[Case]:
    project()  # here: it takes its time
    made = []
    for must, lines in (("accept", GOOD), ("refuse", BAD), ("either", EITHER)):
        made += [Case(" ".join(line)[:60], must, partial(_run, line)) for line in lines]
    for command, values in OPTIONS.items():
        for option, given in values.items():
            for value in given:
                line = [*command.split(), option, value]
                made.append(Case(" ".join(line)[:60], "refuse", partial(_run, line)))
    return made


def _run(line: Sequence[str], folder: Path) -> None:
    """Run the command; a `UserError` with the line that it ends with, where it fails."""
    _prepare(folder)
    arguments = [argument.replace(HERE, str(folder)) for argument in line]
    before, argv = os.getcwd(), sys.argv
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["maskgit", *arguments]
    os.chdir(folder / "project")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        said = stop.code if isinstance(stop.code, str) else err.getvalue()
        if stop.code not in (0, None):
            if stop.code == 2:  # of no command line that there is, which Typer shows at length
                said = f"error: {said.strip().splitlines()[-1]}"
            (last,) = said.strip().splitlines()
            assert last.startswith("error: ") and "unexpected: traceback" not in last, said
            raise UserError(last) from None
    finally:
        sys.argv = argv
        os.chdir(before)


def _prepare(folder: Path) -> None:
    (folder / "project").mkdir()
    for entry in project().iterdir():
        (folder / "project" / entry.name).symlink_to(entry)
    for name in ("dvc.yaml", "presets"):
        (folder / "project" / name).symlink_to(ROOT / name)
    (folder / "project/params.yaml").unlink()
    shutil.copy(project() / "params.yaml", folder / "project")
    noise_image(12, 12, "RGB").save(folder / "picture.png")
    Image.new("L", (12, 12), 255).save(folder / "white.png")
    Image.new("L", (12, 12)).save(folder / "black.png")
    (folder / "text.png").write_text("no picture")
    np.save(folder / "numbers.npy", np.zeros(5))
    os.mkfifo(folder / "pipe.png")
    (folder / "full").mkdir()
    (folder / "full/mine.txt").touch()


PICTURE = f"{HERE}/picture.png"
SAMPLE = ["sample", "--count", "1", "--output", f"{HERE}/new.png"]
EDIT = ["edit", PICTURE, "--class", "0", "--output", f"{HERE}/new.png"]
GOOD = [
    SAMPLE,
    EDIT,
    ["sample", "--count", "2", "--classes", "0,2", "--output", f"{HERE}/new.npz"],
    ["sample", "--count", "2", "--output", f"{HERE}/new/folder"],
    ["inpaint", PICTURE, "--class", "1", "--mask", f"{HERE}/white.png", "-o", f"{HERE}/new.png"],
    ["outpaint", PICTURE, "--class", "2", "--sides", "left,right", "-o", f"{HERE}/new.png"],
    ["reconstruct", PICTURE, "--output", f"{HERE}/new.png"],
    ["save", f"{HERE}/saved"],
    ["params"],
    ["preset"],
    ["preset", "smoke"],
]
BAD = [
    *(
        ["sample", "--output", f"{HERE}/{name}"]
        for name in ("a.jpg", "full", "pipe.png", "picture.png/b")
    ),
    *(["reconstruct", f"{HERE}/{name}"] for name in ("text.png", "none.png", "pipe.png", "full")),
    *(["save", f"{HERE}/{name}"] for name in ("full", "picture.png", "pipe.png")),
    *(["measure", f"{HERE}/{name}"] for name in ("full", "numbers.npy", "none", "picture.png")),
    *(["export", "transformer", f"{HERE}/{name}"] for name in ("a.png", "full", "picture.png/x")),
    *(["export", network, f"{HERE}/new"] for network in ("nothing", "")),
    *(["preset", name] for name in ("none", "", "../params", "/etc/passwd", "smoke.yaml", "a\0b")),
    *(["plan", name] for name in ("none", "../x", "")),
    *(["scale", f"{HERE}/{name}"] for name in ("full", "pipe.png", "picture.png", "text.png")),
    *([command] for command in ("register", "summary", "report", "measure", "none", "edit")),
    ["inpaint", PICTURE, "--class", "0"],
    [*EDIT, "--box", "0,0,5,5", "--mask", f"{HERE}/white.png"],
    [*EDIT, "--mask", f"{HERE}/black.png"],
    [*EDIT, "--mask", f"{HERE}/text.png"],
    ["sample", "-o"],
    [*SAMPLE, "-S", "decoding.iterations=2", "-S", "decoding.iterations=3"],
    ["sample", "more", "words"],
]
EITHER = [["sync"], ["plan"], ["preset", "--json"], ["export", "transformer", f"{HERE}/new"]]
NO_COUNT = ("0", "-1", "x", "1.5", "", "nan", "1" * 400, "1_0x")
NO_NUMBER = ("-1", "x", "", "nan", "inf", "1e999", "1e31", "1" * 400, "0x1")
OPTIONS: dict[str, dict[str, Sequence[str]]] = {
    " ".join(SAMPLE): {
        "--count": NO_COUNT,
        "--iterations": (*NO_COUNT, "17"),
        "--seed": ("-1", "x", "1.5", ""),
        "--temperature": NO_NUMBER,
        "--guidance": ("1", *NO_NUMBER),
        "--schedule": ("", "x", "Cosine", "../cosine", "a\0b"),
        "--classes": ("9", ",", "0,,1", "x", "-1", "0;1", "a\0b"),
        "--replicate": ("9", "-1", "x", ""),
        "--model": ("/nowhere", f"{HERE}/full", PICTURE, "a\0b", "..", "x" * 5000),
        "--unknown": ("1",),
    },
    " ".join(EDIT): {
        "--box": (
            "",
            "1,2,3",
            "a,b,c,d",
            "0,0,0,0",
            "5,5,1,1",
            "0,0,99,99",
            "-1,0,5,5",
            "1.5,2,3,4",
        ),
        "--mask": ("", "none.png", f"{HERE}/full", f"{HERE}/pipe.png"),
        "--count": ("0", "1001", "-1", "x"),
        "--class": ("", "9", "0,1,2", "x"),
        "--output": ("", "a.gif", f"{HERE}/full", f"{HERE}/pipe.png", f"{HERE}/picture.png/x.png"),
    },
    f"outpaint {PICTURE} --class 0 -o {HERE}/new.png": {
        "--sides": ("", "up", "left,top", "left;right"),
        "--pixels": ("0", "-1", "x", "1.5"),
    },
    f"scale {HERE}/new.csv": {
        "--networks": ("x", ",", "cosine,,linear"),
        "--label-smoothings": ("1", "-1", "x", "nan", "inf"),
        "--seeds": ("-1", "x", "1.5", ","),
        "--steps": ("0", "-1", "x"),
        "--iterations": ("0", "99", "x"),
        "--choice-temperatures": ("-1", "x", "nan", "inf"),
        "--samples": ("0", "-1", "x"),
        "--decode-schedules": ("x", ","),
    },
    "plan": {
        "--images": ("0", "-1", "x", "1" * 30),
        "--classes": ("0", "-1", "x"),
        "--tflops": ("0", "-1", "nan", "inf", "x"),
    },
    "demo": {"--port": ("0", "-1", "99999", "x"), "--host": ("", "no such host", "256.1.1.1")},
    "submit": {"--address": ("", "x", "http://", "http://[::1", "ftp://h:1", "http://127.0.0.1:9")},
    "bench": {"--size": ("x", ""), "--threads": ("0", "-1", "x")},
}
