"""Training a classifier: on real images for reference, on samples for CAS."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.config.schema import Classifier as ClassifierParams
from pipeline.data.images.pixels import as_float
from pipeline.runtime.seeds import mix

Batches = Callable[[int], tuple[Tensor, Tensor]]
BATCH = 500  # validation images seen at once
LOGGED = 5000  # validation images behind each point of the curves, at most


class ClassifierTask:
    """AdamW under a one-cycle schedule, with label smoothing.

    Args:
        batches: step → uint8 images (B, C, H, W) and labels (B,).
        validation: uint8 images and labels for the logged accuracy.
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
        # Channels last: what convolutions in bfloat16 are fastest with, on CPUs and GPUs.
        self.model: Classifier = Classifier(config).to(  # type: ignore[call-overload]
            device,
            memory_format=torch.channels_last,  # which torch documents, but does not declare
        )
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
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.params.bf16):
            logits = self.model(as_float(images.to(self.device)))
        loss = F.cross_entropy(
            logits.float(), labels.to(self.device), label_smoothing=self.params.label_smoothing
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return {"loss": loss}

    def evaluate(self, step: int) -> dict[str, float]:
        images, labels = self.validation
        top1, _ = accuracy(self.model, images.split(BATCH), labels, self.device)
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
    model: Classifier, batches: Iterable[Tensor], labels: Tensor, device: torch.device
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy on batches (B, C, H, W) uint8 of images with labels (M,)."""
    model.eval()
    k = min(5, model.config.num_classes)
    best = [model(as_float(batch.to(device))).topk(k, dim=1).indices.cpu() for batch in batches]
    hit_Mk = torch.cat(best) == labels[:, None]
    return hit_Mk[:, 0].double().mean().item(), hit_Mk.any(dim=1).double().mean().item()
