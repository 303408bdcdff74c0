"""VQGAN∗, the paper's autoregressive baseline (section 4.2). The baseline has MaskGIT's tokenizer,
tokens and hyperparameters, but predicts one token after another in raster order.

Shape suffixes of variables: B batch, N tokens, V vocabulary, K codes.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.data.microbatches import TOKENS, in_parts
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import generator
from pipeline.decoding.iterative import gumbel_noise, require_finite_logits
from pipeline.decoding.samplers.truncation import truncated
from pipeline.masking import BATCH, masked_token_loss
from pipeline.runtime.precision import Bf16, in_bfloat16
from pipeline.transformer import TokenTransformer
from pipeline.transformer.kernels import with_bfloat16_linears
from pipeline.transformer.network import KeyValueCache


class AutoregressiveTransformer(TokenTransformer):
    """Predicts each token from the class and the tokens before it."""

    causal = True

    def sequence(self, tokens_BN: Tensor, labels_B: Tensor) -> Tensor:
        """Vocabulary ids (B, N): the class token, then all tokens but the last."""
        return torch.cat([self.class_ids(labels_B), tokens_BN[:, :-1]], dim=1)

    def predict(self, tokens_BN: Tensor, labels_B: Tensor) -> Tensor:
        """Logits (B, N, K) over the codes for each token, given the tokens before it."""
        return self.code_logits(self.encode(self.sequence(tokens_BN, labels_B)))

    def forward(self, tokens_BN: Tensor, labels_B: Tensor) -> Tensor:
        """Logits over the whole vocabulary, (B, N, V), for the training loss."""
        return self.logits(self.encode(self.sequence(tokens_BN, labels_B)))


@torch.no_grad()
def generate_autoregressive(
    model: AutoregressiveTransformer,
    labels: Tensor,
    *,
    seed: int,
    bf16: Bf16 = False,
    cache: bool = True,
    **truncation: Any,
) -> Tensor:
    """Draw tokens (B, N) int64, one after another, from softmax(logits). Raises a `UserError` if
    logits are NaN or infinite.

    Args:
        labels: class labels (B,).
        bf16: True runs the network in bfloat16 on GPUs, and on CPUs that are faster in bfloat16;
            "force" always runs the network in bfloat16.
        cache: keep the keys and values of earlier positions, so that each step computes only one
            position. Without a cache, each step computes all positions so far. Figure 4 times
            both variants. In float32, both draw the same tokens; in bfloat16, rounding differs.
        truncation: temperature, top_k and top_p, as in `truncated`.
    """
    device = model.device
    bf16 = in_bfloat16(bf16, device, "products")
    if bf16:
        model = with_bfloat16_linears(model)
    labels_B = labels.to(device)
    rows = max(1, TOKENS // model.config.num_tokens if cache else len(labels))
    parts = []
    for rows_b in torch.arange(len(labels), device=device).split(rows):
        # Each part starts again from the seed, and picks its rows of the whole batch's noise.
        noise = generator(seed, "autoregressive", device=device)
        parts.append(_generate_rows(model, labels_B, rows_b, noise, bf16, cache, truncation))
    return torch.cat(parts)


def _generate_rows(
    model: AutoregressiveTransformer,
    labels_B: Tensor,
    rows_b: Tensor,
    noise: torch.Generator,
    bf16: bool,
    cache: bool,
    truncation: dict[str, Any],
) -> Tensor:
    config, labels_b, device = model.config, labels_B[rows_b], labels_B.device
    tokens_bN = torch.zeros(len(rows_b), config.num_tokens, dtype=torch.long, device=device)
    caches = [KeyValueCache(config.num_tokens) for _ in model.blocks] if cache else []
    ids_bN, total = model.sequence(tokens_bN, labels_b), torch.zeros((), device=device)
    for n in range(config.num_tokens):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            first = n if cache else 0
            hidden_bSD = model.encode(ids_bN[:, first : n + 1], caches, start=first)
            logits_bK = model.code_logits(hidden_bSD[:, -1])
        total += logits_bK.float().sum()
        logits_bK = truncated(logits_bK.float(), **truncation)
        shape = torch.Size((len(labels_B), logits_bK.shape[-1]))
        noise_BK = gumbel_noise(shape, noise, device)
        tokens_bN[:, n] = (logits_bK + noise_BK[rows_b]).argmax(dim=-1)
        if n + 1 < config.num_tokens:
            ids_bN[:, n + 1] = tokens_bN[:, n]
    require_finite_logits(total)
    return tokens_bN


@torch.no_grad()
def token_nll(
    model: AutoregressiveTransformer,
    tokens: Tensor,
    labels: Tensor,
    *,
    batch_size: int = BATCH,
    ranks: Ranks = ALONE,
) -> float:
    """The exact negative log-likelihood (NLL) in nats, averaged over the tokens (M, N) int64 of M
    images with class labels (M,) int64. Probabilities are over the K codes. The batches are divided
    among the workers of `ranks`, and all workers return the same mean."""
    batches = list(zip(tokens.split(batch_size), labels.split(batch_size), strict=True))
    nats = ranks.sum_over(batches, lambda _, batch: token_nll_sum(model, *batch))
    return nats / len(tokens)


@torch.no_grad()
def token_nll_sum(model: AutoregressiveTransformer, tokens: Tensor, labels: Tensor) -> float:
    """Each image's mean NLL per token in nats (see `token_nll`), summed over a batch's images."""

    def total(tokens: Tensor, labels: Tensor) -> Tensor:
        tokens, count = tokens.to(model.device), len(tokens)
        logits = model.predict(tokens, labels.to(model.device)).float().flatten(0, 1)
        sample = torch.arange(count, device=model.device).repeat_interleave(tokens.shape[1])
        loss = masked_token_loss(logits, tokens.flatten(), sample, count, label_smoothing=0.0)
        return torch.tensor([count * loss.item()], dtype=torch.float64)

    return in_parts(total, TOKENS // model.config.num_tokens, tokens, labels).sum().item()
