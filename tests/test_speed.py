"""Timings: what is timed, and how."""

import itertools

import torch

from pipeline.evaluation import speed
from pipeline.sampling import balanced_labels
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from tests.tiny_project import (
    CLASSES,
    CODES,
    CPU,
    with_params,
)


def config(grid: int) -> TransformerConfig:
    t = with_params().transformer
    return TransformerConfig(grid**2, CODES, CLASSES, t.layers, t.hidden, t.heads, t.mlp, 0.1)


def test_every_method_and_batch_size_is_timed():
    rows = speed.speed_rows(with_params(), 2, CLASSES, CPU)
    keys = [(row["method"], row["batch_size"]) for row in rows]
    assert keys == [(m, b) for m in ("maskgit", "ar_cached", "ar_uncached") for b in (1, 3)]
    for row in rows:
        assert 0 < row["low"] <= row["seconds_per_image"] <= row["high"]
        assert (row["tokens"], row["repeats"], row["device"]) == (4, 3, "cpu")
        assert row["threads"] == torch.get_num_threads()
        assert row["iterations"] == (3 if row["method"] == "maskgit" else 4)
    sizes = {sum(p.numel() for p in MaskGitTransformer(config(2)).parameters())}
    assert {row["parameters"] for row in rows} == sizes


def test_time_is_the_median_of_the_repeats_per_image(monkeypatch):
    clock = iter(itertools.accumulate([50, 0, 4, 9, 1, 7, 2]))  # between calls, and in them
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    drawn = []
    method = speed.Method(MaskGitTransformer(config(2)), 3, drawn.append)
    monkeypatch.setattr(speed, "methods", lambda *_: {"maskgit": method})
    params = with_params(speed={"batch_sizes": [2], "repeats": 3})
    (row,) = speed.speed_rows(params, 2, CLASSES, CPU)
    assert len(drawn) == 4  # one is thrown away
    assert (row["low"], row["seconds_per_image"], row["high"]) == (0 / 2, 7 / 2, 9 / 2)


def test_what_is_timed_draws_the_same_tokens_with_and_without_a_cache(monkeypatch):
    """In float32, whatever dtype MaskGIT is decoded in; and as many passes as the row says."""
    params = with_params(decoding={"iterations": 9, "bf16": True})
    methods = speed.methods(params, config(3), CPU)
    labels = balanced_labels(4, CLASSES)
    passes = []
    encode = MaskGitTransformer.encode
    monkeypatch.setattr(
        "pipeline.transformer.TokenTransformer.encode",
        lambda self, *args, **kwargs: passes.append(1) or encode(self, *args, **kwargs),
    )
    tokens = {}
    for name, method in methods.items():
        passes.clear()
        tokens[name] = method.draw(labels)
        assert len(passes) == method.iterations == 9
        assert tokens[name].shape == (4, 9)
    assert torch.equal(tokens["ar_cached"], tokens["ar_uncached"])
    assert len(tokens["ar_cached"].unique()) > 1


def test_maskgit_takes_no_more_iterations_than_there_are_tokens():
    methods = speed.methods(with_params(decoding={"iterations": 12}), config(2), CPU)
    assert methods["maskgit"].iterations == 4
    assert speed.methods(with_params(), config(1), CPU)["maskgit"].draw(torch.tensor([0])).numel()
