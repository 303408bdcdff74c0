"""Training the autoregressive baseline."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.autoregressive import generate_autoregressive
from pipeline.training.autoregressive import AutoregressiveTask
from tests.images import write_token_cache
from tests.transformer_task import CLASSES, calls, random_tokens, spied, transformer_task


def test_baseline_learns_to_count_from_its_class_on(tiny, tmp_path):
    """Token n is class + n, of 16: no more to learn than the token before, or the class."""
    labels = np.arange(18) % CLASSES
    grids = (labels[:, None, None] + np.arange(49)) % 16
    splits = ("train", "val")
    tokens_dir = write_token_cache(
        tmp_path / "tokens", {s: [grids] for s in splits}, dict.fromkeys(splits, labels), 16
    )
    exact = {"label_smoothing": 0.0, "other_label_smoothings": []}
    task = transformer_task(tiny(lr=1e-2, ema_decay=0.5, **exact), tokens_dir, AutoregressiveTask)
    before = task.evaluate(0)["val_nll"]
    for step in range(50):
        task.step(step)
    assert before == pytest.approx(math.log(16), abs=0.2)
    assert task.evaluate(50)["val_nll"] < 0.1
    drawn = generate_autoregressive(task.average.module, torch.from_numpy(labels), seed=0)
    assert drawn[:, 0].tolist() == labels.tolist()
    assert (drawn.diff(dim=1) % 16 == 1).float().mean() > 0.95


def test_batches_are_maskgits_and_the_loss_is_of_every_token(tiny, tmp_path):
    """Label smoothing is over the whole vocabulary; labels are never dropped."""
    tokens_dir = random_tokens(tmp_path / "tokens")
    params = tiny(label_smoothing=0.3, label_drop=0.9)
    task = spied(transformer_task(params, tokens_dir, AutoregressiveTask))
    initial = SimpleNamespace(**{name: p.clone() for name, p in task.model.state_dict().items()})
    for step, theirs in enumerate(calls(tiny(), tokens_dir, range(4))):
        task.model.load_state_dict(vars(initial))
        loss = task.step(step)["loss"].item()
        tokens, labels = task.parallel.calls[-1]
        assert torch.equal(tokens, theirs.tokens) and torch.equal(labels, theirs.labels)
        task.model.load_state_dict(vars(initial))
        log_prob = task.model(tokens, labels).log_softmax(dim=-1)
        wanted = 0.7 * log_prob.gather(2, tokens[..., None])[..., 0] + 0.3 * log_prob.mean(dim=-1)
        assert loss == pytest.approx(-wanted.mean().item(), rel=1e-5)
