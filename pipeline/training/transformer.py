"""Masked Visual Token Modeling (paper, section 3.1): one worker's share of a training step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.data.order import BatchOrder
from pipeline.masking import sample_training_mask
from pipeline.params import Params
from pipeline.sampling import masked_nll
from pipeline.seeds import generator, mix
from pipeline.tokens import TokenCache
from pipeline.training.loop import Ema
from pipeline.transformer import MaskGitTransformer, TransformerConfig, masked_token_loss

# The number of masked tokens differs from step to step. The head gets a multiple of this many rows,
# since kernels are built, and kept, for every shape that they meet.
ROWS = 512


def transformer_config(params: Params, num_classes: int) -> TransformerConfig:
    return TransformerConfig(
        num_tokens=params.num_tokens,
        codebook_size=params.tokenizer.codebook_size,
        num_classes=num_classes,
        **params.transformer.model_dump(),
    )


class TransformerTask:
    """
    The batch, its views and its masks are drawn for all workers together from (seed, step), and
    each worker takes its rows: results do not depend on how many workers there are, but for
    dropout and the order of sums.

    Args:
        tokens_dir: the token cache.
        num_classes: of the data set.
        schedule: γ that the masks are drawn with.
        wrap: makes the module data-parallel (Ray Train's `prepare_model`), or leaves it.
        on_evaluate: called with the averaged model at each checkpoint, on the first worker.
    """

    def __init__(
        self,
        params: Params,
        tokens_dir: Path | str,
        num_classes: int,
        *,
        schedule: str,
        seed: int,
        device: torch.device,
        rank: int = 0,
        world_size: int = 1,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        on_evaluate: Callable[[MaskGitTransformer, int], None] = lambda model, step: None,
    ):
        self.training, self.schedule, self.seed = params.training, schedule, seed
        self.device, self.rank, self.world_size = device, rank, world_size
        self.on_evaluate = on_evaluate
        self.train_tokens = TokenCache(tokens_dir, "train")
        self.order = BatchOrder(len(self.train_tokens), self.training.batch_size, seed)
        torch.manual_seed(mix(seed, "init"))
        self.model = MaskGitTransformer(transformer_config(params, num_classes)).to(device)
        self.ema = Ema(self.model, self.training.ema_decay)
        self.parallel = wrap(self.model)
        self.optimizer = _adamw(self.model, params)
        warmup = max(self.training.warmup_steps, 1)
        self.warmup = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        if rank == 0:
            self.validation = TokenCache(tokens_dir, "val").everything()

    def step(self, step: int) -> dict[str, Tensor]:
        tokens, labels, mask = self._batch(step)
        loss_at = mask if self.training.loss_on == "masked" else torch.ones_like(mask)
        where = loss_at.flatten().nonzero()[:, 0]  # still on the CPU: no device sync
        target, sample = tokens.flatten()[where], where // tokens.shape[1]
        padded = nn.functional.pad(where, (0, -len(where) % ROWS))
        inputs = [x.to(self.device, non_blocking=True) for x in (tokens, mask, labels, padded)]

        self.parallel.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.training.bf16):
            logits = self.parallel(*inputs)[: len(where)]
        loss = masked_token_loss(
            logits.float(),
            target.to(self.device, non_blocking=True),
            sample.to(self.device, non_blocking=True),
            len(tokens),
            self.training.label_smoothing,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.training.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.grad_clip)
        self.optimizer.step()
        self.warmup.step()
        self.ema.update(self.model, step)
        return {"loss": loss}

    def _batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """This worker's tokens (b, N), labels (b,) and mask (b, N) of the global batch."""
        noise = generator(self.seed, "batch", step)
        indices = self.order(step)
        views = torch.randint(self.train_tokens.views, (len(indices),), generator=noise)
        mask = sample_training_mask(
            len(indices),
            self.train_tokens.num_tokens,
            self.schedule,
            noise,
            self.training.min_masking_rate,
        )
        share = len(indices) // self.world_size
        rows = slice(self.rank * share, (self.rank + 1) * share)
        tokens, labels = self.train_tokens.batch(indices[rows], views[rows].numpy())
        return tokens, labels, mask[rows]

    def evaluate(self, step: int) -> dict[str, float]:
        if self.rank != 0:
            return {}
        model = self.averaged()
        tokens, labels = self.validation
        nll = masked_nll(
            model,
            tokens,
            labels,
            schedule=self.schedule,
            seed=self.seed,
            batch_size=500,
            device=self.device,
        )
        self.on_evaluate(model, step)
        return {"val_nll": nll, "lr": self.warmup.get_last_lr()[0]}

    def averaged(self) -> MaskGitTransformer:
        """The model with averaged weights, in evaluation mode."""
        model = MaskGitTransformer(self.model.config).to(self.device)
        model.load_state_dict(self.ema.weights)
        return model.eval().requires_grad_(False)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "warmup": self.warmup.state_dict(),
            "ema": self.ema.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("model", "optimizer", "warmup"):
            getattr(self, name).load_state_dict(state[name])
        self.ema.weights = {k: v.to(self.device) for k, v in state["ema"].items()}


def _adamw(model: nn.Module, params: Params) -> torch.optim.Optimizer:
    """Decoupled weight decay on matrices only; biases, norms and the like are left alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": params.training.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    training = params.training
    return torch.optim.AdamW(groups, lr=training.lr, betas=tuple(training.betas), fused=True)
