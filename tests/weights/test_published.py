"""Published models are complete, finite and match their config; otherwise, loading raises."""

import json

import pytest
import torch

from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model, save_model
from tests.errors import refused
from tests.tiny_networks import TINY


def test_a_published_model_is_loaded_frozen_or_refused_in_one_line(tmp_path):
    folder, weights = tmp_path / "model", MaskGitTransformer(TINY).state_dict()
    save_model(folder, "transformer", TINY, weights)
    model = load_model(folder, "transformer")
    assert model.config == TINY and not model.training
    assert not any(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(model.state_dict()[name], weights[name]) for name in weights)

    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    config = json.loads(files["config.json"])
    changes = [{"layers": 5}, {"heads": "two"}, {"kind": "tokenizer"}]
    damages = [("config.json", json.dumps(config | change).encode()) for change in changes]
    damages += [(name, content) for name in files for content in (None, b"", b"x" * 100)]
    for name, content in damages:
        (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
        with refused(folder, way_out="get another"):
            load_model(folder, "transformer", way_out="get another")
        (folder / name).write_bytes(files[name])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_model_is_published_with_finite_weights_only(tmp_path, value):
    weights = MaskGitTransformer(TINY).state_dict()
    save_model(tmp_path / "model", "transformer", TINY, weights)
    before = (tmp_path / "model/model.safetensors").read_bytes()
    weights["blocks.0.mlp_in.weight"].flatten()[0] = value
    with refused(match=r"blocks\.0\.mlp_in\.weight.*not saved"):
        save_model(tmp_path / "model", "transformer", TINY, weights)
    assert (tmp_path / "model/model.safetensors").read_bytes() == before
