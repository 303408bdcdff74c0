"""Training a classifier: on real images for reference, on samples for CAS."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.data.shards import as_float
from pipeline.params import Classifier as ClassifierParams
from pipeline.seeds import mix

Batches = Callable[[int], tuple[Tensor, Tensor]]


class ClassifierTask:
    """AdamW under a one-cycle schedule, with label smoothing.

    Args:
        batches: step → uint8 images (B, C, H, W) and labels (B,).
        validation: uint8 images and labels on which accuracy is measured.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        params: ClassifierParams,
        batches: Batches,
        validation: tuple[Tensor, Tensor],
        seed: int,
        device: torch.device,
    ):
        torch.manual_seed(mix(seed, "init"))
        self.model = Classifier(config).to(device)
        self.params, self.batches, self.validation = params, batches, validation
        self.device = device
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=params.lr, weight_decay=params.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, params.lr, total_steps=params.steps
        )

    def step(self, step: int) -> dict[str, Tensor]:
        images, labels = self.batches(step)
        self.model.train()
        logits = self.model(as_float(images.to(self.device)))
        loss = F.cross_entropy(
            logits, labels.to(self.device), label_smoothing=self.params.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss}

    def evaluate(self, step: int) -> dict[str, float]:
        top1, _ = accuracy(self.model, *self.validation, self.device)
        return {"val_accuracy": top1}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


@torch.no_grad()
def accuracy(
    model: Classifier, images: Tensor, labels: Tensor, device: torch.device, batch_size: int = 500
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on uint8 images (M, C, H, W)."""
    model.eval()
    k = min(5, model.config.num_classes)
    top1 = top5 = 0
    for chunk, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        best = model(as_float(chunk.to(device))).topk(k, dim=1).indices.cpu()
        hit = best == truth[:, None]
        top1 += hit[:, 0].sum().item()
        top5 += hit.any(dim=1).sum().item()
    return top1 / len(images), top5 / len(images)
