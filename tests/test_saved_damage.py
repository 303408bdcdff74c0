"""Saved models that are damaged, or of which others wrote a part, and what could not be opened."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline import MaskGIT
from pipeline.api.opening import open_project
from pipeline.api.saving import save
from pipeline.runtime.errors import UserError


@pytest.mark.parametrize("part", ["tokenizer", "transformer"])
def test_a_part_of_another_saved_model_is_refused(project, saved, tmp_path, part):
    """As a copy leaves it that was cut off halfway: each part is whole, and the numbers one's."""
    other = MaskGIT.from_pretrained(project, seed=0, device="cpu")
    with torch.no_grad():
        next(getattr(other, part).parameters()).add_(1)
    other.save_pretrained(tmp_path / "other")
    shutil.rmtree(saved / part)
    shutil.copytree(tmp_path / "other" / part, saved / part)
    with pytest.raises(UserError, match=r"not the weights that were saved .*; save or"):
        MaskGIT.from_pretrained(saved)


def test_hashes_are_of_a_models_own_parts(saved):
    description = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(description | {"weights": {"../x": "0" * 64}}))
    with pytest.raises(UserError, match=r"config\.json is no .*weights"):
        MaskGIT.from_pretrained(saved)


def test_a_model_that_was_saved_before_its_parts_were_noted_opens(saved):
    description = json.loads((saved / "config.json").read_text())
    assert description.pop("weights").keys() == {"tokenizer", "transformer"}
    (saved / "config.json").write_text(json.dumps(description))
    MaskGIT.from_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").write_text("{}"), r"config\.json is no .*Field required"),
        (lambda f: (f / "config.json").write_text("nonsense"), r"config\.json is no .*JSON"),
        (
            lambda f: (f / "config.json").write_text(" " * 2**23),
            r": 8,388,608 bytes",
        ),
        (lambda f: measure(f, steps_per_second=3.5, fid_delta=-1.0), None),  # others' own
        (lambda f: (f / "README.md").unlink(), None),
        (
            lambda f: (f / "transformer/model.safetensors").unlink(),
            "does not load as a transformer.*; save or download",
        ),
        (
            lambda f: (f / "tokenizer/model.safetensors").write_bytes(b"x"),
            "does not load as a tokenizer",
        ),
        (lambda f: edit(f, classes=["one"]), "is damaged: 1 names of 3 classes"),
        (lambda f: edit(f, schedule="x"), "schedule: 'x' is unknown"),
        (lambda f: edit(f, iterations=-1), "iterations: -1 decode nothing"),
        (
            lambda f: edit(f, guidance_scale=5.0),
            r"config\.json is no .*decoding\.guidance_scale: 5\.0 of a model that is not guided",
        ),
        (
            lambda f: edit(f, iterations=1000),
            r"m is damaged: 1000 iterations of \d+ tokens; save or",
        ),
        (
            lambda f: rewrite(f / "transformer", "[1"),
            "not valid JSON .*; save or download it again",
        ),
        (
            lambda f: rewrite(f / "transformer", '{"kind": "classifier"}'),
            "holds a classifier and not a transformer; save or download it again",
        ),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer/config.json is missing"),
    ],
)
def test_what_is_damaged_is_one_line(saved, change, message):
    change(saved)
    if message is None:
        MaskGIT.from_pretrained(saved)
        return
    with pytest.raises(UserError, match=message):
        MaskGIT.from_pretrained(saved)


def rewrite(network: Path, text: str) -> None:
    (network / "config.json").write_text(text)


def measure(folder: Path, **measured: float) -> None:
    description = json.loads((folder / "config.json").read_text()) | {"measured": measured}
    (folder / "config.json").write_text(json.dumps(description))


def edit(folder: Path, classes: list[str] | None = None, **decoding) -> None:
    description = json.loads((folder / "config.json").read_text())
    description["classes"] = classes or description["classes"]
    description["defaults"]["decoding"] |= decoding
    (folder / "config.json").write_text(json.dumps(description))


@pytest.mark.parametrize("measured", [{"foo": 1.0}, {"foo": 1.0, "fid_classifier": 2.5}])
def test_metrics_that_the_card_does_not_know_are_left_out_of_it(saved, tmp_path, measured):
    description = json.loads((saved / "config.json").read_text()) | {"measured": measured}
    (saved / "config.json").write_text(json.dumps(description))
    again = MaskGIT.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / "again")
    card = (again / "README.md").read_text()
    assert "foo" not in card and json.loads((again / "config.json").read_text()) == description
    known = "| FID (classifier) | 2.5 |" if len(measured) > 1 else "Nothing: the run that made it"
    assert known in card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": ("a", " ", "b")},
            r"new would be no model .*classes\.1: .*; give another value",
        ),
        (
            {"dilate": 300},
            r"new would be no model .*defaults\.dilate: .* less than or equal to 256",
        ),
    ],
)
def test_what_could_not_be_opened_again_is_not_saved(project, tmp_path, change, message):
    opened = open_project(project, 0, torch.device("cpu"))
    if "dilate" in change:
        change = {"defaults": replace(opened.defaults, **change)}
    with pytest.raises(UserError, match=message):
        save(replace(opened, **change), tmp_path / "new", "new")
    assert not (tmp_path / "new").exists()
