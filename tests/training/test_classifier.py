"""The classifier's training task and its accuracy."""

import copy

import pytest
import torch

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data.ranks import ALONE
from pipeline.runtime.errors import UserError
from pipeline.training.classifier import ClassifierTask, accuracy
from pipeline.training.loop.checkpoints import RunDirCheckpoints
from tests.images import banded_batches, image_batches
from tests.interruption import fit, weight_bytes

CPU = torch.device("cpu")
CONFIG = ClassifierConfig("small", channels=1, num_classes=3, width=4)


def classifier_task(
    make_params, batches=image_batches, device=CPU, ranks=ALONE, **changes
) -> ClassifierTask:
    params = make_params(classifier={"steps": 6, "batch_size": 6} | changes).classifier
    return ClassifierTask(CONFIG, params, batches, batches(10_000), 0, device, ranks)


def test_weights_that_the_last_update_broke_are_no_classifier(make_params, tmp_path):
    """A diverged classifier is an error, even if it still recognises some images."""
    task = classifier_task(make_params, lr=1e8, bf16=False)
    with pytest.raises(UserError, match=r"weights of model are not finite"):
        fit(task, RunDirCheckpoints(tmp_path), steps=6, every=1)


def test_classifier_learns(make_params):
    task = classifier_task(make_params, banded_batches, steps=30, lr=1e-2)
    losses = [task.step(step)["loss"].item() for step in range(30)]
    assert sum(losses[:3]) / 3 > 0.9 and sum(losses[-3:]) / 3 < 0.6
    assert task.evaluate(30)["val_accuracy"] == 1


def test_loss_is_smoothed_cross_entropy_and_falls_along_its_gradient(make_params):
    smoothing = 0.1
    task = classifier_task(make_params, bf16=False)
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
    """Batch norm in training mode would break both."""
    task = classifier_task(make_params, banded_batches)
    for step in range(3):
        task.step(step)
    model, before = task.model.train(), weight_bytes(task.model)
    images, _ = banded_batches(7)
    answers = copy.deepcopy(model).eval()(images.float() / 255).argmax(dim=1)
    assert accuracy(model, images.split(1), answers, CPU)[0] == 1
    assert weight_bytes(model) == before
