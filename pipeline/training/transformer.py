"""Trains MaskGIT's transformer with Masked Visual Token Modeling (paper, section 3.1)."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from weakref import proxy

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipeline.config.params import Params
from pipeline.config.paths import TOKENS
from pipeline.config.replicates import NetworkName
from pipeline.data.order import BatchOrder, Prefetch
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import generator, mix
from pipeline.data.tokens import TokenCache
from pipeline.masking import masked_nll, masked_token_loss, sample_training_mask
from pipeline.runtime.device import to_device
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.precision import autocast
from pipeline.runtime.storage import upload
from pipeline.training.loop.average import Average, averaged_weights
from pipeline.training.loop.training import Task, Training
from pipeline.transformer import MaskGitTransformer, TokenTransformer
from pipeline.weights.configs import transformer_config
from pipeline.weights.published import save_model

# The number of masked tokens differs between steps. The head's input is padded to a multiple of
# ROWS rows, since libraries build and cache a kernel for every new shape.
ROWS = 512


class TransformerTask(Task):
    """One worker's share of training MaskGIT. All workers draw the same batch, crops and masks from
    (seed, step), and each worker takes a share of the rows. So the number of workers changes
    results only through dropout and rounding errors in sums.

    Args:
        tokens_dir: folder of the token cache.
        on_evaluate: called with (averaged model, step) at each checkpoint, on the first worker.
    """

    saved = ("model", "optimizer", "warmup", "average")
    model: TokenTransformer
    kind: NetworkName = "transformer"  # name of the model's kind for `save_model`
    network: type[TokenTransformer] = MaskGitTransformer

    def __init__(
        self,
        params: Params,
        tokens_dir: Path | str,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks = ALONE,
        on_evaluate: Callable[[Any, int], None] | None = None,
    ):
        self.training, self.seed = params.training, seed
        self.device, self.ranks, self.on_evaluate = device, ranks, on_evaluate
        self.train_tokens = TokenCache(tokens_dir, "train")
        self.order = BatchOrder(len(self.train_tokens), self.training.batch_size, seed)
        torch.manual_seed(mix(seed, "init"))
        config = transformer_config(params, self.train_tokens.num_classes)
        self.model = self.network(config).to(device)
        self.average = Average(self.model, self.training.ema_decay)
        self.parallel: Callable[..., Tensor] = self.model
        if ranks.workers > 1:
            gpus = [device] if device.type == "cuda" else None
            self.parallel = DistributedDataParallel(self.model, device_ids=gpus)
        self.unsynchronized = getattr(self.parallel, "no_sync", nullcontext)
        if self.training.compile:
            self.parallel = torch.compile(self.parallel)
        self.optimizer = _adamw(self.model, params)
        warmup = max(self.training.warmup_steps, 1)
        self.warmup = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        # A weak reference: with a bound method, a reference cycle would delay the release of the
        # task and its GPU memory in a process that goes on to another training run.
        inputs = partial(type(self)._draw_inputs, proxy(self))
        # With a GPU, a thread draws the inputs of the next step during the current step.
        self._inputs = Prefetch(inputs) if device.type != "cpu" else inputs
        self.validation = TokenCache(tokens_dir, "val").everything()

    def step(self, step: int) -> dict[str, Tensor]:
        """Take an optimisation step on this worker's share of the batch, in `training.accumulate`
        microbatches. Gradients are averaged over the workers in the last microbatch only."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts, clip = self.training.accumulate, self.training.grad_clip
        total = torch.zeros((), device=self.device)
        chunks = (tensor.chunk(parts) for tensor in self._inputs(step))
        for number, part in enumerate(zip(*chunks, strict=True), start=1):
            with nullcontext() if number == parts else self.unsynchronized():
                loss = self._loss(*part) / parts
                loss.backward()
            total += loss.detach()
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.warmup.step()
        return {"loss": total}

    def _draw_inputs(self, step: int) -> tuple[Tensor, ...]:
        """Draw this worker's share of a batch: tokens (b, N), labels (b,) and masks (b, N). For
        classifier-free guidance, some labels are replaced by the label "no class"."""
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
        """Cross-entropy of the masked tokens (or of all tokens, depending on `training.loss_on`),
        averaged over the images of a microbatch."""
        loss_at = mask if self.training.loss_on == "masked" else torch.ones_like(mask)
        where = loss_at.flatten().nonzero()[:, 0]  # on the CPU, so without synchronization
        padded = nn.functional.pad(where, (0, -len(where) % ROWS))
        with autocast(self.device, self.training.bf16, "products"):
            logits = self.parallel(*self._move(tokens, mask, labels, padded))[: len(where)]
        target, sample = self._move(tokens.flatten()[where], where // tokens.shape[1])
        return masked_token_loss(
            logits.float(), target, sample, len(tokens), self.training.label_smoothing
        )

    def _batch(self, step: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the tokens (b, N) and labels (b,) of this worker's share of a batch."""
        indices = self.order(step)
        views = torch.randint(self.train_tokens.views, (len(indices),), generator=noise)
        return self.train_tokens.batch(self.ranks.rows(indices), self.ranks.rows(views).numpy())

    def _move(self, *tensors: Tensor) -> list[Tensor]:
        return [to_device(x, self.device) for x in tensors]

    def evaluate(self, step: int) -> dict[str, float]:
        nll = self._nll()
        if self.on_evaluate and self.ranks.rank == 0:
            self.on_evaluate(self.average.module, step)
        return {"val_nll": nll, "lr": float(self.warmup.get_last_lr()[0])}

    def _nll(self) -> float:
        """NLL of the validation tokens under the averaged model, in nats per token."""
        model = self.average.module
        assert isinstance(model, MaskGitTransformer)  # `network`, or a subclass of it
        return masked_nll(
            model,
            *self.validation,
            schedule=self.training.mask_schedule,
            min_masking_rate=self.training.min_masking_rate,
            seed=self.seed,
            ranks=self.ranks,
        )


def _adamw(model: nn.Module, params: Params) -> torch.optim.Optimizer:
    """Create an AdamW optimizer with weight decay for matrices, but not for biases and norms."""
    training, weights = params.training, list(model.parameters())
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    beta1, beta2 = training.betas
    return torch.optim.AdamW(groups, lr=training.lr, betas=(beta1, beta2), fused=True)


@dataclass(frozen=True, kw_only=True)
class TransformerTraining(Training):
    """Settings of a training run of MaskGIT or of the autoregressive baseline."""

    section = "training"
    task_type: type[TransformerTask]
    on_evaluate: Callable[[Any, int], None] | None = None  # see `TransformerTask`

    def task(self, ranks: Ranks, device: torch.device) -> TransformerTask:
        return self.task_type(
            self.params,
            TOKENS,
            seed=self.seed,
            device=device,
            ranks=ranks,
            on_evaluate=self.on_evaluate,
        )

    def finish(self, state: dict[str, Any], seconds: float) -> None:
        """Write the network with averaged weights, and the history, to the run directory."""
        weights = averaged_weights(state["task"]["average"])
        classes = TokenCache(TOKENS, "train").num_classes
        config = transformer_config(self.params, classes)
        save_model(self.model, self.task_type.kind, config, weights)
        write_json(self.trained, {"history": state["history"], "seconds": seconds})
        for path in (*self.model.iterdir(), self.trained):
            upload(path)

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def trained(self) -> Path:
        """The file with the training run's history and duration, written when training ends."""
        return self.folder / "training.json"

    @property
    def history(self) -> list[dict[str, float]]:
        """One row of losses and measurements for each checkpoint of a finished training run."""
        return read_json(self.trained, "history")["history"]

    @property
    def finished(self) -> bool:
        return self.trained.exists() and self.model.exists()
