"""Tokens in bfloat16 (`tokens.bf16`), on any CPU."""

import pytest
import torch

from pipeline.training.tokens import Coder
from tests.tiny_project import CPU, GRID, with_params


@pytest.mark.parametrize("bf16", [True, False])
def test_tokens_are_made_in_bfloat16_if_asked_for(in_tiny_project, in_bfloat16, bf16):
    coder, autocast = Coder("val", 2, with_params(tokens={"bf16": bf16}), CPU), []

    def encode(images):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(len(images), GRID, GRID, dtype=torch.long)

    coder.tokenizer.encode = encode
    assert coder(0, 5)["tokens"].shape == (5, 2, GRID**2)
    assert autocast == 2 * [bf16]
