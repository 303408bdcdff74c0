"""What a program may do with models that it has opened, and where it may save them."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline import MaskGIT
from pipeline.api.saving import require_free
from pipeline.runtime.errors import ArgumentError, UserError
from tests.project import ROOT


def measured(folder: Path) -> dict[str, float]:
    return json.loads((folder / "config.json").read_text())["measured"]


@pytest.fixture
def measured_model(saved) -> Path:
    """A saved model that says what was measured of it."""
    description = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(description | {"measured": {"nll": 1.5}}))
    return saved


def test_opening_and_saving_leave_the_working_directory_alone(project, tmp_path, monkeypatch):
    """It is the whole process's: other threads would write, and open, in another folder."""
    monkeypatch.chdir(tmp_path)

    def refuse(folder: str) -> None:
        raise AssertionError(f"chdir to {folder}")

    monkeypatch.setattr(os, "chdir", refuse)
    monkeypatch.setattr(os, "fchdir", refuse)
    name = os.path.relpath(project)
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda _: MaskGIT.from_pretrained(name, device="cpu"), range(8)))
    assert len(models) == 8
    assert models[0].save_pretrained("mine") == Path("mine") and (tmp_path / "mine").is_dir()


def test_a_model_in_bfloat16_is_saved_as_one_that_opens(saved):
    model = MaskGIT.from_pretrained(saved, device="cpu")
    model.transformer.bfloat16()
    model.save_pretrained(saved)
    again = MaskGIT.from_pretrained(saved, device="cpu").transformer.state_dict()
    for name, value in model.transformer.state_dict().items():
        assert again[name].dtype == torch.float32 and torch.equal(again[name], value.float())


def test_weights_that_are_nan_are_not_saved_and_a_good_model_stays(saved):
    model = MaskGIT.from_pretrained(saved, device="cpu")
    good = (saved / "transformer/model.safetensors").read_bytes()
    with torch.no_grad():
        model.transformer.vocabulary_bias[0] = float("nan")
    with pytest.raises(UserError, match=rf"^{saved}: vocabulary_bias of the transformer holds"):
        model.save_pretrained(saved)
    assert (saved / "transformer/model.safetensors").read_bytes() == good


@pytest.mark.parametrize("options", [{}, {"sides": ["left", "right"], "pixels": 5}])
def test_edits_of_many_pictures_come_batch_by_batch(saved, options):
    model = MaskGIT.from_pretrained(saved, device="cpu")
    model.defaults = replace(model.defaults, batch_size=2)
    pictures = model.sample(count=5)
    whole, each = (
        (model.outpaint, model.outpaint_batches) if options else (model.edit, model.edit_batches)
    )
    batches = [*each(pictures, 0, seed=3, **options)]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert torch.equal(torch.cat(batches), whole(pictures, 0, seed=3, **options))
    with pytest.raises(ArgumentError, match=r"^seed: "):  # before any work
        each(pictures, 0, seed=0.5, **options)


def test_another_default_dtype_is_named_and_no_model_blamed(saved):
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(UserError, match=r"default dtype, which is torch\.float64; set it to"):
            MaskGIT.from_pretrained(saved, device="cpu")
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_was_measured_stays_with_the_weights_that_it_was_measured_of(measured_model, tmp_path):
    model = MaskGIT.from_pretrained(measured_model, device="cpu")
    assert measured(model.save_pretrained(tmp_path / "same")) == {"nll": 1.5}
    with torch.no_grad():
        model.transformer.vocabulary_bias.add_(1)
    for folder in (measured_model, measured_model, tmp_path / "changed"):  # twice over itself
        assert measured(model.save_pretrained(folder)) == {}
    other = MaskGIT.from_pretrained(tmp_path / "same", device="cpu")
    (tmp_path / "same/transformer/model.safetensors").write_bytes(b"damaged since")
    assert measured(other.save_pretrained(tmp_path / "kept")) == {"nll": 1.5}


@pytest.mark.parametrize("name", ["models/tokenizer/mine", "data/images", "analysis/tables/mine"])
def test_no_model_is_saved_where_a_stage_deletes_it(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match="which a stage makes and DVC deletes; name another"):
        require_free(Path(name))


def test_a_home_that_no_shell_has_replaced_is_refused():
    with pytest.raises(UserError, match="~/m begins with ~, which no shell has replaced"):
        require_free(Path("~/m"))


def test_a_set_of_classes_has_no_order_to_draw_in(model):
    for classes in ({"1", "2"}, frozenset({1})):
        with pytest.raises(ArgumentError, match="classes: a set, which has no order"):
            model.sample(classes, 2)
        with pytest.raises(ArgumentError, match="pictures: a set, which has no order"):
            model.encode({Path("a.png"), Path("b.png")})


def test_no_model_is_saved_with_params_that_its_images_are_too_small_for(project, tmp_path):
    """As where params.yaml was changed since the networks were trained."""
    folder = shutil.copytree(project, tmp_path / "project")
    model = MaskGIT.from_pretrained(folder, device="cpu")
    wide = replace(model.defaults, feather=model.image_size + 1)
    model = MaskGIT(replace(model._opened, defaults=wide))
    with pytest.raises(UserError, match=r"would be no model that can be opened \(feather: "):
        model.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_replicate_that_params_no_longer_name_is_saved_without_numbers(project, tmp_path):
    folder = shutil.copytree(project, tmp_path / "project")
    model = MaskGIT.from_pretrained(folder, seed=1, device="cpu")
    (folder / "results/evaluation").mkdir(parents=True)
    (folder / "results/evaluation/rows.csv").touch()
    params = json.loads((folder / "params.yaml").read_text())
    params["evaluation"]["seeds"] = [7]
    (folder / "params.yaml").write_text(json.dumps(params))
    assert measured(model.save_pretrained(tmp_path / "m")) == {}


@pytest.mark.parametrize(("name", "value"), [("feather", 8192), ("dilate", 256)])
def test_a_saved_model_asks_for_no_edit_wider_than_its_images(name, value, saved):
    description = json.loads((saved / "config.json").read_text())
    description["defaults"][name] = value
    (saved / "config.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=f"is damaged: {name}: {value}, of .* a side"):
        MaskGIT.from_pretrained(saved, device="cpu")
