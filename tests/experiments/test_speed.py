"""Timings: what is timed, and how."""

from dataclasses import replace

import pytest
import torch

from pipeline.experiments import speed
from pipeline.sampling import balanced_labels
from pipeline.transformer import MaskGitTransformer, TokenTransformer, TransformerConfig
from pipeline.weights.configs import transformer_config
from tests.tiny_project import CLASSES, CPU, with_params


def config(grid: int) -> TransformerConfig:
    return replace(transformer_config(with_params(), CLASSES), num_tokens=grid**2)


def test_every_method_and_batch_size_is_timed():
    every = speed.run_speed(with_params(ray={"use_gpu": False}), CLASSES)
    assert [row["tokens"] for row in every] == [1] * 6 + [4] * 6
    rows = every[6:]
    keys = [(row["method"], row["batch_size"]) for row in rows]
    assert keys == [(m, b) for b in (1, 3) for m in ("maskgit", "ar_cached", "ar_uncached")]
    for row in rows:
        assert 0 < row["low"] <= row["seconds_per_image"] <= row["high"]
        assert (row["tokens"], row["repeats"], row["device"]) == (4, 3, "cpu")
        assert row["threads"] == torch.get_num_threads()
        assert row["iterations"] == (3 if row["method"] == "maskgit" else 4)
    sizes = {sum(p.numel() for p in MaskGitTransformer(config(2)).parameters())}
    assert {row["parameters"] for row in rows} == sizes


def test_time_is_the_median_of_rounds_after_the_first_per_image(monkeypatch):
    """Each call of one of the two methods moves a fake clock by the time that it is to take."""
    clock, drawn = [0.0], []

    def work(name: str, durations: list[float]):
        def draw(labels: torch.Tensor) -> None:
            drawn.append((name, len(labels)))
            clock[0] += durations.pop(0)

        return speed.Method(MaskGitTransformer(config(2)), 3, draw)

    timed = {"slow": work("slow", [99, 5, 9, 4]), "fast": work("fast", [0, 1, 1, 8])}
    monkeypatch.setattr(speed, "methods", lambda *_: timed)
    monkeypatch.setattr("pipeline.runtime.device.time.perf_counter", lambda: clock[0])
    params = with_params(speed={"batch_sizes": [2], "repeats": 3})
    rows = speed.speed_rows(params, 2, CLASSES, CPU)
    assert drawn == [("slow", 2), ("fast", 2)] * 4
    times = [(row["low"], row["seconds_per_image"], row["high"]) for row in rows]
    assert times == [(4 / 2, 5 / 2, 9 / 2), (1 / 2, 1 / 2, 8 / 2)]


def test_what_is_timed_draws_the_same_tokens_with_and_without_a_cache(monkeypatch):
    """Each row says how many passes a method makes, and over how many positions."""
    methods = speed.methods(with_params(decoding={"iterations": 9}), config(3), CPU)
    labels = balanced_labels(4, CLASSES)
    positions = []
    encode = TokenTransformer.encode

    def spied(self, ids, *args, **kwargs):
        positions.append(ids.shape[1])
        return encode(self, ids, *args, **kwargs)

    monkeypatch.setattr(TokenTransformer, "encode", spied)
    computed = {"maskgit": [10] * 9, "ar_cached": [1] * 9, "ar_uncached": list(range(1, 10))}
    tokens = {}
    for name, method in methods.items():
        positions.clear()
        tokens[name] = method.draw(labels)
        assert positions == computed[name] and method.iterations == 9
        assert tokens[name].shape == (4, 9)
    assert torch.equal(tokens["ar_cached"], tokens["ar_uncached"])
    assert len(tokens["ar_cached"].unique()) > 1


@pytest.mark.parametrize(("theirs", "dtype"), [(False, torch.float32), (True, torch.bfloat16)])
def test_all_compute_in_one_dtype(in_bfloat16, theirs, dtype, monkeypatch):
    params, kinds = with_params(decoding={"bf16": True}, autoregressive={"bf16": theirs}), set()
    code_logits = TokenTransformer.code_logits

    def logits(self, x):
        kinds.add(self.head.weight.dtype)
        return code_logits(self, x)

    monkeypatch.setattr(TokenTransformer, "code_logits", logits)
    for method in speed.methods(params, config(2), CPU).values():
        method.draw(torch.tensor([0]))
    assert kinds == {dtype}
