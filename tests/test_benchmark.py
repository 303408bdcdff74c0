"""The benchmark's arithmetic, the network it compares with, and what it writes."""

import json
import math

import pytest
import torch

from pipeline.autoregressive import AutoregressiveTransformer, next_token_logits
from pipeline.masking import masked_nll
from pipeline.runtime.errors import UserError
from pipeline.tools.bench import report, subjects, timing
from pipeline.tools.bench.cases import (
    LAYERS,
    MODEL,
    Result,
    _sampled_positions,
    positions,
    training_step,
)
from pipeline.tools.bench.subjects import (
    EncoderLayerTransformer,
    Size,
    write_synthetic_cache,
)
from pipeline.tools.bench.timing import Timing, measure, product_rate, product_shapes
from pipeline.training.transformer import TransformerTask
from pipeline.transformer import (
    MaskGitTransformer,
    TransformerConfig,
)
from tests.tiny_networks import TINY, inputs, spread

CPU = torch.device("cpu")

# --- timing -----------------------------------------------------------------------------------


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("pipeline.runtime.device.time.perf_counter", lambda: self.now)


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

    monkeypatch.setattr("pipeline.tools.bench.cases.next_token_logits", logits)
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


def test_bench_writes_what_it_prints(in_bfloat16, tiny_size, tmp_path, monkeypatch, capsys):
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
    for threads in (0, 999_999):  # of which OpenMP would end the process without a word
        with pytest.raises(UserError, match=f"--threads {threads}, .*; give so many"):
            report.bench(["default"], threads=threads)


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


@pytest.mark.slow  # 172 million parameters
def test_one_step_at_the_papers_size(tmp_path, monkeypatch):
    monkeypatch.setattr(subjects, "IMAGES", 4)
    size = subjects.open_size("paper", CPU)
    params = size.params.model_copy(
        update={"training": size.params.training.model_copy(update={"batch_size": 1})}
    )
    write_synthetic_cache(size, tmp_path)
    task = TransformerTask(params, tmp_path, 1000, seed=0, device=CPU)
    assert sum(p.numel() for p in task.model.parameters()) == 172_457_193
    tokens, labels = task.validation
    nll = masked_nll(task.model.eval(), tokens, labels, schedule="cosine", seed=0, batch_size=1)
    assert nll == pytest.approx(math.log(1024), rel=0.05)  # over the codes

    before = task.model.blocks[23].mlp_in.weight[0].clone()
    loss = task.step(0)["loss"].item()
    assert loss == pytest.approx(math.log(2025), rel=0.05)  # over the whole vocabulary
    assert not torch.equal(task.model.blocks[23].mlp_in.weight[0], before)
