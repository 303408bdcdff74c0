"""Values of params.yaml that only a library's own words refused: a line that says what is wrong and
what to do."""

import sys
from typing import get_args

import pytest
from pydantic_core.core_schema import ErrorType

from pipeline.config.mistakes import WORDS
from pipeline.config.params import load_params
from pipeline.config.presets import preset_names, preset_params
from pipeline.runtime.errors import UserError
from tests.params import PRESET, make_params
from tests.test_params import message, write


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("tokenizer.lr", "fast", "must be a number, without quotes, not 'fast'"),
        ("tokenizer.lr", 0, "must be 1e-12 or more, not 0"),
        ("tokenizer.lr", 1e31, "must be 1e+30 or less, not 1e+31"),
        ("tokenizer.lr", float("nan"), "must be a finite number, not nan"),
        ("seed", True, "must be a whole number, without quotes, point or exponent, not true"),
        ("seed", None, "must be a whole number, without quotes, point or exponent, not null"),
        ("seed", -1, "must be 0 or more, not -1"),
        ("data.channels", 2, "must be 1 (grey) or 3 (RGB), not 2"),
        ("data.val_fraction", 0, "must be above 0, not 0"),
        ("data.val_fraction", 1.0, "must be below 1, not 1.0"),
        ("data.crop_scale", [0.8], "must be a list of 2 or more, not [0.8]"),
        ("data.crop_scale", [0.8, 1.0, 1.0], "must be a list of 2 at most, not [0.8, 1.0, 1.0]"),
        ("data.crop_scale", 0.8, "must be a list, as [1, 2], not 0.8"),
        ("data.flip", "off", "must be true or false, without quotes, not 'off'"),
        ("tokenizer.filters", 33, "must be a multiple of 32, not 33"),
        ("decoding.rounding", "up", "must be 'floor' or 'ceil', not 'up'"),
        ("mlflow.experiment", " ", "must hold more than blanks, not ' '"),
        ("mlflow.experiment", "", "must be a string that is not empty, not ''"),
        ("mlflow.experiment", 7, "must be a string, in quotes where it looks like a number, not 7"),
        ("sweep.schedules", [], "must be a list of 1 or more, not []"),
        ("data", None, "must be a section, with its `key: value` lines below it, not null"),
    ],
)
def test_what_must_be_there_is_said_in_plain_english(key, value, line, tmp_path):
    path = write(tmp_path, {key: value})
    assert message(path) == f"{path}: {key}: {line}; correct it there"


@pytest.mark.parametrize(("written", "shown"), [("true", "true"), ("~", "null"), ("1", "1")])
def test_a_key_that_is_no_word_is_shown_as_it_is_written(written, shown, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PRESET.read_text(encoding="utf-8") + f"\n{written}: 3\n", encoding="utf-8")
    wanted = f"{shown}: must be a word, as every key is, not {shown}; correct it there"
    assert message(path).endswith(wanted)


@pytest.mark.parametrize(
    ("written", "shown"),
    [('"seed "', "'seed '"), ('""', "''"), ('" "', "' '"), ("training.steps", "'training.steps'")],
)
def test_a_key_that_would_be_taken_for_another_is_shown_in_quotes(written, shown, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PRESET.read_text(encoding="utf-8") + f"\n{written}: 3\n", encoding="utf-8")
    assert message(path).startswith(f"{path}: {shown}: unknown key; remove it or check")


def test_the_table_names_mistakes_as_pydantic_does():
    assert set(WORDS) <= set(get_args(ErrorType))


@pytest.mark.parametrize(
    "name", ["_ovewrite_named_param", "get_model", "list_models", "vgg16", "fcn_resnet50", "", "x"]
)
def test_an_architecture_that_torchvision_does_not_list_is_refused(name, tmp_path):
    path = write(tmp_path, {"classifier.architecture": f"torchvision:{name}"})
    text = message(path)
    assert f"classifier.architecture: unknown architecture 'torchvision:{name}'; use small" in text


def test_images_that_no_discriminator_looks_at_are_refused(tmp_path):
    for size in (1, 2, 3):
        path = write(tmp_path, {"data.image_size": size, "tokenizer.multipliers": [1]})
        assert f"data.image_size: {size} pixels are fewer than the 4 that the patch" in message(
            path
        )


@pytest.mark.parametrize("levels", [[1, 1, 2], [1, 2, 1]])
def test_one_token_whose_channels_are_normalised_one_by_one_is_refused(levels, tmp_path):
    """Their encoder would end in zeros, and of a single picture in an error of PyTorch's."""
    changes = {"data.image_size": 4, "tokenizer.multipliers": levels}
    path = write(tmp_path, changes | {"tokenizer.filters": 32})
    assert "data.image_size: 4 pixels are one token, whose 32 channels" in message(path)
    path = write(tmp_path, changes | {"tokenizer.filters": 64})
    assert "one token" not in message(path)  # but its iterations are too many


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("data.crop_ratio", [50.0, 100.0], "times as long as wide; use 0.05 to 20"),
        ("data.crop_ratio", [0.01, 1.0], "times as long as wide; use 0.05 to 20"),
        ("data.crop_scale", [1e-4, 1e-4], "is less than one; use more"),
        ("classifier.crop_scale", [1e-9, 1e-4], "is less than one; use more"),
    ],
)
def test_crops_that_no_picture_has_are_refused(key, value, said, tmp_path):
    line = message(write(tmp_path, {key: value}))
    assert key in line and said in line


def test_the_longest_crops_are_taken(tmp_path):
    path = write(tmp_path, {"data.crop_ratio": [0.05, 20.0]})
    assert load_params(path).data.crop_ratio == [0.05, 20]


@pytest.mark.parametrize("name", ["写真　集", "a\u00a0b", "می\u200cخواهم", "👩\u200d🎨"])
def test_a_folder_of_any_script_is_taken(name, tmp_path):
    assert load_params(write(tmp_path, {"data.source": f"folder:{name}"})).data.source[7:] == name


def test_a_transformer_of_one_number_a_token_is_refused(tmp_path):
    """Which is normalised to nothing: it would predict the same whatever it is given."""
    path = write(tmp_path, {"transformer.hidden": 1, "transformer.heads": 1})
    assert "transformer.hidden: " in message(path) and "2" in message(path)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_a_resnet_of_torchvision_is_taken(name, tmp_path):
    path = write(tmp_path, {"classifier.architecture": f"torchvision:{name}"})
    assert load_params(path).classifier.architecture == f"torchvision:{name}"


def test_params_that_name_no_network_of_torchvision_do_not_import_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)  # its import would fail
    assert preset_params("smoke").classifier.architecture == "small"
    with pytest.raises(ImportError):
        preset_params("imagenet256")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"editing": {"dilate": 257}}, "less than or equal to 256"),
        ({"editing": {"dilate": 1}}, r"editing\.dilate: 1 leaves no token .* 7×7 .* at most 0"),
        ({"editing": {"feather": 29}}, r"editing\.feather: 29 pixels .* image's 28; use less"),
    ],
)
def test_values_that_are_too_much_together_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        make_params(**changes)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_still_taken(name):
    assert preset_params(name).preset == name


def test_a_bad_value_of_set_param_is_named(tmp_path):
    from pipeline.cli.options import decoding

    with pytest.raises(UserError, match=r"-S: decoding.iterations is never true or false"):
        decoding(None, None, None, None, ["decoding.iterations=true"])
    assert decoding(None, None, None, None, ["decoding.bf16=true"]) == {"bf16": True}
    twice = ["decoding.iterations=4", "decoding.bf16=true", "decoding.iterations=4"]
    with pytest.raises(UserError, match=r"-S: decoding\.iterations is given twice; give it"):
        decoding(None, None, None, None, twice)
    with pytest.raises(UserError, match="by -S or by its own option"):
        decoding(8, None, None, None, twice[:1])
    assert decoding(8, None, None, None, twice[1:2]) == {"bf16": True, "iterations": 8}
