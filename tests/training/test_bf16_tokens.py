"""Tokens in bfloat16 (`tokens.bf16`), on any CPU."""

import pytest
import torch
from torch import Tensor

from pipeline.runtime import device
from pipeline.training.tokens import Coder
from tests.tiny_project import CPU, GRID, with_params


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("bf16", [True, False])
def test_tokens_are_made_in_bfloat16_where_it_is_asked_for(
    in_tiny_project, monkeypatch, quick, bf16
):
    monkeypatch.setattr(device, "quick_in_bfloat16", lambda where: quick)
    coder, seen = Coder("val", 2, with_params(tokens={"bf16": bf16}), CPU), []

    def encode(pictures: Tensor) -> Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return torch.zeros(len(pictures), GRID, GRID, dtype=torch.long)

    coder.tokenizer.encode = encode
    assert coder(0, 5)["tokens"].shape == (5, 2, GRID**2)
    assert seen == 2 * [bf16 and quick]
