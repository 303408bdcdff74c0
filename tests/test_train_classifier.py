"""The classifier's task, and accuracy."""

import copy
import math
import os
import subprocess
import sys

import pytest
import torch

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.runtime.errors import UserError
from pipeline.training.classifier import ClassifierTask, accuracy
from pipeline.training.loop import RunDirSession
from tests.images import banded_batches, image_batches
from tests.interruption import fit, straight_and_resumed, weight_bytes

CPU = torch.device("cpu")
CONFIG = ClassifierConfig("small", channels=1, num_classes=3, width=4)


def classifier_task(make_params, batches=image_batches, seed=0, **changes) -> ClassifierTask:
    params = make_params(classifier={"steps": 6, "batch_size": 6} | changes).classifier
    return ClassifierTask(CONFIG, params, batches, batches(10_000), seed=seed, device=CPU)


def test_interrupted_classifier_ends_with_the_same_bytes(make_params, tmp_path):
    def task():
        return classifier_task(make_params)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=6, every=3)
    assert again == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)


NARROW = """
import torch
from pipeline.classifier import ClassifierConfig
from pipeline.training.classifier import new_classifier

for _ in range(30):
    classifier = new_classifier(ClassifierConfig("small", 1, 3, width=4), torch.device("cpu"))
    classifier(torch.rand(6, 1, 8, 8)).square().sum().backward()
"""


def test_a_narrow_one_trains_on_a_processor_without_avx512():
    """There its gradients were written past their memory, which ends a process sooner or later."""
    isa = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", NARROW], env=isa, capture_output=True)
    assert ended.returncode == 0, ended.stderr


def test_weights_that_the_last_update_broke_are_no_classifier(make_params, tmp_path):
    """It would recognise a share of the images all the same."""
    task = classifier_task(make_params, lr=1e8, bf16=False)
    with pytest.raises(UserError, match=r"weights of model are not finite after step \d"):
        fit(task, RunDirSession(tmp_path), steps=6, every=1)


@pytest.mark.parametrize("bf16", [False, True])
def test_classifier_learns(make_params, bf16):
    task = classifier_task(make_params, banded_batches, steps=30, lr=1e-2, bf16=bf16)
    losses = [task.step(step)["loss"].item() for step in range(30)]
    assert sum(losses[:3]) / 3 > 0.9 and sum(losses[-3:]) / 3 < 0.6
    assert task.evaluate(30)["val_accuracy"] == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_is_smoothed_cross_entropy_and_falls_along_its_gradient(make_params, smoothing):
    task = classifier_task(make_params, label_smoothing=smoothing, bf16=False)
    model = copy.deepcopy(task.model).train()
    images, labels = image_batches(5)
    log_prob = model(images.float() / 255).log_softmax(dim=1)
    wanted = torch.full((6, 3), smoothing / 3)
    wanted[range(6), labels] += 1 - smoothing
    loss = -(wanted * log_prob).sum(dim=1).mean()
    loss.backward()
    assert task.step(5)["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, other in zip(task.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_bfloat16_is_the_same_loss_to_its_precision(in_bfloat16, make_params):
    exact, rounded = (
        classifier_task(make_params, bf16=bf16).step(0)["loss"].item() for bf16 in (False, True)
    )
    assert rounded != exact and rounded == pytest.approx(exact, rel=1e-2)


def test_learning_rate_is_one_cycle_up_to_the_params_and_down(make_params):
    """A cosine from lr / 25 up over 30% of the steps, then one down to lr / 250,000."""
    steps, peak = 21, 3e-3
    task = classifier_task(make_params, steps=steps, lr=peak, weight_decay=0.2)
    (group,) = task.optimizer.param_groups
    assert group["weight_decay"] == 0.2
    rates = []
    for step in range(steps):
        rates.append(group["lr"])
        task.step(step)
    top = 0.3 * steps - 1

    def cosine(start: float, end: float, progress: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2

    wanted = [
        cosine(peak / 25, peak, step / top)
        if step <= top
        else cosine(peak, peak / 250_000, (step - top) / (steps - 1 - top))
        for step in range(steps)
    ]
    assert rates == pytest.approx(wanted)


def test_initial_weights_are_the_seeds(make_params):
    one, same, other = (classifier_task(make_params, seed=seed).model for seed in (0, 0, 1))
    assert weight_bytes(one) == weight_bytes(same) != weight_bytes(other)


def test_accuracy_counts():
    class Fixed(Classifier):
        def forward(self, images):
            return images.flatten(1)[:, :6]

    model = Fixed(ClassifierConfig("small", 1, 6, 4))
    rows = torch.tensor([[9, 1, 2, 3, 4, 5], [9, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
    images = rows.to(torch.uint8).view(3, 1, 1, 6)
    top1, top5 = accuracy(model, images.split(2), torch.tensor([0, 5, 0]), CPU)
    assert (top1, top5) == (1 / 3, 2 / 3)


def test_accuracy_judges_each_image_alone_and_leaves_the_model_as_it_is(make_params):
    """Batch norm in training mode would do neither."""
    task = classifier_task(make_params, banded_batches)
    for step in range(3):
        task.step(step)
    model, before = task.model.train(), weight_bytes(task.model)
    images, _ = banded_batches(7)
    frozen = copy.deepcopy(model).eval()
    with torch.no_grad():
        answers = frozen(images.float() / 255).argmax(dim=1)
    for batch_size in (1, 500):
        assert accuracy(model.train(), images.split(batch_size), answers, CPU)[0] == 1
    assert weight_bytes(model) == before
