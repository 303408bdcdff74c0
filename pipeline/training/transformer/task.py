"""Masked Visual Token Modeling (paper, section 3.1): one worker's share of a training step."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from weakref import proxy

import torch
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.data.order import BatchOrder
from pipeline.data.prefetch import Prefetch
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import generator, mix
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll, sample_training_mask
from pipeline.runtime.device import autocast, require_compiler, to_device
from pipeline.training.loop import Average
from pipeline.training.loop.spikes import left_out, shared, spike_guard
from pipeline.transformer import (
    MaskGitTransformer,
    TokenTransformer,
    masked_token_loss,
)
from pipeline.weights.configs import transformer_config

# The number of masked tokens differs from step to step. The head always gets a multiple of this
# many rows, since libraries build, and keep, a kernel for every shape that they meet.
ROWS = 512


def no_look(model: Any, step: int) -> None:
    """In place of an `on_evaluate` where nobody looks."""


class TransformerTask:
    """One worker's share of MaskGIT's training.

    Batch, views and masks are drawn from (seed, step) for all workers together, and each worker
    takes its rows. Results therefore depend on the number of workers only by dropout and by the
    order of sums.

    Args:
        tokens_dir: the token cache.
        num_classes: classes of the data set.
        ranks: the workers, of which this is one.
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
        ranks: Ranks = ALONE,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        on_evaluate: Callable[[TokenTransformer, int], None] = no_look,
    ):
        self.training, self.seed = params.training, seed
        if self.training.compile:
            require_compiler(gpu=device.type != "cpu")
        self.device, self.ranks, self.on_evaluate = device, ranks, on_evaluate
        self.train_tokens = TokenCache(tokens_dir, "train")
        self.train_tokens.require(params.num_tokens, params.tokenizer.codebook_size)
        self.order = BatchOrder(len(self.train_tokens), self.training.batch_size, seed)
        torch.manual_seed(mix(seed, "init"))
        self.model = self.network(transformer_config(params, num_classes)).to(device)
        self.average = Average(self.model, self.training.ema_decay)
        self.parallel: Callable[..., Tensor] = wrap(self.model)
        self.unsynchronized = getattr(self.parallel, "no_sync", nullcontext)
        if self.training.compile:
            self.parallel = torch.compile(self.parallel)
        self.optimizer = _adamw(self.model, params)
        warmup = max(self.training.warmup_steps, 1)
        self.warmup = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        # Held weakly: with a method of its own in it, a task would outlive its training, with all
        # that it has of a GPU's memory, in a process that goes on to the next one.
        me = proxy(self)

        def inputs(step: int) -> tuple[Tensor, ...]:
            return me._draw_inputs(step)

        # A GPU does not wait for the processor to draw them: it has those of the next step by then.
        self._inputs = Prefetch(inputs) if device.type != "cpu" else inputs
        self.guard = spike_guard(self.training.spike_factor, "training")
        self.validation = TokenCache(tokens_dir, "val").everything()

    def step(self, step: int) -> dict[str, Tensor]:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        losses = {"loss": self._add_gradients(step)}
        clip = self.training.grad_clip
        if clip is not None or self.guard:
            norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip or math.inf)
        if self.guard:
            losses["gradient_norm"] = norm
        if self.guard and self.guard.skips(step, shared(losses, self.ranks)):
            losses = left_out(losses, self.ranks)
        else:
            self.optimizer.step()
            self.average.update_parameters(self.model)
        self.warmup.step()
        return losses

    def _add_gradients(self, step: int) -> Tensor:
        """Gradients of this worker's share of the batch, `training.accumulate` parts of it one
        after the other; its loss. The workers' gradients are averaged with the last part."""
        parts = self.training.accumulate
        total = torch.zeros((), device=self.device)
        chunks = (tensor.chunk(parts) for tensor in self._inputs(step))
        for number, part in enumerate(zip(*chunks, strict=True), start=1):
            with nullcontext() if number == parts else self.unsynchronized():
                loss = self._loss(*part) / parts
                loss.backward()
            total += loss.detach()
        return total

    def _draw_inputs(self, step: int) -> tuple[Tensor, ...]:
        """This worker's share of the batch: tokens (b, N), labels (b,) and mask (b, N)."""
        noise = generator(self.seed, "batch", step)
        tokens, labels = self._batch(step, noise)
        mask = sample_training_mask(
            self.training.batch_size,
            tokens.shape[1],
            self.training.mask_schedule,
            noise,
            self.training.min_masking_rate,
            rows=self.ranks.rows,
        )
        drawn = torch.rand(self.training.batch_size, generator=noise)
        dropped = self.ranks.rows(drawn < self.training.label_drop)
        return tokens, labels.masked_fill(dropped, self.model.config.num_classes), mask

    def _loss(self, tokens: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy of the masked tokens (or of all): mean over the images of a part."""
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
        return self.train_tokens.batch(self.ranks.rows(indices), self.ranks.rows(views).numpy())

    def _move(self, *tensors: Tensor) -> list[Tensor]:
        return [to_device(x, self.device) for x in tensors]

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.training.bf16)

    def evaluate(self, step: int) -> dict[str, float]:
        nll = self._nll()
        if self.ranks.rank == 0:
            self.on_evaluate(self.average.module, step)
        skipped = {"skipped_steps": self.guard.skipped} if self.guard else {}
        return {"val_nll": nll, "lr": float(self.warmup.get_last_lr()[0])} | skipped

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
            ranks=self.ranks,
        )

    def _kept(self) -> tuple[str, ...]:
        """What a checkpoint holds, by attribute."""
        return ("model", "optimizer", "warmup", "average", *(["guard"] if self.guard else []))

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in self._kept()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self._kept():
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
