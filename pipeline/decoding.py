"""Iterative parallel decoding (paper, section 3.2; details as in the authors' release)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pipeline.data.microbatches import TOKENS, in_parts
from pipeline.data.seeds import generator
from pipeline.kernels import with_bfloat16_linears
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.limits import LARGEST
from pipeline.runtime.precision import Bf16, in_bfloat16
from pipeline.schedules import SCHEDULES, mask_ratio
from pipeline.transformer import MaskGitTransformer

Rounding = Literal["floor", "ceil"]


@dataclass(frozen=True)
class DecodingSettings:
    """Decoding settings, named as in the paper."""

    iterations: int  # T
    schedule: str  # name of the mask schedule γ
    choice_temperature: float  # scale of the Gumbel noise on the confidence, annealed linearly to 0
    guidance_scale: float = 0.0  # s of classifier-free guidance; 0 (as in the paper) turns it off
    bf16: Bf16 = False  # run the network in bfloat16 where that is faster; "force": anywhere
    rounding: Rounding = "floor"  # how to round the number of tokens to mask; "ceil" in the paper

    def __post_init__(self):
        if not isinstance(self.iterations, int) or self.iterations < 1:
            raise ArgumentError("iterations", f"{self.iterations} is invalid", "use an integer ≥ 1")
        for name, allowed in (("schedule", SCHEDULES), ("rounding", get_args(Rounding))):
            if (given := getattr(self, name)) not in allowed:
                way_out = f"use one of {', '.join(allowed)}"
                raise ArgumentError(name, f"'{given}' is unknown", way_out)
        for name in ("choice_temperature", "guidance_scale"):
            if not 0 <= (given := getattr(self, name)) <= LARGEST:  # False for NaN
                raise ArgumentError(name, f"{given} is not allowed", "use a number ≥ 0")


class DecodingStep(NamedTuple):
    """The state after one iteration; both tensors are (B, N)."""

    sampled: Tensor  # int64: every token, the full sample before re-masking
    masked: Tensor  # bool: True where the token is masked again for the next iteration


def num_tokens_to_mask(
    schedule: str,
    step: int,
    iterations: int,
    unknown_at_start: Tensor,
    unknown_now: Tensor,
    rounding: Rounding = "floor",
) -> Tensor:
    """Number of tokens that are still masked after iteration `step` (0-based), for each sample.

    ⌊N·γ((step + 1)/T)⌋ as in the release, or ⌈N·γ((step + 1)/T)⌉ as in the paper. Each iteration
    leaves at least one token masked and, if more than one is masked, keeps at least one prediction.

    Args:
        unknown_at_start: (B,) tokens that were unknown when decoding began; the schedule's N.
        unknown_now: (B,) tokens still masked when this iteration began.

    Returns:
        (B,) int64.
    """
    ratio = mask_ratio(schedule, (step + 1) / iterations, unknown_at_start)
    scheduled = unknown_at_start * ratio
    # In floating point, 10·(1 − 0.7) is 3.0000000000000004, but its ceiling must be 3; 10·(1 − 0.9)
    # is 0.9999999999999998, but its floor must be 1.
    scheduled = (scheduled + 1e-9).floor() if rounding == "floor" else (scheduled - 1e-9).ceil()
    return torch.minimum(unknown_now - 1, scheduled.long()).clamp(min=1)


def gumbel_noise(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, -log(-log(u)), drawn on the generator's device."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    tiny = torch.finfo(uniform.dtype).tiny
    exponential = (-uniform.clamp(min=tiny).log()).clamp(min=tiny)
    return -exponential.log().to(device)


def mask_by_confidence(confidence: Tensor, mask_len: Tensor) -> Tensor:
    """Mask the `mask_len` least confident tokens of each row.

    The cut-off is the mask_len-th smallest confidence, 0-based; less confident tokens are masked.

    Args:
        confidence: (B, N), infinite at tokens that must not be masked.
        mask_len: (B,) int64; capped at N - 1, so a grid of a single token is left unmasked.
    """
    mask_len = mask_len.clamp(max=confidence.shape[-1] - 1)
    cut_off = confidence.sort(dim=-1).values.gather(-1, mask_len[:, None])
    return confidence < cut_off


def sample_categorical(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from softmax(logits) over the last axis, by the Gumbel-max identity."""
    return (logits + gumbel_noise(logits.shape, generator, logits.device)).argmax(dim=-1)


def require_finite_logits(total: Tensor) -> None:
    """Raise an error if a logit was NaN or infinite, which makes the drawn tokens meaningless. Call
    this function once, at the end of decoding, since reading `total` waits for the device.

    Args:
        total: the sum of all logits or log-probabilities; finite only if all addends are finite.

    Raises:
        UserError: a logit was not finite.
    """
    if not total.isfinite():
        reason = "the network's logits are NaN or infinite: training diverged"
        raise UserError("decoding", reason, "train the network again (`dvc repro -f <stage>`)")


def _log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """log p of each token (B, N). Known tokens may be outside the codebook (from another
    vocabulary); the values returned for such tokens are not used."""
    index = tokens.clamp(0, logits.shape[-1] - 1)[..., None]
    return logits.log_softmax(dim=-1).gather(-1, index)[..., 0]


@torch.no_grad()
def decode(
    predict: Callable[[Tensor, Tensor], Tensor],
    tokens: Tensor,
    unknown: Tensor,
    settings: DecodingSettings,
    generator: torch.Generator,
) -> Iterator[DecodingStep]:
    """Fill the unknown tokens in T parallel steps.

    Args:
        predict: maps tokens (B, N) and the mask (B, N; True is [MASK]) to logits (B, N, K) over
            the K codes. Tokens under the mask are ignored.
        tokens: (B, N) int64; values at unknown positions are ignored.
        unknown: (B, N) bool; True at tokens to generate, whose number may differ between rows.
        generator: source of all randomness.

    Yields:
        A `DecodingStep` after each iteration; `sampled` of the last step is the result.

    Raises:
        UserError: logits are NaN or infinite.
    """
    unknown_at_start = unknown.sum(dim=-1)
    masked, total = unknown, torch.zeros((), device=tokens.device)
    for step in range(settings.iterations):
        ratio = (step + 1) / settings.iterations
        logits = predict(tokens, masked).float()
        sampled = torch.where(masked, sample_categorical(logits, generator), tokens)

        log_prob = _log_prob(logits, sampled)
        total += log_prob.masked_fill(~masked, 0).sum()
        noise = gumbel_noise(log_prob.shape, generator, log_prob.device)
        confidence = log_prob + settings.choice_temperature * (1 - ratio) * noise
        # A token known before this step is never masked again.
        confidence = torch.where(masked, confidence, torch.inf)

        mask_len = num_tokens_to_mask(
            settings.schedule,
            step,
            settings.iterations,
            unknown_at_start,
            masked.sum(dim=-1),
            settings.rounding,
        )
        # A row without unknown tokens has only infinite confidence: no token is below its cut-off.
        tokens, masked = sampled, mask_by_confidence(confidence, mask_len)
        yield DecodingStep(sampled, masked)
    require_finite_logits(total)


def predictor(
    model: MaskGitTransformer, labels: Tensor, settings: DecodingSettings
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the argument `predict` of `decode` for fixed labels (B,), on the model's device.

    With classifier-free guidance, the logits are (1 + s)·conditional − s·unconditional logits; the
    model must have been trained with `training.label_drop` above 0.
    """
    bf16, guidance_scale = settings.bf16, settings.guidance_scale
    bf16 = in_bfloat16(bf16, labels.device, "products")
    if bf16:
        model = with_bfloat16_linears(model)

    def predict(tokens: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(labels.device.type, torch.bfloat16, enabled=bf16):
            if guidance_scale == 0:
                return model.predict(tokens, mask, labels)
            no_class = torch.full_like(labels, model.config.num_classes)
            both = model.predict(
                tokens.repeat(2, 1), mask.repeat(2, 1), torch.cat([labels, no_class])
            )
        conditional, unconditional = both.float().chunk(2)
        return (1 + guidance_scale) * conditional - guidance_scale * unconditional

    rows = TOKENS // model.config.num_tokens
    return lambda tokens, mask: in_parts(predict, rows, tokens, mask, labels)


def generate(
    model: MaskGitTransformer,
    labels: Tensor,
    settings: DecodingSettings,
    *,
    seed: int,
    device: torch.device | str = "cpu",
) -> Iterator[DecodingStep]:
    """Decode one batch from a fully masked canvas.

    Args:
        labels: (B,) int64.

    Yields:
        A `DecodingStep` after each iteration, as in `decode`.
    """
    shape = (len(labels), model.config.num_tokens)
    return decode(
        predictor(model, labels.to(device), settings),
        torch.zeros(shape, dtype=torch.long, device=device),
        torch.ones(shape, dtype=torch.bool, device=device),
        settings,
        generator(seed, "decode", settings.schedule, settings.iterations, device=device),
    )
