"""What the transformer's training keeps between its steps, resumes from and evaluates."""

import copy
import gc
import time
import weakref

import pytest
import torch

from pipeline.data.prefetch import Prefetch
from pipeline.data.ranks import Ranks
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll
from tests.interruption import straight_and_resumed, weight_bytes
from tests.transformer_task import transformer_task


def test_interrupted_transformer_ends_with_the_same_bytes(tiny, tokens_dir, tmp_path):
    """In the middle of the warm-up, and with dropout on, which is drawn anew in every step."""

    def task():
        return transformer_task(tiny(dropout=0.1, warmup_steps=3), tokens_dir)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=4, every=2)
    assert again == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert weight_bytes(resumed.average.module) == weight_bytes(straight.average.module)
    without = transformer_task(tiny(dropout=0.0, warmup_steps=3), tokens_dir)
    for step in range(4):
        without.step(step)
    assert weight_bytes(without.model) != weight_bytes(straight.model)


@pytest.mark.parametrize("ahead", [False, True])
def test_a_task_ends_with_its_training(tiny, tokens_dir, ahead):
    """In a process that goes on to the next one: a GPU would hold both."""
    task = transformer_task(tiny(), tokens_dir)
    if ahead:  # as on a GPU
        task._inputs = Prefetch(task._inputs)
    task.step(0)
    model = weakref.ref(task.model)
    gc.disable()
    try:
        del task
        deadline = time.monotonic() + 10
        while model() is not None and time.monotonic() < deadline:
            time.sleep(0.01)  # the thread draws the inputs of the step that is next
        assert model() is None
    finally:
        gc.enable()


def test_averaged_weights_are_those_of_all_steps(tiny, tokens_dir):
    task = transformer_task(tiny(ema_decay=0.2), tokens_dir)
    wanted = task.model.vocabulary_bias.detach().clone()
    for step in range(4):
        task.step(step)
        decay = min(0.2, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * task.model.vocabulary_bias.detach()
    torch.testing.assert_close(task.average.module.vocabulary_bias.detach(), wanted)


def test_evaluation_is_of_the_averaged_weights_and_shows_them(tiny, tokens_dir):
    shown = []
    params = tiny(lr=1e-2, ema_decay=0.9)
    task = transformer_task(params, tokens_dir, on_evaluate=lambda *args: shown.append(args))
    for step in range(3):
        task.step(step)
    row = task.evaluate(3)
    ((model, at),) = shown
    assert at == 3 and not model.training
    assert weight_bytes(model) == weight_bytes(task.average.module) != weight_bytes(task.model)
    val = TokenCache(tokens_dir, "val").everything()
    options = {"schedule": "cosine", "seed": 3, "batch_size": 500}
    assert row == {"val_nll": masked_nll(model, *val, **options), "lr": pytest.approx(1e-2)}
    assert row["val_nll"] != masked_nll(copy.deepcopy(task.model).eval(), *val, **options)


def test_only_the_first_worker_shows_what_all_measured(tiny, tokens_dir, monkeypatch):
    shown = []
    tasks = [
        transformer_task(
            tiny(), tokens_dir, ranks=Ranks(rank, 2), on_evaluate=lambda *_: shown.append(1)
        )
        for rank in range(2)
    ]
    monkeypatch.setattr(Ranks, "total", lambda ranks, values: values)
    first, second = (task.evaluate(0) for task in tasks)
    assert first["val_nll"] > 0 and second["val_nll"] == 0  # of the one batch there is
    assert first["lr"] == second["lr"] and shown == [1]
