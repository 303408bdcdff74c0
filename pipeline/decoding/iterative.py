"""Iterative parallel decoding (paper, section 3.2; details as in the authors' release)."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.data.microbatches import TOKENS, in_parts
from pipeline.data.seeds import generator
from pipeline.decoding.samplers import SAMPLERS
from pipeline.decoding.samplers.guidance import GUIDANCE
from pipeline.decoding.samplers.iteration import Iteration
from pipeline.decoding.samplers.truncation import truncated
from pipeline.decoding.settings import DecodingSettings
from pipeline.runtime.errors import UserError
from pipeline.runtime.precision import in_bfloat16
from pipeline.schedules import mask_ratio
from pipeline.transformer import MaskGitTransformer
from pipeline.transformer.kernels import with_bfloat16_linears


class DecodingStep(NamedTuple):
    """The tokens after one iteration of decoding."""

    sampled: Tensor  # (B, N) int64: every token, the full sample before re-masking
    masked: Tensor  # (B, N) bool: True where the token is masked again for the next iteration


def num_tokens_to_mask(
    settings: DecodingSettings, step: int, unknown_at_start: Tensor, unknown_now: Tensor
) -> Tensor:
    """The number of tokens of each sample to keep masked after iteration `step` (0-based), (B,)
    int64: N·γ((step + 1)/T), rounded down (the authors' code) or up (the paper), as the setting
    `rounding` says. It is at most `unknown_now` - 1 (so that a token is unmasked), but at least 1.

    Args:
        unknown_at_start: N, each sample's number of unknown tokens when decoding began, (B,).
        unknown_now: each sample's number of masked tokens when the iteration began, (B,).
    """
    progress = (step + 1) / settings.iterations
    scheduled = unknown_at_start * mask_ratio(settings.schedule, progress, unknown_at_start)
    # In floating point, 10·(1 − 0.7) is 3.0000000000000004, but its ceiling must be 3; 10·(1 − 0.9)
    # is 0.9999999999999998, but its floor must be 1.
    down = settings.rounding == "floor"
    scheduled = (scheduled + 1e-9).floor() if down else (scheduled - 1e-9).ceil()
    return torch.minimum(unknown_now - 1, scheduled.long()).clamp(min=1)


def gumbel_noise(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, -log(-log(u)), drawn on the generator's device."""
    uniform = _uniform(shape, generator, generator.device)
    tiny = torch.finfo(uniform.dtype).tiny
    exponential = (-uniform.clamp(min=tiny).log()).clamp(min=tiny)
    return -exponential.log().to(device)


def _uniform(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(device)


def sample_categorical(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw an index from softmax(logits) over the last axis, by the Gumbel-max trick."""
    return (logits + gumbel_noise(logits.shape, generator, logits.device)).argmax(dim=-1)


def require_finite_logits(total: Tensor) -> None:
    """Raise a `UserError` if `total`, the sum of the logits (or log-probabilities) over all
    iterations, is NaN or infinite: the drawn tokens are then meaningless. Reading `total` waits for
    the GPU, so call this function only once, after the last iteration."""
    if not total.isfinite():
        reason = "the network's logits are NaN or infinite: training diverged"
        raise UserError("decoding", reason, "train the network again with a lower training.lr")


@torch.no_grad()
def decode(
    predict: Callable[[Tensor, Tensor, float], Tensor],
    tokens: Tensor,
    unknown: Tensor,
    settings: DecodingSettings,
    generator: torch.Generator,
) -> Iterator[DecodingStep]:
    """Generate the unknown tokens in T iterations. Each iteration predicts all tokens in parallel.

    Args:
        predict: maps tokens (B, N), a mask (B, N) and the progress (t + 1)/T to logits (B, N, K)
            over the K codes. The mask is True at [MASK] tokens, whose values `predict` ignores.
        tokens: (B, N) int64; values at unknown positions are ignored.
        unknown: (B, N) bool; True at tokens to generate. Their number may differ by row.
        generator: source of all randomness.

    Yields:
        A `DecodingStep` after each iteration; `sampled` of the last step is the result.

    Raises:
        UserError: logits are NaN or infinite.
    """
    unknown_at_start = unknown.sum(dim=-1)
    masked, total = unknown, torch.zeros((), device=tokens.device)
    # A separate generator, so that drawing offsets does not change what other samplers draw.
    own = torch.Generator(generator.device).manual_seed(generator.initial_seed())
    offset = _uniform(torch.Size((len(tokens), 1)), own, tokens.device)

    def scheduled(step: int) -> Tensor:
        return mask_ratio(settings.schedule, step / settings.iterations, unknown_at_start[:, None])

    for step in range(settings.iterations):
        progress = (step + 1) / settings.iterations
        logits = predict(tokens, masked, progress).float()
        logits = truncated(logits, settings.temperature(progress), settings.top_k, settings.top_p)
        sampled = torch.where(masked, sample_categorical(logits, generator), tokens)

        log_probs = logits.log_softmax(dim=-1)
        # Known tokens may be outside the codebook (from another vocabulary).
        code = sampled.clamp(0, logits.shape[-1] - 1)[..., None]
        log_prob = log_probs.gather(-1, code)[..., 0]
        total += log_prob.masked_fill(~masked, 0).sum()
        mask_len = num_tokens_to_mask(settings, step, unknown_at_start, masked.sum(dim=-1))
        iteration = Iteration(
            masked=masked,
            unknown=unknown,
            log_probs=log_probs,
            log_prob=log_prob,
            mask_len=mask_len,
            ratio=scheduled(step),
            next_ratio=scheduled(step + 1),
            noise_scale=settings.choice_temperature * (1 - progress),
            remasking=settings.remasking,
            gumbel=partial(gumbel_noise, tokens.shape, generator, tokens.device),
            uniform=partial(_uniform, tokens.shape, generator, tokens.device),
            offset=offset,
        )
        # A row without unknown tokens has only infinite scores: no token is below its cut-off.
        tokens, masked = sampled, SAMPLERS[settings.sampler](iteration) & unknown
        del logits, log_probs, iteration  # else they would stay in memory during the next pass
        yield DecodingStep(sampled, masked)
    require_finite_logits(total)


def predictor(
    model: MaskGitTransformer, labels: Tensor, settings: DecodingSettings
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Make the function `predict` that `decode` calls, for class labels (B,) on the model's device.

    With classifier-free guidance, the logits are (1 + s)·conditional − s·unconditional logits; the
    model must have been trained with `training.label_drop` above 0.
    """
    bf16 = in_bfloat16(settings.bf16, labels.device, "products")
    if bf16:
        model = with_bfloat16_linears(model)
    rows = TOKENS // model.config.num_tokens

    def guided(tokens: Tensor, mask: Tensor, labels: Tensor, scale: float) -> Tensor:
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=bf16):
            if scale == 0:
                return model.predict(tokens, mask, labels)
            no_class = torch.full_like(labels, model.config.num_classes)
            both = model.predict(
                tokens.repeat(2, 1), mask.repeat(2, 1), torch.cat([labels, no_class])
            )
        conditional, unconditional = both.float().chunk(2)
        return (1 + scale) * conditional - scale * unconditional

    def predict(tokens: Tensor, mask: Tensor, progress: float) -> Tensor:
        share = GUIDANCE[settings.guidance_schedule](progress - 1 / settings.iterations)
        with_scale = partial(guided, scale=settings.guidance_scale * share)
        return in_parts(with_scale, rows, tokens, mask, labels)

    return predict


def generate(
    model: MaskGitTransformer, labels: Tensor, settings: DecodingSettings, *, seed: int
) -> Iterator[DecodingStep]:
    """Generate tokens for class labels (B,) int64, starting with every token masked. Yields a
    `DecodingStep` after each iteration, as `decode` does."""
    shape, device = (len(labels), model.config.num_tokens), model.device
    yield from decode(
        predictor(model, labels.to(device), settings),
        torch.zeros(shape, dtype=torch.long, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
        settings,
        generator(seed, "decode", settings.schedule, settings.iterations, device=device),
    )
