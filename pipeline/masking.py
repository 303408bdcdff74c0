"""Masked Visual Token Modeling (paper, section 3.1): draws training masks, and computes the loss of
masked tokens and the likelihood of validation tokens."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.data.microbatches import TOKENS, in_parts
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import generator
from pipeline.schedules import mask_ratio
from pipeline.transformer import MaskGitTransformer

BATCH = 500  # images whose masks are drawn together


def sample_training_mask(
    batch_size: int,
    num_tokens: int,
    schedule: str,
    generator: torch.Generator,
    min_masking_rate: float = 0.0,
    rows: Callable[[Tensor], Tensor] = lambda batch: batch,
) -> Tensor:
    """Draw masks as in section 3.1: r ~ U[0, 1), then ⌈γ(r)·N⌉ positions uniformly at random.

    Args:
        min_masking_rate: lower bound on the mask ratio: 0.5 in the authors' code, 0 in the paper.
        rows: function that selects the rows of the batch to return, such as `Ranks.rows`. Random
            numbers are drawn for all rows, so that a row's mask is the same on every worker.

    Returns:
        (rows, num_tokens) bool, True where the token becomes [MASK]; at least one per row.
    """
    r = torch.rand(batch_size, generator=generator, dtype=torch.float64)
    ratio = mask_ratio(schedule, r, num_tokens).clamp(min=min_masking_rate)
    count = torch.ceil(ratio * num_tokens).long().clamp(1, num_tokens)
    # Ranks of i.i.d. noise are a uniform permutation; masking the ranks below `count` masks a
    # uniformly drawn subset of that size.
    noise = rows(torch.rand(batch_size, num_tokens, generator=generator))
    rank = noise.argsort(dim=1).argsort(dim=1)
    return rank < rows(count)[:, None]


def masked_token_loss(
    logits: Tensor, target: Tensor, sample: Tensor, batch_size: int, label_smoothing: float
) -> Tensor:
    """Cross-entropy of tokens: the mean over the tokens of each image, then over the batch. (The
    paper's equation 1 has a sum over the masked tokens.)

    Args:
        logits: logits (M, V) at the M positions that count in the loss (see `training.loss_on`).
        target: true codes (M,).
        sample: index of the image that each position belongs to, (M,) in [0, batch_size).
    """
    loss_M = F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")
    # Not `bincount`, which on a GPU waits for the largest index.
    count_B = sample.new_zeros(batch_size).index_add(0, sample, torch.ones_like(sample))
    return (loss_M / count_B[sample]).sum() / batch_size


@torch.no_grad()
def masked_nll(
    model: MaskGitTransformer,
    tokens: Tensor,
    labels: Tensor,
    *,
    schedule: str,
    seed: int,
    min_masking_rate: float = 0.0,
    batch_size: int = BATCH,
    ranks: Ranks = ALONE,
) -> float:
    """Mean negative log-likelihood (NLL) of masked tokens in nats. (The paper does not define the
    NLL of its Table 3.) Masks are drawn as in training with `schedule`. Probabilities are over the
    K codes, as in decoding. The mean is over the tokens of each image, then over images, as in the
    loss.

    Args:
        tokens: tokens (M, N) int64 of M images.
        labels: class labels (M,) int64.
        ranks: the workers, which share the batches.
    """

    def total(number: int, batch: tuple[Tensor, Tensor]) -> float:
        return masked_nll_sum(
            model,
            *batch,
            number=number,
            schedule=schedule,
            seed=seed,
            min_masking_rate=min_masking_rate,
        )

    batches = list(zip(tokens.split(batch_size), labels.split(batch_size), strict=True))
    return ranks.sum_over(batches, total) / len(tokens)


@torch.no_grad()
def masked_nll_sum(
    model: MaskGitTransformer,
    tokens: Tensor,
    labels: Tensor,
    *,
    number: int,
    schedule: str,
    seed: int,
    min_masking_rate: float = 0.0,
) -> float:
    """Each image's mean NLL per masked token in nats (see `masked_nll`), summed over the images of
    a batch. The batch's index `number` seeds the batch's masks."""
    noise, device = generator(seed, "nll", number), model.device
    masks = sample_training_mask(len(tokens), tokens.shape[1], schedule, noise, min_masking_rate)

    def total(tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        where = mask.flatten().nonzero()[:, 0]
        logits = model(tokens.to(device), mask.to(device), labels.to(device), where.to(device))
        target = tokens.flatten()[where].to(device)
        sample = (where // tokens.shape[1]).to(device)
        logits = logits[:, : model.config.codebook_size].float()
        loss = masked_token_loss(logits, target, sample, len(tokens), label_smoothing=0.0)
        return torch.tensor([len(tokens) * loss.item()], dtype=torch.float64)

    return in_parts(total, TOKENS // tokens.shape[1], tokens, masks, labels).sum().item()
