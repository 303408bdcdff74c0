"""The autoregressive baseline: causality, sampling with and without the cache, exact likelihood."""

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from pipeline import autoregressive
from pipeline.autoregressive import (
    AutoregressiveTransformer,
    KeyValueCache,
    generate_autoregressive,
    token_nll,
)
from pipeline.sampling import sampler
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from tests.images import write_token_cache
from tests.interruption import straight_and_resumed, weight_bytes
from tests.transformer_task import CLASSES, CPU, Spy, random_tokens
from tests.transformer_task import calls as maskgit_calls


def decided(seed: int = 0, **changes) -> AutoregressiveTransformer:
    """A random model whose answers depend strongly on what it has read."""
    torch.manual_seed(seed)
    values = {"num_tokens": 9, "codebook_size": 12, "num_classes": 4, "layers": 2, "hidden": 32}
    values |= {"heads": 4, "mlp": 64, "dropout": 0.0}
    model = AutoregressiveTransformer(TransformerConfig(**(values | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.4)
    return model.eval()


def batch(model: AutoregressiveTransformer, size: int = 3) -> tuple[Tensor, Tensor]:
    config, draw = model.config, torch.Generator().manual_seed(1)
    tokens = torch.randint(config.codebook_size, (size, config.num_tokens), generator=draw)
    return tokens, torch.randint(config.num_classes, (size,), generator=draw)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@torch.no_grad()
def test_a_token_changes_later_logits_only(dropout):
    """With dropout the same noise is drawn; attention takes another path then."""
    model = decided(dropout=dropout).train()
    tokens, labels = batch(model)

    def logits(tokens: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(0)
        return model.predict(tokens, labels)

    before = logits(tokens, labels)
    for j in range(9):
        changed = tokens.clone()
        changed[:, j] = (changed[:, j] + 1) % 12
        difference = (logits(changed, labels) - before).abs().amax(dim=-1)
        assert (difference[:, : j + 1] < 1e-6).all(), j
        assert (difference[:, j + 1 :] > 1e-4).all(), j
    difference = (logits(tokens, (labels + 1) % 4) - before).abs().amax(dim=-1)
    assert (difference > 1e-4).all()  # the class reaches every position


@torch.no_grad()
def test_both_paths_of_attention_agree():
    """A dropout too small to drop anything takes the one of training."""
    model, training = decided(), decided(dropout=1e-6).train()
    tokens, labels = batch(model)
    torch.testing.assert_close(training.predict(tokens, labels), model.predict(tokens, labels))


@torch.no_grad()
def test_first_position_depends_on_the_class_only():
    model = decided()
    tokens, _ = batch(model, 8)
    first = torch.stack([model.predict(tokens, torch.full((8,), c))[:, 0] for c in range(4)])
    torch.testing.assert_close(first, first[:, :1].expand(-1, 8, -1))
    for one, other in itertools.combinations(first[:, 0], 2):
        assert (one - other).abs().max() > 0.1


@torch.no_grad()
def test_training_logits_are_predictions_and_those_of_the_rest_of_the_vocabulary():
    model = decided()
    tokens, labels = batch(model)
    logits = model(tokens, labels)
    assert logits.shape == (3, 9, model.config.vocabulary)
    torch.testing.assert_close(logits[..., :12], model.predict(tokens, labels))


@pytest.mark.parametrize("count", [1, 7])
def test_a_batch_whose_cache_is_too_large_is_drawn_in_parts(monkeypatch, count):
    """Seven images, two or three at a time, have the tokens that they have together."""
    model, labels = decided().eval(), torch.arange(count) % 4
    together = generate_autoregressive(model, labels, seed=3)
    an_image = 2 * 4 * 2 * 9 * 32  # keys and values, layers, tokens, hidden units, in bytes of four
    for rows in (2, 3):
        monkeypatch.setattr(autoregressive, "CACHE_BYTES", rows * an_image + 5)
        seen: list[int] = []
        monkeypatch.setattr(KeyValueCache, "append", noting(seen))
        assert torch.equal(generate_autoregressive(model, labels, seed=3), together)
        assert max(seen) == min(rows, count)
        monkeypatch.undo()


def noting(seen: list[int]) -> Callable:
    """The cache's own `append`, which notes of how many images it is."""
    append = KeyValueCache.append

    def noted(self, k: torch.Tensor, v: torch.Tensor):
        seen.append(len(k))
        return append(self, k, v)

    return noted


def test_parameter_count_is_maskgits():
    config = TransformerConfig(
        num_tokens=256,
        codebook_size=1024,
        num_classes=1000,
        layers=24,
        hidden=768,
        heads=8,
        mlp=3072,
        dropout=0.1,
    )
    with torch.device("meta"):
        shapes = [
            {name: p.shape for name, p in network(config).named_parameters()}
            for network in (AutoregressiveTransformer, MaskGitTransformer)
        ]
    assert shapes[0] == shapes[1]
    assert sum(shape.numel() for shape in shapes[0].values()) == 172_457_193


# --- likelihood -----------------------------------------------------------------------------------


@torch.no_grad()
def test_chain_rule_with_the_cache():
    """Token by token, each position computed once, against the whole sequence at once."""
    model = decided()
    tokens, labels = batch(model, 5)
    caches = [KeyValueCache(9) for _ in model.blocks]
    ids, total = model.class_ids(labels), 0.0
    for n in range(9):
        logits = model.code_logits(model.encode(ids, caches, start=n))[:, 0]
        total -= logits.double().log_softmax(dim=-1).gather(1, tokens[:, n : n + 1]).sum().item()
        ids = tokens[:, n : n + 1]
    for batch_size in (5, 2):
        nll = token_nll(model, tokens, labels, batch_size=batch_size)
        assert nll == pytest.approx(total / 45, rel=1e-5)
    assert nll > 1.1 * math.log(12)  # it says something: tokens at random surprise the model


def test_probabilities_of_all_sequences_sum_to_one():
    model = decided(num_tokens=4, codebook_size=3)
    sequences = torch.tensor(list(itertools.product(range(3), repeat=4)))
    nll = [4 * token_nll(model, row[None], torch.tensor([2]), batch_size=1) for row in sequences]
    assert sum(math.exp(-x) for x in nll) == pytest.approx(1, abs=1e-5)
    assert max(nll) - min(nll) > 2


# --- sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("size", "num_tokens"), [(1, 9), (7, 9), (4, 1), (3, 25)])
def test_sampling_is_the_same_without_the_cache(seed, size, num_tokens):
    model = decided(seed, num_tokens=num_tokens)
    labels = torch.arange(size) % 4
    tokens = generate_autoregressive(model, labels, seed=seed)
    assert tokens.shape == (size, num_tokens) and tokens.dtype == torch.int64
    assert tokens.min() >= 0 and tokens.max() < 12
    assert torch.equal(tokens, generate_autoregressive(model, labels, seed=seed, cache=False))
    if num_tokens > 1:
        other = generate_autoregressive(model, labels, seed=seed + 1)
        assert not torch.equal(tokens, other)


@pytest.mark.parametrize("cache", [True, False])
@torch.no_grad()
def test_samples_follow_the_models_distribution(cache):
    """All nine sequences of two tokens of three codes, counted, for each class."""
    model, count = decided(num_tokens=2, codebook_size=3), 4000
    sequences = torch.tensor(list(itertools.product(range(3), repeat=2)))
    found, wanted = [], []
    for label in (0, 1):
        labels = torch.full((count,), label)
        tokens = generate_autoregressive(model, labels, seed=label, cache=cache)
        found.append(np.bincount(tokens @ torch.tensor([3, 1]), minlength=9))
        log_prob = model.predict(sequences, torch.full((9,), label)).double().log_softmax(dim=-1)
        wanted.append(log_prob.gather(2, sequences[..., None]).sum(dim=(1, 2)).exp().numpy())
    for label in (0, 1):
        assert chisquare(found[label], count * wanted[label]).pvalue > 0.01
        assert chisquare(found[label], count * wanted[1 - label]).pvalue < 1e-9


def test_sampler_draws_from_the_baseline_in_the_precision_asked_for(in_bfloat16, make_params):
    model, labels = decided(), torch.arange(200) % 4
    drawn = {}
    for bf16 in (False, True):
        params = make_params(autoregressive={"bf16": bf16})
        drawn[bf16] = sampler(model, params.decoding_settings(autoregressive=True))(labels, 5)
        wanted = generate_autoregressive(model, labels, seed=5, bf16=bf16)
        assert torch.equal(drawn[bf16], wanted)
    assert 0.5 < (drawn[False] == drawn[True]).float().mean() < 1  # rounding decides few draws
    assert all(p.dtype == torch.float32 for p in model.parameters())


# --- training -------------------------------------------------------------------------------------


def autoregressive_task(params, tokens_dir, **options) -> AutoregressiveTask:
    options = {"seed": 3, "device": CPU} | options
    return AutoregressiveTask(params, tokens_dir, CLASSES, **options)


def test_baseline_learns_to_count_from_its_class_on(tiny, tmp_path):
    """Token n is class + n, of 16: no more to learn than the token before, or the class."""
    labels = np.arange(18) % CLASSES
    grids = (labels[:, None, None] + np.arange(49)) % 16
    splits = ("train", "val")
    tokens_dir = write_token_cache(
        tmp_path / "tokens", {s: [grids] for s in splits}, dict.fromkeys(splits, labels), 16
    )
    exact = {"label_smoothing": 0.0, "other_label_smoothings": []}
    task = autoregressive_task(tiny(lr=1e-2, ema_decay=0.5, **exact), tokens_dir)
    before = task.evaluate(0)["val_nll"]
    for step in range(60):
        task.step(step)
    assert before == pytest.approx(math.log(16), abs=0.2)
    assert task.evaluate(60)["val_nll"] < 0.1
    drawn = generate_autoregressive(task.average.module, torch.from_numpy(labels), seed=0)
    assert drawn[:, 0].tolist() == labels.tolist()
    assert (drawn.diff(dim=1) % 16 == 1).float().mean() > 0.95


def test_interrupted_baseline_ends_with_the_same_bytes(tiny, tmp_path):
    tokens_dir = random_tokens(tmp_path / "tokens")

    def task():
        return autoregressive_task(tiny(dropout=0.1, warmup_steps=3), tokens_dir)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=4, every=2)
    assert again == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert weight_bytes(resumed.average.module) == weight_bytes(straight.average.module)


def test_batches_are_maskgits_and_the_loss_is_of_every_token(tiny, tmp_path):
    """Label smoothing is over the whole vocabulary; labels are never dropped."""
    tokens_dir = random_tokens(tmp_path / "tokens")
    task = autoregressive_task(tiny(label_smoothing=0.3, label_drop=0.9), tokens_dir, wrap=Spy)
    initial = SimpleNamespace(**{name: p.clone() for name, p in task.model.state_dict().items()})
    for step, theirs in enumerate(maskgit_calls(tiny(), tokens_dir, range(4))):
        task.model.load_state_dict(vars(initial))
        loss = task.step(step)["loss"].item()
        tokens, labels = task.parallel.calls[-1]
        assert torch.equal(tokens, theirs.tokens) and torch.equal(labels, theirs.labels)
        task.model.load_state_dict(vars(initial))
        log_prob = task.model(tokens, labels).log_softmax(dim=-1)
        wanted = 0.7 * log_prob.gather(2, tokens[..., None])[..., 0] + 0.3 * log_prob.mean(dim=-1)
        assert loss == pytest.approx(-wanted.mean().item(), rel=1e-5)


def test_validation_is_the_likelihood_of_the_averaged_model(tiny, tmp_path):
    tokens_dir = random_tokens(tmp_path / "tokens")
    task = autoregressive_task(tiny(lr=1e-2, ema_decay=0.9), tokens_dir)
    for step in range(3):
        task.step(step)
    val = np.load(tokens_dir / "val-00000.npy")[:, 0].astype(np.int64)
    labels = np.load(tokens_dir / "val-labels.npy").astype(np.int64)
    tokens, labels = torch.from_numpy(val), torch.from_numpy(labels)
    wanted = token_nll(task.average.module, tokens, labels, batch_size=100)
    assert task.evaluate(3)["val_nll"] == pytest.approx(wanted)
    assert token_nll(task.model.eval(), tokens, labels, batch_size=100) != pytest.approx(wanted)
