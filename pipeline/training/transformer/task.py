"""Masked Visual Token Modeling (paper, section 3.1): one worker's share of a training step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll, sample_training_mask
from pipeline.runtime.order import BatchOrder
from pipeline.runtime.seeds import generator, mix
from pipeline.training.loop import averaged
from pipeline.transformer import (
    MaskGitTransformer,
    TokenTransformer,
    masked_token_loss,
)
from pipeline.weights.configs import transformer_config

# The number of masked tokens differs from step to step. The head always gets a multiple of this
# many rows, since libraries build, and keep, a kernel for every shape that they meet.
ROWS = 512


class TransformerTask:
    """One worker's share of MaskGIT's training.

    Batch, views and masks are drawn from (seed, step) for all workers together, and each worker
    takes its rows. Results therefore depend on the number of workers only by dropout and by the
    order of sums.

    Args:
        tokens_dir: the token cache.
        num_classes: classes of the data set.
        wrap: makes the module data-parallel (Ray Train's `prepare_model`), or leaves it as it is.
        on_evaluate: called with the averaged model at each checkpoint, on the first worker.
    """

    network: type[TokenTransformer] = MaskGitTransformer

    def __init__(
        self,
        params: Params,
        tokens_dir: Path | str,
        num_classes: int,
        *,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        on_evaluate: Callable[[TokenTransformer, int], None] = lambda model, step: None,
    ):
        self.training, self.seed = params.training, seed
        self.device, self.rank, self.world_size = device, rank, world_size
        self.on_evaluate = on_evaluate
        self.train_tokens = TokenCache(tokens_dir, "train")
        self.order = BatchOrder(len(self.train_tokens), self.training.batch_size, seed)
        torch.manual_seed(mix(seed, "init"))
        self.model = self.network(transformer_config(params, num_classes)).to(device)
        self.average = averaged(self.model, self.training.ema_decay)
        self.parallel: Callable[..., Tensor] = wrap(self.model)
        if self.training.compile:
            self.parallel = torch.compile(self.parallel)
        self.optimizer = _adamw(self.model, params)
        warmup = max(self.training.warmup_steps, 1)
        self.warmup = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        if rank == 0:
            self.validation = TokenCache(tokens_dir, "val").everything()

    def step(self, step: int) -> dict[str, Tensor]:
        self.model.train()
        loss = self._loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.training.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.grad_clip)
        self.optimizer.step()
        self.warmup.step()
        self.average.update_parameters(self.model)
        return {"loss": loss}

    def _loss(self, step: int) -> Tensor:
        """Cross-entropy of the masked tokens (or of all) in this worker's share of the batch."""
        noise = generator(self.seed, "batch", step)
        tokens, labels = self._batch(step, noise)
        mask = self._share(
            sample_training_mask(
                self.training.batch_size,
                tokens.shape[1],
                self.training.mask_schedule,
                noise,
                self.training.min_masking_rate,
            )
        )
        dropped = torch.rand(self.training.batch_size, generator=noise) < self.training.label_drop
        labels = labels.masked_fill(self._share(dropped), self.model.config.num_classes)
        loss_at = mask if self.training.loss_on == "masked" else torch.ones_like(mask)
        where = loss_at.flatten().nonzero()[:, 0]  # still on the CPU: no device sync
        padded = nn.functional.pad(where, (0, -len(where) % ROWS))
        with self._autocast():
            logits = self.parallel(*self._move(tokens, mask, labels, padded))[: len(where)]
        target, sample = self._move(tokens.flatten()[where], where // tokens.shape[1])
        return masked_token_loss(
            logits.float(), target, sample, len(tokens), self.training.label_smoothing
        )

    def _batch(self, step: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """This worker's tokens (b, N) and labels (b,) of the global batch."""
        indices = self.order(step)
        views = torch.randint(self.train_tokens.views, (len(indices),), generator=noise)
        return self.train_tokens.batch(self._share(indices), self._share(views).numpy())

    def _share(self, batch):
        """This worker's rows of the global batch."""
        size = len(batch) // self.world_size
        return batch[self.rank * size : (self.rank + 1) * size]

    def _move(self, *tensors: Tensor) -> list[Tensor]:
        return [x.to(self.device, non_blocking=True) for x in tensors]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.bf16)

    def evaluate(self, step: int) -> dict[str, float]:
        if self.rank != 0:
            return {}
        nll = self._nll()
        self.on_evaluate(self.average.module, step)
        return {"val_nll": nll, "lr": float(self.warmup.get_last_lr()[0])}

    def _nll(self) -> float:
        """NLL of the validation tokens under the averaged model, in nats a token."""
        model = self.average.module
        assert isinstance(model, MaskGitTransformer)  # `network`, or a subclass of it
        return masked_nll(
            model,
            *self.validation,
            schedule=self.training.mask_schedule,
            min_masking_rate=self.training.min_masking_rate,
            seed=self.seed,
            device=self.device,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "warmup": self.warmup.state_dict(),
            "average": self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("model", "optimizer", "warmup", "average"):
            getattr(self, name).load_state_dict(state[name])


def _adamw(model: nn.Module, params: Params) -> torch.optim.Optimizer:
    """Decoupled weight decay on matrices only; biases, norms and the like are left alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": params.training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    training = params.training
    beta1, beta2 = training.betas
    return torch.optim.AdamW(groups, lr=training.lr, betas=(beta1, beta2), fused=True)
