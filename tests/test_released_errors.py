"""What a user is told of pretrained weights that are not those of the networks here."""

from dataclasses import replace

import msgpack
import pytest
import torch
from safetensors.torch import save_file

from pipeline.runtime.errors import UserError
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import save_model
from pipeline.weights.released.checkpoint import load_pretrained, pretrained_num_classes
from tests.pretrained_files import TOKENIZER, TRANSFORMER, changed, equal, fails, written
from tests.release import Port, flax_array, flax_bytes


def test_what_the_weights_of_a_published_model_do_not_show(tmp_path):
    weights = MaskGitTransformer(TRANSFORMER).state_dict()
    save_model(tmp_path / "model", "transformer", TRANSFORMER, weights)
    with pytest.raises(UserError, match=r"config\.json .*heads is 3 and not 4"):
        load_pretrained(tmp_path / "model", replace(TRANSFORMER, heads=4))
    other = replace(TRANSFORMER, codebook_size=11, num_classes=3)
    with pytest.raises(UserError, match=r"codebook_size is 10 and not 11"):
        load_pretrained(tmp_path / "model", other)
    save_model(tmp_path / "baseline", "autoregressive", TRANSFORMER, weights)
    with pytest.raises(UserError, match=r"kind is autoregressive and not transformer"):
        load_pretrained(tmp_path / "baseline", TRANSFORMER)
    (tmp_path / "model" / "config.json").write_text("[]")  # of some other project
    assert equal(load_pretrained(tmp_path / "model", TRANSFORMER), weights)


def test_missing_files_and_strange_ones(tmp_path):
    fails(tmp_path / "nothing", TOKENIZER, "is missing")
    with pytest.raises(UserError, match=r"cannot be read \(File name too long\); check the path"):
        load_pretrained(tmp_path / ("x" * 300), TOKENIZER)
    (tmp_path / "folder").mkdir()
    fails(tmp_path / "folder", TOKENIZER, "folder/model.safetensors is missing")
    (tmp_path / "folder" / "model.safetensors").mkdir()
    fails(tmp_path / "folder", TOKENIZER, "a folder, not a regular file")
    for name, content in {
        "empty": b"",
        "page": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "short": b"\x01",
    }.items():
        fails(written(tmp_path / name, content), TOKENIZER, "is neither a flax checkpoint")


def test_the_other_model(tmp_path, tokenizer_tree, transformer_tree):
    one = written(tmp_path / "one", flax_bytes({"params": tokenizer_tree}))
    other = written(tmp_path / "other", flax_bytes({"params": transformer_tree}))
    fails(one, TRANSFORMER, "holds a tokenizer and not a transformer")
    fails(other, TOKENIZER, "holds a transformer and not a tokenizer")
    torch.save(Port(TOKENIZER).state_dict(), tmp_path / "port.bin")
    fails(tmp_path / "port.bin", TRANSFORMER, "holds a tokenizer and not a transformer")
    save_file({"fc.weight": torch.ones(2)}, tmp_path / "classifier")
    fails(tmp_path / "classifier", TOKENIZER, "fc.weight", "neither a tokenizer's nor")


FLAX_KEY = "encoder/ResBlock_0/Conv_0/kernel"
PORT_KEY = "decoder.up.1.block.0.nin_shortcut.weight"


def test_missing_and_unexpected_keys(tmp_path, tokenizer_tree):
    path = tmp_path / "flax"
    without = changed(tokenizer_tree, lambda key, x: None if key == FLAX_KEY else x)
    written(path, flax_bytes({"params": without}))
    fails(path, TOKENIZER, f"lacks {FLAX_KEY};", "whole file")
    extra = tokenizer_tree | {"encoder": tokenizer_tree["encoder"] | {"Dense_0": torch.ones(2)}}
    written(path, flax_bytes({"params": extra}))
    fails(path, TOKENIZER, "has an unexpected encoder/Dense_0;", "whole file")
    weights = Port(TOKENIZER).state_dict()
    weights["quantize.\nembedding.wieght"] = weights.pop("quantize.embedding.weight")
    torch.save(weights, path)
    fails(path, TOKENIZER, "lacks quantize.embedding.weight", "unexpected quantize. embedding.w")
    weights = Port(TOKENIZER).state_dict()
    del weights[PORT_KEY]
    torch.save(weights, path)
    fails(path, TOKENIZER, f"lacks {PORT_KEY}", "tokenizer.multipliers")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"filters": 64}, ["has shape", "tokenizer.filters (32 in the file, 64 here)"]),
        ({"channels": 3}, ["(3, 3, 1, 32)", "(3, 3, 3, 32)", "data.channels (1 in the file"]),
        ({"codebook_size": 12}, ["quantizer/codebook", "tokenizer.codebook_size (10 in"]),
        ({"embedding_dim": 5}, ["tokenizer.embedding_dim (6 in the file, 5 here)"]),
        ({"multipliers": (1, 1, 2)}, ["/Conv_2/kernel", "tokenizer.multipliers"]),
        ({"multipliers": (1, 3, 1)}, ["has shape", "agree on tokenizer.multipliers"]),
        ({"multipliers": (1, 2)}, ["unexpected encoder/ResBlock_2", "tokenizer.multipliers"]),
        ({"res_blocks": 2}, ["ResBlock_", "tokenizer.multipliers or tokenizer.res_blocks"]),
    ],
)
def test_a_tokenizer_of_another_size(tmp_path, tokenizer_tree, changes, wanted):
    path = written(tmp_path / "flax", flax_bytes({"params": tokenizer_tree}))
    fails(path, replace(TOKENIZER, **changes), *wanted)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"hidden": 48}, ["transformer.hidden (24 in the file, 48 here)"]),
        ({"mlp": 48}, ["Mlp_0/intermediate_output/kernel", "transformer.mlp (40 in the file"]),
        ({"heads": 4}, ["query/kernel", "(24, 3, 8) and not (24, 4, 6)", "transformer.heads"]),
        ({"layers": 1}, ["unexpected TransformerLayer_1/", "transformer.layers"]),
        ({"layers": 3}, ["lacks TransformerLayer_2/", "transformer.layers"]),
        ({"num_tokens": 9}, ["Embed_0/position_embeddings/embedding", "data.image_size", "(7 in"]),
        ({"num_classes": 9}, ["number of classes + 1 (15 in the file, 20 here)"]),
    ],
)
def test_a_transformer_of_another_size(tmp_path, transformer_tree, changes, wanted):
    path = written(tmp_path / "flax", flax_bytes({"params": transformer_tree}))
    fails(path, replace(TRANSFORMER, **changes), *wanted)


def test_values_that_are_no_weights(tmp_path, transformer_tree):
    path, where = tmp_path / "flax", "TransformerLayer_1/Mlp_0/layer_output/bias"
    for value, wanted in (
        (torch.full((24,), torch.nan), f"{where} holds values that are not finite"),
        (torch.full((24,), 1e300, dtype=torch.float64), "not finite"),
        (torch.ones(24, dtype=torch.int32), f"{where} is int32"),
        (torch.ones(24, 1), f"{where} has shape (24, 1) and not (24,)"),
        (msgpack.ExtType(2, msgpack.packb((1.0, 2.0))), f"{where}: not an array"),
        (0.5, f"{where}: not an array"),
        (flax_array(torch.tensor(0.5), code=3), f"{where} has shape ()"),
        (msgpack.ExtType(1, msgpack.packb(((24,), "object", b"x" * 24))), "arrays of object"),
    ):
        tree = changed(transformer_tree, lambda key, x, v=value: v if key == where else x)
        written(path, flax_bytes({"params": tree}))
        fails(path, TRANSFORMER, wanted)


def test_a_description_that_does_not_fit(tmp_path):
    save_file(MaskGitTransformer(TRANSFORMER).state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"heads": "3"}')
    with pytest.raises(UserError, match=r"config\.json does not fit: heads is 3 \(str\) and not 3"):
        load_pretrained(tmp_path, TRANSFORMER)


def test_floats_whose_scale_is_elsewhere_are_refused(tmp_path):
    weights = MaskGitTransformer(TRANSFORMER).state_dict()
    small = {k: v.to(torch.float8_e4m3fn) for k, v in weights.items()}
    save_file(small, tmp_path / "weights")
    fails(tmp_path / "weights", TRANSFORMER, "is float8_e4m3fn, no weight")


def test_the_rows_of_a_checkpoint_are_its_classes(tmp_path):
    save_file({"token_embedding.weight": torch.zeros(10 + 7 + 1, 1)}, tmp_path / "weights")
    assert pretrained_num_classes(tmp_path / "weights", 10) == 7
