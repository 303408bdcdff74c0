"""Tiny pretrained models, to write in any format, to change and to fail to load."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.runtime.errors import UserError
from pipeline.tokenizer import TokenizerConfig
from pipeline.transformer import TransformerConfig
from pipeline.weights.released.checkpoint import load_pretrained

TOKENIZER = TokenizerConfig(
    channels=1, filters=32, multipliers=(1, 2, 1), res_blocks=1, embedding_dim=6, codebook_size=10
)
TRANSFORMER = TransformerConfig(
    num_tokens=6, codebook_size=10, num_classes=4, layers=2, hidden=24, heads=3, mlp=40, dropout=0
)
PUBLISHED = replace(TRANSFORMER, num_tokens=4)  # whose tokens fill a square, as a model's must


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def changed(tree, change) -> dict:
    """The tree with `change(key, tensor)` for each of its tensors; None leaves one out."""

    def walk(node, prefix):
        if not isinstance(node, dict):
            return change(prefix, node)
        children = {k: walk(v, f"{prefix}/{k}".lstrip("/")) for k, v in node.items()}
        return {k: v for k, v in children.items() if v is not None}

    return walk(tree, "")


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def fails(path, config, *wanted: str) -> str:
    with pytest.raises(UserError) as error:
        load_pretrained(path, config)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    for text in wanted:
        assert text in message, message
    return message
