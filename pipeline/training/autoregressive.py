"""Trains the autoregressive baseline, with the same data, optimizer and warmup as MaskGIT."""

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, token_nll
from pipeline.data.seeds import generator
from pipeline.masking import masked_token_loss
from pipeline.runtime.precision import autocast
from pipeline.training.transformer import TransformerTask


class AutoregressiveTask(TransformerTask):
    """One worker's share of training the autoregressive baseline. The batches are the same as
    MaskGIT's, but the network predicts every token from the preceding tokens."""

    network = AutoregressiveTransformer
    kind = "autoregressive"

    def _draw_inputs(self, step: int) -> tuple[Tensor, ...]:
        return self._batch(step, generator(self.seed, "batch", step))

    def _loss(self, tokens: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        tokens, labels = self._move(tokens, labels)
        with autocast(self.device, self.training.bf16, "products"):
            logits = self.parallel(tokens, labels).flatten(0, 1)
        sample = torch.arange(len(tokens), device=self.device).repeat_interleave(tokens.shape[1])
        return masked_token_loss(
            logits.float(), tokens.flatten(), sample, len(tokens), self.training.label_smoothing
        )

    def _nll(self) -> float:
        model = self.average.module
        assert isinstance(model, AutoregressiveTransformer)  # `network`
        return token_nll(model, *self.validation, ranks=self.ranks)
