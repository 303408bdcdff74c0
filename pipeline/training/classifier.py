"""Trains the reference classifier, and the classifiers for the Classification Accuracy Score."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.config.schema import Classifier as ClassifierParams
from pipeline.data.images.batches import Batch, Batches, ImageBatches, prepared
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.microbatches import PIXELS, in_parts
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.runtime.batches import BatchWorkers, Maker, tensors_of
from pipeline.runtime.device import to_device
from pipeline.runtime.precision import autocast
from pipeline.training.loop.training import Task, Training
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import WEIGHTS, load_model

# The usual values for ImageNet classifiers trained with AdamW (DeiT, ConvNeXt).
WEIGHT_DECAY, LABEL_SMOOTHING = 0.05, 0.1
BATCH = 500  # validation images per batch
LOGGED = 5000  # maximum validation images on which the logged accuracy is measured


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining(Training):
    """Settings of a training run of the reference classifier."""

    section = "classifier"

    def batches(self, ranks: Ranks) -> Batches:
        size, images = self.params.classifier.batch_size, ImageShards(IMAGES, "train")
        return ImageBatches(images, self.params.classifier_images, size, self.seed, ranks)

    def task(self, ranks: Ranks, device: torch.device) -> "ClassifierTask":
        params, held_out = self.params, ImageShards(IMAGES, "val")
        view, shown = View(held_out, params.data), ranks.rows(range(min(LOGGED, len(held_out))))
        return ClassifierTask(
            classifier_config(params, len(held_out.class_names)),
            params.classifier,
            prepared(self.batches(ranks), params.ray.loaders_per_worker, device),
            (view.centers(shown), view.labels[list(shown)]),
            self.seed,
            device,
            ranks,
        )


def new_classifier(config: ClassifierConfig, device: torch.device) -> Classifier:
    """Create a classifier with random weights in the channels-last format, in which bfloat16
    convolutions are fastest. A "small" classifier with `width` below 8 stays channels-first: on
    CPUs without AVX-512, oneDNN's channels-last 1×1 convolutions of stride 2 would write out of
    bounds (oneDNN issue 6035)."""
    classifier = Classifier(config).to(device)
    if config.architecture == "small" and config.width < 8:
        return classifier
    return classifier.to(  # type: ignore[call-overload]
        memory_format=torch.channels_last,  # documented by torch, but missing in its type hints
    )


class ClassifierTask(Task):
    """One worker's share of training a classifier with AdamW, a one-cycle learning rate and label
    smoothing. On GPUs, batch norm uses the statistics of all workers' images.

    Args:
        batches: maps a step to this worker's images (b, C, H, W) uint8 and labels (b,).
        validation: this worker's uint8 images and labels for the logged accuracy.
    """

    saved = ("model", "optimizer", "schedule")
    model: Classifier

    def __init__(
        self,
        config: ClassifierConfig,
        params: ClassifierParams,
        batches: Callable[[int], Batch],
        validation: tuple[Tensor, Tensor],
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
    ):
        torch.manual_seed(mix(seed, "init"))
        self.model = new_classifier(config, device)
        if ranks.workers > 1 and device.type == "cuda":  # SyncBatchNorm needs GPUs
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        self.params, self.batches, self.validation = params, batches, validation
        self.device, self.ranks = device, ranks
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=params.lr, weight_decay=WEIGHT_DECAY
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, params.lr, total_steps=params.steps
        )

    def step(self, step: int) -> dict[str, Tensor]:
        images, labels = self.batches(step)
        self.model.train()
        with autocast(self.device, self.params.bf16, "convolutions"):
            logits = self.model(as_float(to_device(images, self.device))).float()
        target = to_device(labels, self.device)
        loss = F.cross_entropy(logits, target, label_smoothing=LABEL_SMOOTHING)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average_gradients(self.model)
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss}

    def evaluate(self, step: int) -> dict[str, float]:
        images, labels = self.validation
        top1, _ = accuracy(self.model, images.split(BATCH), labels, self.device, self.ranks)
        return {"val_accuracy": top1}


@torch.no_grad()
def accuracy(
    model: Classifier,
    batches: Iterable[Tensor],
    labels: Tensor,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on batches of images (B, C, H, W) uint8. `labels` (M,) has the
    labels of all M images in the batches. If each worker passes its own images, the accuracy covers
    the images of all workers."""
    model.eval()
    best = torch.cat([best_classes(model, batch, device) for batch in batches])
    return _right(best, labels, ranks)


@torch.no_grad()
def best_classes(model: Classifier, batch: Tensor, device: torch.device) -> Tensor:
    """The k most likely classes (B, k) of images (B, C, H, W) uint8, most likely first; k is 5, or
    the number of classes if that is smaller. The model must be in eval mode."""
    k = min(5, model.config.num_classes)

    def classes(part: Tensor) -> Tensor:
        return model(as_float(part)).topk(k, dim=1).indices

    return in_parts(classes, PIXELS // batch.shape[-2:].numel(), batch.to(device)).cpu()


def _right(best: Tensor, labels: Tensor, ranks: Ranks = ALONE) -> tuple[float, float]:
    hit_Mk = best == labels[:, None]
    hits = [hit_Mk[:, 0].sum(), hit_Mk.any(dim=1).sum(), torch.tensor(len(labels))]
    top1, top5, images = ranks.total(torch.stack(hits).double()).tolist()
    return top1 / images, top5 / images


def held_out_accuracy(
    folder: Path, params: Params, parts: Path, workers: BatchWorkers
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of the saved classifier in `folder` on all validation images.
    Results of finished batches are saved in the folder `parts`, so that a killed run can resume."""
    labels = torch.from_numpy(ImageShards(IMAGES, "val").labels)
    starts, count = range(0, len(labels), BATCH), len(labels)
    batches = [(start, min(start + BATCH, count)) for start in starts]
    # Send the model itself: workers on other nodes cannot read this stage's outputs.
    maker, name = Maker(_judge, load_model(folder, "classifier"), params), "classifier: validation"
    best = tensors_of(folder / WEIGHTS, parts, workers, maker, batches, name)["best"]
    return _right(best, labels)


def _judge(
    model: Classifier, params: Params, device: torch.device
) -> Callable[[int, int], dict[str, Tensor]]:
    view, model = View(ImageShards(IMAGES, "val"), params.data), model.to(device)
    # (start, stop) -> classes of the images in range(start, stop)
    return lambda *part: {"best": best_classes(model, view.centers(range(*part)), device)}
