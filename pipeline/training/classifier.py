"""Training a classifier: on real images for reference, on samples for CAS."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.params import Params
from pipeline.config.paths import IMAGES
from pipeline.config.schema import Classifier as ClassifierParams
from pipeline.data.images.batches import Batch, ImageBatches, prepared
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.data.microbatches import in_parts
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.runtime.batches import Alone, Maker, tensors_of
from pipeline.runtime.device import autocast, to_device
from pipeline.training.loop.spikes import left_out, put_back, shared, spike_guard, total_norm
from pipeline.weights.configs import classifier_config
from pipeline.weights.published import WEIGHTS, load_model

BATCH = 500  # validation images seen at once
LOGGED = 5000  # validation images behind each point of the curves, at most


@dataclass(frozen=True)
class ClassifierRecipe:
    """Builds a worker's task of training the reference classifier. Paths are absolute."""

    params: dict[str, Any]  # `Params.model_dump()`
    images_dir: str

    def __call__(self, ranks: Ranks, device: torch.device) -> "ClassifierTask":
        params = Params.model_validate(self.params)
        images, held_out = (ImageShards(self.images_dir, split) for split in ("train", "val"))
        p, looked_at = params.classifier, ranks.rows(range(min(LOGGED, len(held_out))))
        batches = ImageBatches(images, params.classifier_images, p.batch_size, params.seed, ranks)
        return ClassifierTask(
            classifier_config(params, len(images.class_names)),
            p,
            prepared(batches, params.ray.loaders_per_worker, device),
            View(held_out, params.data, params.seed).chosen(looked_at),
            params.seed,
            device,
            ranks,
        )


def new_classifier(config: ClassifierConfig, device: torch.device) -> Classifier:
    """With fresh weights, its channels last: what convolutions in bfloat16 are fastest with, on
    CPUs and GPUs. A network of fewer than 8 channels keeps them first: with them last, its 1×1
    convolutions of stride 2 write past their memory on CPUs without AVX-512 (oneDNN's issue 6035).
    """
    classifier = Classifier(config).to(device)
    if config.architecture == "small" and config.width < 8:
        return classifier
    return classifier.to(  # type: ignore[call-overload]
        memory_format=torch.channels_last,  # which torch documents, but does not declare
    )


class ClassifierTask:
    """A worker's share of a training: AdamW under a one-cycle schedule, with label smoothing.

    Args:
        batches: step → uint8 images (b, C, H, W) and labels (b,), its rows of the batch.
        validation: uint8 images and labels for the logged accuracy, its rows of them.
        ranks: the workers, who normalise a batch together, by the statistics of all of it.
    """

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
        normalize_together(self.model, ranks, device)
        self.params, self.batches, self.validation = params, batches, validation
        self.device, self.ranks = device, ranks
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=params.lr, weight_decay=params.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, params.lr, total_steps=params.steps
        )
        self.guard = spike_guard(params.spike_factor, "classifier")

    def step(self, step: int) -> dict[str, Tensor]:
        images, labels = self.batches(step)
        self.model.train()
        before = [buffer.clone() for buffer in self.model.buffers()] if self.guard else []
        with autocast(self.device, self.params.bf16):
            logits = self.model(as_float(to_device(images, self.device)))
        loss = F.cross_entropy(
            logits.float(),
            to_device(labels, self.device),
            label_smoothing=self.params.label_smoothing,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.ranks.average_gradients(self.model)
        losses = {"loss": loss}
        if self.guard:
            losses["gradient_norm"] = total_norm(self.model)
        if self.guard and self.guard.skips(step, shared(losses, self.ranks)):
            losses = left_out(losses, self.ranks)
            put_back(self.model.buffers(), before)  # statistics of a batch norm
        else:
            self.optimizer.step()
        self.schedule.step()
        return losses

    def evaluate(self, step: int) -> dict[str, float]:
        images, labels = self.validation
        top1, _ = accuracy(self.model, images.split(BATCH), labels, self.device, self.ranks)
        skipped = {"skipped_steps": self.guard.skipped} if self.guard else {}
        return {"val_accuracy": top1} | skipped

    def _kept(self) -> tuple[str, ...]:
        """What a checkpoint holds, by attribute."""
        return ("model", "optimizer", "schedule", *(["guard"] if self.guard else []))

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self._kept()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._kept():
            getattr(self, name).load_state_dict(state[name])


class _BatchNormTogether(nn.BatchNorm2d):
    """A batch norm over the rows of all workers, for CPUs: `SyncBatchNorm` runs on GPUs only.

    Args:
        layer: the batch norm that it replaces; names and values in the state dict stay the same.
    """

    def __init__(self, layer: nn.BatchNorm2d, ranks: Ranks):
        super().__init__(layer.num_features, layer.eps, layer.momentum)
        self.load_state_dict(layer.state_dict())
        self.ranks = ranks

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        # In float64, where the difference of squares keeps the digits of a small variance.
        variance, mean = variance.double(), mean.double()
        mean, square = self.ranks.mean(torch.stack([mean, variance + mean**2])).unbind()
        variance = square - mean**2
        self._track(mean, variance, rows=x.numel() // len(mean) * self.ranks.workers)
        scale = self.weight * (variance + self.eps).rsqrt().float()
        centred = x.float() - mean.float()[:, None, None]
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, rows: int) -> None:
        """Update the running statistics as torch does, with the unbiased variance."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.float(), self.momentum)
        self.running_var.lerp_((variance * rows / (rows - 1)).float(), self.momentum)


def normalize_together(network: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """The network, whose batch norms use the statistics of all workers' rows."""
    if ranks.workers == 1:
        return network
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            network.set_submodule(name, _BatchNormTogether(layer, ranks))
    return network


@torch.no_grad()
def accuracy(
    model: Classifier,
    batches: Iterable[Tensor],
    labels: Tensor,
    device: torch.device,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on batches (B, C, H, W) uint8 of images with labels (M,).

    Args:
        ranks: the workers, each of which has other images.
    """
    model.eval()
    best = torch.cat([best_classes(model, batch, device) for batch in batches])
    return _right(best, labels, ranks)


@torch.no_grad()
def best_classes(model: Classifier, batch: Tensor, device: torch.device) -> Tensor:
    """The classes (B, k) that a model in eval mode finds likeliest of images (B, C, H, W) uint8, in
    order: five, or all if there are fewer."""
    k = min(5, model.config.num_classes)

    def classes(part: Tensor) -> Tensor:
        return model(as_float(part)).topk(k, dim=1).indices

    return in_parts(classes, model.image_bytes(batch.shape[-1]), batch.to(device)).cpu()


def _right(best: Tensor, labels: Tensor, ranks: Ranks = ALONE) -> tuple[float, float]:
    hit_Mk = best == labels[:, None]
    hits = [hit_Mk[:, 0].sum(), hit_Mk.any(dim=1).sum(), torch.tensor(len(labels))]
    top1, top5, images = ranks.total(torch.stack(hits).double()).tolist()
    return top1 / images, top5 / images


class Judge:
    """A classifier, and the validation images that it judges."""

    def __init__(self, model: Classifier, params: Params, device: torch.device):
        self.model, self.device = model.to(device), device
        self.view = View(ImageShards(IMAGES, "val"), params.data, params.seed)

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        """`best_classes` of the images from `start` to before `stop`."""
        images = self.view.centers(range(start, stop))
        return {"best": best_classes(self.model, images, self.device)}


def held_out_accuracy(
    folder: Path, params: Params, parts: Path, workers: Alone
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy of a published classifier on all validation images.

    Args:
        parts: a folder for what a killed run goes on with.
    """
    labels = torch.from_numpy(ImageShards(IMAGES, "val").labels)
    starts, count = range(0, len(labels), BATCH), len(labels)
    batches = [(start, min(start + BATCH, count)) for start in starts]
    # The model itself: workers on other nodes do not see what this stage has made.
    maker = Maker(Judge, load_model(folder, "classifier"), params)
    name = "classifier: validation"
    best = tensors_of(folder / WEIGHTS, parts, workers, maker, batches, name)["best"]
    return _right(best, labels)
