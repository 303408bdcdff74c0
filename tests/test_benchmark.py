"""The benchmark's arithmetic, the network it compares with, and what was made fast in the
transformer: faster, not different."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest, chisquare

from pipeline.autoregressive import AutoregressiveTransformer, next_token_logits
from pipeline.benchmark import report, subjects, timing
from pipeline.benchmark.cases import (
    LAYERS,
    MODEL,
    Result,
    _sampled_positions,
    positions,
    training_step,
)
from pipeline.benchmark.subjects import (
    EncoderLayerTransformer,
    Size,
    write_synthetic_cache,
)
from pipeline.benchmark.timing import Timing, measure, product_rate, product_shapes
from pipeline.errors import UserError
from pipeline.sampling import masked_nll, predictor
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import (
    Dropout,
    MaskGitTransformer,
    TransformerConfig,
    attend,
    with_bfloat16_linears,
)

CPU = torch.device("cpu")
TINY = TransformerConfig(
    num_tokens=9, codebook_size=20, num_classes=4, layers=2, hidden=32, heads=4, mlp=64, dropout=0.1
)


def spread(network, config: TransformerConfig = TINY, seed: int = 0):
    """A frozen network whose answers depend strongly on what it has read."""
    torch.manual_seed(seed)
    model = network(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
    return model.eval().requires_grad_(False)


def inputs(config: TransformerConfig = TINY, size: int = 5):
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randint(config.codebook_size, (size, config.num_tokens), generator=draw)
    mask = torch.rand(size, config.num_tokens, generator=draw) < 0.5
    return tokens, mask, torch.randint(config.num_classes, (size,), generator=draw)


# --- dropout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
def test_dropout_zeroes_a_share_p_and_scales_the_rest(p):
    torch.manual_seed(0)
    x = torch.full((999, 1001), 3.0)
    y = Dropout(p)(x)
    zeros = int((y == 0).sum())
    assert binomtest(zeros, x.numel(), p).pvalue > 1e-3
    torch.testing.assert_close(
        y[y != 0], torch.full((x.numel() - zeros,), 3 / (1 - p)), rtol=2e-4, atol=0
    )


def test_dropout_decides_on_every_element_by_itself():
    torch.manual_seed(0)
    zero = (Dropout(0.3)(torch.ones(400_000)) == 0).numpy()
    share = np.array([0.7, 0.3])
    for gap in (1, 2, 3, 4, 5):  # four elements share 64 bits
        pairs = np.bincount(2 * zero[:-gap:8] + zero[gap::8][: len(zero[:-gap:8])], minlength=4)
        assert chisquare(pairs, pairs.sum() * np.outer(share, share).ravel()).pvalue > 1e-3
    for word in range(4):
        assert binomtest(int(zero[word::4].sum()), 100_000, 0.3).pvalue > 1e-3


def test_dropout_repeats_with_the_seed_only():
    dropout, x = Dropout(0.5), torch.ones(7, 13)
    torch.manual_seed(4)
    one, other = dropout(x), dropout(x)
    torch.manual_seed(4)
    assert torch.equal(dropout(x), one) and not torch.equal(one, other)


def test_dropout_passes_gradients_where_it_passes_values():
    torch.manual_seed(0)
    x = torch.randn(50, 7, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_dropout_rests_in_evaluation_and_at_zero():
    x = torch.randn(6, 6)
    assert torch.equal(Dropout(0.9).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("p", [0.0, 1e-9])  # 1e-9 drops nothing and yet takes dropout's path
def test_attention_is_torchs(dtype, causal, p):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 11, 8)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    y = attend(q.to(dtype), k.to(dtype), v.to(dtype), Dropout(p), causal)
    assert y.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(y.float(), wanted, atol=tolerance, rtol=0)


def test_attention_drops_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 5, 8)
    repeats = 4000
    many = (x.expand(repeats, -1, -1, -1) for x in (q, k, v))
    y = attend(*many, Dropout(0.3), False)
    assert not torch.equal(y[0], y[1])
    wanted = F.scaled_dot_product_attention(q, k, v)[0]
    error = (y.mean(0) - wanted).abs() / (y.std(0) / math.sqrt(repeats))
    assert error.max() < 5


# --- weights that are cast once ---------------------------------------------------------------


def test_bfloat16_decoding_is_that_of_autocast():
    model = spread(MaskGitTransformer)
    tokens, mask, labels = inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = model.predict(tokens, mask, labels)
    with torch.no_grad():
        assert torch.equal(predictor(model, labels, bf16=True)(tokens, mask), wanted)
        exact = predictor(model, labels, bf16=False)(tokens, mask)
    assert exact.dtype == torch.float32 and not torch.equal(exact, wanted.float())


def test_casting_leaves_the_model_and_shares_the_rest():
    model = spread(AutoregressiveTransformer)
    before = copy.deepcopy(model.state_dict())
    cast = with_bfloat16_linears(model)
    assert cast.config == model.config and not cast.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) and value.dtype == torch.float32
    shared = dict(model.named_parameters())
    for name, parameter in cast.named_parameters():
        linear = any(part in name for part in ("qkv", "out.", "mlp_in", "mlp_out", "head."))
        assert (parameter.dtype == torch.bfloat16) == linear
        assert (parameter is shared[name]) != linear


# --- timing -----------------------------------------------------------------------------------


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)


def test_measure_is_the_median_without_the_warm_up(monkeypatch):
    clock, durations = Clock(monkeypatch), iter([100.0, 50.0, 4.0, 1.0, 3.0, 9.0, 2.0])

    def run() -> None:
        clock.now += next(durations)

    assert measure(run, CPU, repeats=5, warm_up=2) == Timing(3.0, 5)


def test_product_rate_is_flops_over_time(monkeypatch):
    clock = Clock(monkeypatch)

    def linear(x, weight):
        assert x.shape == (6, 5) and weight.shape == (7, 5) and x.dtype == torch.bfloat16
        clock.now += 0.002

    monkeypatch.setattr(timing.F, "linear", linear)
    rate = product_rate((6, 5, 7), "bfloat16", CPU)
    assert rate == pytest.approx(2 * 6 * 5 * 7 / 0.002)


def test_shapes_of_products_are_the_models():
    config = subjects.open_size("paper", CPU).config
    shapes = product_shapes(config, 4)
    assert (1028, 768, 3072) in shapes and (2048, 2048, 2048) in shapes
    model, seen = spread(MaskGitTransformer), set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module is not model.head:
            module.register_forward_hook(
                lambda m, args, _: seen.add((args[0].shape[:-1].numel(), *m.weight.T.shape))
            )
    model.predict(*inputs())
    assert seen == set(product_shapes(TINY, 5)[:-1])


# --- what is compared with --------------------------------------------------------------------


def test_comparison_network_is_the_same_architecture():
    ours, theirs = spread(MaskGitTransformer), spread(EncoderLayerTransformer)
    count = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert count[0] == count[1]
    for block, layer in zip(ours.blocks, theirs.blocks, strict=True):
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        for target, source in (
            (layer.self_attn.out_proj, block.attention.out),
            (layer.norm1, block.attention_norm),
            (layer.linear1, block.mlp_in),
            (layer.linear2, block.mlp_out),
            (layer.norm2, block.mlp_norm),
        ):
            target.load_state_dict(source.state_dict())
    for name in ("token_embedding", "embedding_norm", "head", "head_norm"):
        getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    theirs.position_embedding.copy_(ours.position_embedding)
    theirs.vocabulary_bias.copy_(ours.vocabulary_bias)
    tokens, mask, labels = inputs()
    with torch.no_grad():
        for model in (ours, theirs):
            model.eval()
        # Their GELU is exact, ours its tanh form: 5e-4 apart at most, in each of two layers.
        torch.testing.assert_close(
            theirs.predict(tokens, mask, labels),
            ours.predict(tokens, mask, labels),
            atol=2e-2,
            rtol=0,
        )
        assert all(layer.dropout.p == 0 and layer.dropout1.p == 0.1 for layer in theirs.blocks)


@pytest.mark.parametrize(("count", "wanted"), [(4, [0, 1, 2, 3]), (256, range(8, 256, 16))])
def test_sampled_positions_are_the_middles_of_equal_parts(count, wanted):
    assert positions(count) == list(wanted)


def test_extrapolation_scales_the_time_of_the_positions_to_all(monkeypatch):
    clock = Clock(monkeypatch)

    def logits(model, ids, n):
        clock.now += 1 + n  # as without a cache: in proportion to what is read
        return next_token_logits(model, ids, n)

    monkeypatch.setattr("pipeline.benchmark.cases.next_token_logits", logits)
    config = TransformerConfig(**(vars(TINY) | {"num_tokens": 256}))
    model, labels = spread(AutoregressiveTransformer, config), torch.zeros(1, dtype=torch.long)
    seconds = _sampled_positions(model, labels, False, CPU).seconds
    assert seconds == pytest.approx(sum(range(1, 257)), rel=0.01)


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture
def tiny_size(make_params):
    params = make_params(
        transformer={"layers": 1, "hidden": 16, "heads": 2, "mlp": 32},
        training={"batch_size": 2},
        ray={"num_workers": 1},
    )
    return Size("tiny", params, classes=3, batch=2, extrapolate=False)


def test_bench_writes_what_it_prints(tiny_size, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "open_size", lambda name, device: tiny_size)
    monkeypatch.setattr(report, "product_rate", lambda *_: 1e12)
    monkeypatch.setattr(subjects, "IMAGES", 300)
    text = report.bench(["default"])
    written = json.loads((tmp_path / "results/bench.json").read_text())
    (size,) = written["sizes"].values()
    assert report.table(written) in text
    assert capsys.readouterr().out.count("bench: tiny: ") == len(size["cases"]) == 13
    assert not (tmp_path / "data").exists()  # its token cache was a temporary one

    cases = {(c["case"], c["network"], c["precision"]): c for c in size["cases"]}
    for case in ("training step", "decoding, T = 8"):
        bf16, f32, layers = (
            cases[case, *rest]
            for rest in ((MODEL, "bfloat16"), (MODEL, "float32"), (LAYERS, "float32"))
        )
        assert bf16["times_float32"] == pytest.approx(f32["seconds"] / bf16["seconds"])
        assert bf16["times_encoder_layers"] == pytest.approx(layers["seconds"] / bf16["seconds"])
        assert "times_float32" not in f32 and "times_encoder_layers" not in layers
        assert bf16["flops"] == f32["flops"] == layers["flops"] > 0
        assert f32["of_product_rate"] == pytest.approx(f32["flops"] / f32["seconds"] / 1e12)
    for case in cases.values():
        assert case["per_second"] == pytest.approx(case["items"] / case["seconds"])
        assert (case["flops"] == 0) == (case["case"] == "token loading")


def test_bench_needs_a_thread():
    with pytest.raises(UserError, match="--threads 0"):
        report.bench(["default"], threads=0)


def test_table_says_where_bfloat16_does_not_pay():
    results = [
        Result("decoding", MODEL, "bfloat16", Timing(2.0, 5), 4, 1),
        Result("decoding", MODEL, "float32", Timing(1.0, 5), 4, 1, extrapolated=True),
        Result("decoding", LAYERS, "float32", Timing(3.0, 5), 4, 1),
    ]
    cases = [report.judged(r, results, {"bfloat16": 8.0, "float32": 2.0}) for r in results]
    assert [c.get("times_float32") for c in cases] == [0.5, None, None]
    assert [c.get("times_encoder_layers") for c in cases] == [1.5, 3.0, None]
    assert [c["of_product_rate"] for c in cases] == [0.25, 2.0, pytest.approx(2 / 3)]
    size = {"batch": 1, "best_rate": {"bfloat16": 8e9}, "cases": cases}
    machine = {"device": "d", "threads": 1, "torch": "t"}
    lines = report.table({"machine": machine, "sizes": {"x": size}}).splitlines()
    assert sum("0.50 (no gain)" in line for line in lines) == 1
    assert sum("≈ 1 s (extrapolated)" in line for line in lines) == 1


def test_timed_step_is_the_tasks_own(tiny_size, tmp_path, monkeypatch):
    taken = []

    class Spied(TransformerTask):
        def step(self, step):
            taken.append((step, self.training.bf16))
            return super().step(step)

    monkeypatch.setattr(subjects, "IMAGES", 10)
    write_synthetic_cache(tiny_size, tmp_path)
    result = training_step(tiny_size, CPU, tmp_path, Spied, "bfloat16")
    assert taken == [(i, True) for i in range(1 + result.timing.repeats)]


# --- the paper's size -------------------------------------------------------------------------


def test_one_step_at_the_papers_size(tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "IMAGES", 4)
    size = subjects.open_size("paper", CPU)
    params = size.params.model_copy(
        update={"training": size.params.training.model_copy(update={"batch_size": 1})}
    )
    write_synthetic_cache(size, tmp_path)
    task = TransformerTask(params, tmp_path, 1000, schedule="cosine", seed=0, device=CPU)
    assert sum(p.numel() for p in task.model.parameters()) == 172_457_193
    tokens, labels = task.validation
    nll = masked_nll(task.model.eval(), tokens, labels, schedule="cosine", seed=0, batch_size=1)
    assert nll == pytest.approx(math.log(1024), rel=0.05)  # over the codes

    before = task.model.blocks[23].mlp_in.weight[0].clone()
    loss = task.step(0)["loss"].item()
    assert loss == pytest.approx(math.log(2025), rel=0.05)  # over the whole vocabulary
    assert not torch.equal(task.model.blocks[23].mlp_in.weight[0], before)
