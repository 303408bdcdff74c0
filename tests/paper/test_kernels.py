"""Optimised code of the transformers gives the same results as plain code."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest, chisquare
from torch import nn

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.decoding.iterative import predictor
from pipeline.decoding.settings import DecodingSettings
from pipeline.transformer import MaskGitTransformer, kernels
from tests.tiny_networks import inputs, spread


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.93])
def test_dropout_decides_on_every_element_by_itself_and_scales_the_rest(p):
    torch.manual_seed(0)
    y = kernels.Dropout(p)(torch.full((999, 1001), 3.0)).flatten()
    kept, zero = y[y != 0], (y == 0).numpy()
    torch.testing.assert_close(kept, torch.full_like(kept, 3 / (1 - p)), rtol=2e-4, atol=0)
    assert binomtest(int(zero.sum()), zero.size, p).pvalue > 1e-3
    share = np.array([1 - p, p])
    for gap in (1, 2, 3, 4, 5):  # four elements share 64 bits
        pairs = np.bincount(2 * zero[:-gap:8] + zero[gap::8][: len(zero[:-gap:8])], minlength=4)
        assert chisquare(pairs, pairs.sum() * np.outer(share, share).ravel()).pvalue > 1e-3
    for word in range(4):
        own = zero[word::4]
        assert binomtest(int(own.sum()), own.size, p).pvalue > 1e-3


def test_dropout_in_bfloat16_drops_the_same_and_rounds_once():
    x = torch.linspace(-5, 5, 999).bfloat16()
    torch.manual_seed(0)
    y = kernels.Dropout(0.3)(x)
    torch.manual_seed(0)
    factor = kernels.Dropout(0.3)(torch.ones(999)).bfloat16()
    assert y.dtype == torch.bfloat16 and torch.equal(y, x * factor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("p", [0.0, 1e-9])  # 1e-9 drops nothing and yet takes dropout's path
def test_attention_is_torchs(dtype, causal, p):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 11, 8)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    y = kernels.attend(q.to(dtype), k.to(dtype), v.to(dtype), kernels.Dropout(p), causal)
    assert y.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(y.float(), wanted, atol=tolerance, rtol=0)


def test_attention_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 5, 8)
    repeats = 4000
    many = (x.expand(repeats, -1, -1, -1) for x in (q, k, v))
    y = kernels.attend(*many, kernels.Dropout(0.3), False)
    assert not torch.equal(y[0], y[1])
    wanted = F.scaled_dot_product_attention(q, k, v)[0]
    error = (y.mean(0) - wanted).abs() / (y.std(0) / math.sqrt(repeats))
    assert error.max() < 5


def test_bfloat16_decoding_is_that_of_autocast(in_bfloat16):
    model, how = spread(MaskGitTransformer), DecodingSettings(3, "cosine", 4.5, bf16=True)
    tokens, mask, labels = inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model.predict(tokens, mask, labels)
    with torch.no_grad():
        found = predictor(model, labels, how)(tokens, mask, 1.0)
        exact = predictor(model, labels, replace(how, bf16=False))(tokens, mask, 1.0)
    assert exact.dtype == torch.float32 and not torch.equal(exact, wanted.float())
    assert found.dtype == wanted.dtype
    # It rounds less often, and is therefore no further from the exact logits than autocast is.
    errors = [(logits.float() - exact).abs().mean() for logits in (found, wanted)]
    assert 0 < errors[0] < 1.05 * errors[1]


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("inputs, outputs", [(7, 13), (768, 3072)])
def test_a_layer_laid_out_for_products_gives_the_same_bits(inputs, outputs, onednn, monkeypatch):
    if not onednn:  # a build of torch without it
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    weight, bias = layer.weight.bfloat16(), layer.bias.bfloat16()
    for rows in (1, 11, 257):  # some for each of oneDNN's kernels
        x = torch.randn(2, rows, inputs)
        with torch.no_grad():
            assert torch.equal(
                kernels.BFloat16Linear(layer)(x), F.linear(x.bfloat16(), weight, bias)
            )


@pytest.mark.parametrize("onednn", [True, False])
def test_gelu_of_a_layer_is_approximated_by_tanh_and_rounded_once_by_onednn(onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    elif not kernels.onednn_takes_bfloat16():
        pytest.skip("oneDNN multiplies no bfloat16 here")
    torch.manual_seed(0)
    layer, x = kernels.LinearGelu(96, 288).requires_grad_(False), 4 * torch.randn(500, 96)
    plain = F.linear(x, layer.weight, layer.bias)
    assert torch.equal(layer(x), F.gelu(plain, approximate="tanh"))
    x, weight, bias = (value.bfloat16() for value in (x, layer.weight, layer.bias))
    found = kernels.BFloat16Linear(layer)(x)
    if not onednn:
        assert torch.equal(found, F.gelu(F.linear(x, weight, bias), approximate="tanh"))
        return
    product = F.linear(x.float(), weight.float(), bias.float())
    by_tanh, exact = (F.gelu(product, approximate=how).bfloat16() for how in ("tanh", "none"))
    assert (found == by_tanh).double().mean() > 0.99
    assert (found == exact).double().mean() < 0.95


def test_casting_leaves_the_model_and_shares_the_rest():
    model = spread(AutoregressiveTransformer)
    before = copy.deepcopy(model.state_dict())
    cast = kernels.with_bfloat16_linears(model)
    assert cast.config == model.config and not cast.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) and value.dtype == torch.float32
    shared = dict(model.named_parameters())
    for name, parameter in cast.named_parameters():
        linear = any(part in name for part in ("qkv", "out.", "mlp_in", "mlp_out", "head."))
        assert (parameter.dtype == torch.bfloat16) == linear
        assert (parameter is shared[name]) != linear
