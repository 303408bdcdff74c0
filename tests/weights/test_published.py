"""Published models: whole, finite, and those of their config, or one line."""

import json

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model, save_model
from tests.errors import one_line
from tests.pretrained_files import PUBLISHED


@pytest.fixture
def folder(tmp_path):
    weights = MaskGitTransformer(PUBLISHED).state_dict()
    save_model(tmp_path / "model", "transformer", PUBLISHED, weights)
    return tmp_path / "model"


def refused(folder) -> None:
    with pytest.raises(UserError) as error:
        load_model(folder, "transformer", way_out="get another")
    assert error.value.way_out == "get another"
    assert str(folder) in one_line(error)


def test_a_published_model_is_loaded_frozen_and_without_dropout(folder):
    model = load_model(folder, "transformer")
    assert model.config == PUBLISHED and not model.training
    assert not any(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    "change",
    [
        {"layers": None},
        {"layers": 3},
        {"heads": "two"},
        {"kind": "tokenizer"},
    ],
    ids=str,
)
def test_a_config_of_another_network_is_one_line(folder, change):
    config = json.loads((folder / "config.json").read_text()) | change
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"x" * 100])
def test_a_file_that_is_missing_or_damaged_is_one_line(folder, name, content):
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    refused(folder)


def test_weights_that_are_nan_are_neither_published_nor_loaded(folder):
    before = (folder / "model.safetensors").read_bytes()
    bad = MaskGitTransformer(PUBLISHED).state_dict()
    bad["vocabulary_bias"][0] = torch.nan
    with pytest.raises(UserError, match="vocabulary_bias of the transformer holds"):
        save_model(folder, "transformer", PUBLISHED, bad)
    assert (folder / "model.safetensors").read_bytes() == before
