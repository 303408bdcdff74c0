"""Class-conditional generation: labels → tokens → images, and the likelihood of held-out tokens."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, generate_autoregressive
from pipeline.data.shards import as_uint8
from pipeline.decoding import DecodingStep, decode
from pipeline.masking import sample_training_mask
from pipeline.params import Params
from pipeline.seeds import generator, mix
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import (
    MaskGitTransformer,
    TokenTransformer,
    masked_token_loss,
    with_bfloat16_linears,
)


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """(count,) labels that cycle through the classes."""
    return torch.arange(count) % num_classes


def predictor(
    model: MaskGitTransformer, labels: Tensor, *, bf16: bool, guidance_scale: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """What `decode` asks for logits (B, N, K), for fixed labels (B,) on the model's device.

    Args:
        guidance_scale: s of classifier-free guidance, (1 + s)·conditional − s·unconditional logits;
            0, as in the paper, computes no unconditional ones. Above 0 it needs a model that was
            trained with `training.label_drop`.
    """
    if bf16:
        model = with_bfloat16_linears(model)
    no_class = torch.full_like(labels, model.config.num_classes)

    def predict(tokens: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=bf16):
            if guidance_scale == 0:
                return model.predict(tokens, mask, labels)
            both = model.predict(
                tokens.repeat(2, 1), mask.repeat(2, 1), torch.cat([labels, no_class])
            )
        conditional, unconditional = both.float().chunk(2)
        return (1 + guidance_scale) * conditional - guidance_scale * unconditional

    return predict


def generate(
    model: MaskGitTransformer,
    labels: Tensor,
    *,
    iterations: int,
    schedule: str,
    choice_temperature: float,
    bf16: bool,
    seed: int,
    guidance_scale: float = 0.0,
    device: torch.device | str = "cpu",
) -> list[DecodingStep]:
    """Decode one batch from a blank canvas; every iteration's tokens (B, N) and mask."""
    shape = (len(labels), model.config.num_tokens)
    return decode(
        predictor(model, labels.to(device), bf16=bf16, guidance_scale=guidance_scale),
        torch.zeros(shape, dtype=torch.long, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
        iterations=iterations,
        schedule=schedule,
        choice_temperature=choice_temperature,
        generator=generator(seed, "decode", schedule, iterations, device=device),
    )


def sampler(
    model: TokenTransformer, params: Params, *, iterations: int | None = None
) -> Callable[[Tensor, int], Tensor]:
    """(labels (B,), seed) → tokens (B, N) of either transformer, decoded as the params say.

    Args:
        iterations: T in place of `decoding.iterations`.
    """
    device = next(model.parameters()).device
    if isinstance(model, AutoregressiveTransformer):
        return lambda labels, seed: generate_autoregressive(
            model, labels, seed=seed, bf16=params.autoregressive.bf16, device=device
        )
    decoding = params.decoding
    return lambda labels, seed: (
        generate(
            model,
            labels,
            iterations=iterations or decoding.iterations,
            schedule=params.training.mask_schedule,
            choice_temperature=decoding.choice_temperature,
            guidance_scale=decoding.guidance_scale,
            bf16=decoding.bf16,
            seed=seed,
            device=device,
        )[-1].sampled
    )


def sample_images(
    draw: Callable[[Tensor, int], Tensor],
    tokenizer: Tokenizer,
    labels: Tensor,
    *,
    batch_size: int,
    seed: int,
) -> list[Callable[[], Tensor]]:
    """What makes each batch of uint8 images (B, C, H, W), in the order of `labels`; none needs the
    others.

    Args:
        draw: a `sampler`.
    """

    def make(number: int, chunk: Tensor) -> Tensor:
        return tokens_to_images(tokenizer, draw(chunk, mix(seed, "batch", number)))

    return [partial(make, *batch) for batch in enumerate(labels.split(batch_size))]


def tokens_to_images(tokenizer: Tokenizer, tokens: Tensor) -> Tensor:
    """uint8 images (B, C, H, W) on the CPU of flat token grids (B, N)."""
    side = round(tokens.shape[-1] ** 0.5)
    return as_uint8(tokenizer.decode(tokens.unflatten(-1, (side, side)))).cpu()


@torch.no_grad()
def masked_nll(
    model: MaskGitTransformer,
    tokens: Tensor,
    labels: Tensor,
    *,
    schedule: str,
    seed: int,
    batch_size: int,
    min_masking_rate: float = 0.0,
    device: torch.device | str = "cpu",
) -> float:
    """Mean negative log-likelihood in nats of masked tokens, the NLL of Table 3.

    Masks follow the schedule's own training distribution; probabilities are over the K codes, as
    decoding samples from them; weighted as the training loss (tokens of a sample, then samples).

    Args:
        tokens: (M, N) int64.
    """
    total = 0.0
    for number, (chunk, chunk_labels) in enumerate(
        zip(tokens.split(batch_size), labels.split(batch_size), strict=True)
    ):
        noise = generator(seed, "nll", number)
        mask = sample_training_mask(*chunk.shape, schedule, noise, min_masking_rate)
        where = mask.flatten().nonzero()[:, 0]
        logits = model(
            chunk.to(device), mask.to(device), chunk_labels.to(device), where.to(device)
        )[:, : model.config.codebook_size]
        target = chunk.flatten()[where].to(device)
        sample = (where // chunk.shape[1]).to(device)
        total += (
            len(chunk)
            * masked_token_loss(
                logits.float(), target, sample, len(chunk), label_smoothing=0.0
            ).item()
        )
    return total / len(tokens)
