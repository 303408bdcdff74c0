"""Class-conditional generation: labels → tokens → images, and the likelihood of held-out tokens."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.data.shards import as_uint8
from pipeline.decoding import DecodingStep, decode
from pipeline.masking import sample_training_mask
from pipeline.seeds import generator, mix
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer, masked_token_loss


def balanced_labels(count: int, num_classes: int) -> Tensor:
    """(count,) labels that cycle through the classes."""
    return torch.arange(count) % num_classes


def generate(
    model: MaskGitTransformer,
    labels: Tensor,
    *,
    iterations: int,
    schedule: str,
    choice_temperature: float,
    bf16: bool,
    seed: int,
    device: torch.device | str = "cpu",
) -> list[DecodingStep]:
    """Decode one batch from a blank canvas; every iteration's tokens (B, N) and mask."""
    labels = labels.to(device)

    def predict(tokens: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=bf16):
            return model.predict(tokens, mask, labels)

    shape = (len(labels), model.config.num_tokens)
    return decode(
        predict,
        torch.zeros(shape, dtype=torch.long, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
        iterations=iterations,
        schedule=schedule,
        choice_temperature=choice_temperature,
        generator=generator(seed, "decode", schedule, iterations),
    )


def sample_images(
    model: MaskGitTransformer,
    tokenizer: Tokenizer,
    labels: Tensor,
    *,
    batch_size: int,
    seed: int,
    device: torch.device | str = "cpu",
    **decoding,
) -> Iterator[Tensor]:
    """Batches of uint8 images (B, C, H, W), in the order of `labels`."""
    for number, chunk in enumerate(labels.split(batch_size)):
        steps = generate(model, chunk, seed=mix(seed, "batch", number), device=device, **decoding)
        yield tokens_to_images(tokenizer, steps[-1].sampled)


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
        mask = sample_training_mask(*chunk.shape, schedule, noise)
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
