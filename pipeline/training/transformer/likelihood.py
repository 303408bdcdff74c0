"""How likely a published network finds the validation tokens, measured by all workers."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, token_nll
from pipeline.config.params import Params
from pipeline.config.paths import TOKENS
from pipeline.config.replicates import NetworkName
from pipeline.data.tokens import TokenCache
from pipeline.masking import BATCH, masked_nll
from pipeline.runtime.batches import Alone, Maker, tensors_of
from pipeline.runtime.shares import Share, batch_sum, in_order
from pipeline.weights.published import WEIGHTS, load_model


class Likelihood:
    """A network and the validation tokens.

    Args:
        folder: where the network is published.
        seed: draws the masks of MaskGIT's.
    """

    def __init__(
        self, network: NetworkName, folder: Path, params: Params, seed: int, device: torch.device
    ):
        self.params, self.seed, self.device = params, seed, device
        self.model = load_model(folder, network, device)
        self.tokens, self.labels = held_out(params).everything()

    def __call__(self, number: int) -> dict[str, Tensor]:
        """The sum over the images of a batch, in nats a token, (1,) float64."""
        return {"nats": batch_sum(self.mean, number, batches(len(self.tokens)))}

    def mean(self, share: Share) -> float:
        """Mean over the images. MaskGIT's is that of masked tokens."""
        if isinstance(self.model, AutoregressiveTransformer):
            of_all = partial(token_nll, self.model, self.tokens, self.labels)
            return of_all(batch_size=BATCH, device=self.device, share=share)
        training = self.params.training
        return masked_nll(
            self.model,
            self.tokens,
            self.labels,
            schedule=training.mask_schedule,
            min_masking_rate=training.min_masking_rate,
            batch_size=BATCH,
            seed=self.seed,
            device=self.device,
            share=share,
        )


def held_out(params: Params) -> TokenCache:
    """The validation tokens.

    Raises:
        UserError: there are none, or they are of other params.
    """
    cache = TokenCache(TOKENS, "val")
    cache.require(params.num_tokens, params.tokenizer.codebook_size)
    return cache


def batches(images: int) -> int:
    """How many so many images are measured in."""
    return -(-images // BATCH)


def held_out_nll(
    network: NetworkName, folder: Path, params: Params, seed: int, parts: Path, workers: Alone
) -> float:
    """Negative log-likelihood of the validation tokens, in nats a token. MaskGIT's is that of
    masked tokens, the baseline's the exact one, so that the two are not comparable.

    Args:
        folder: where the network is published.
        seed: draws the masks.
        parts: a folder for what a killed run goes on with.
    """
    images = len(held_out(params))
    maker = Maker(Likelihood, network, folder, params, seed)
    numbers = [(number,) for number in range(batches(images))]
    name = f"likelihood of {network}/{folder.name}"
    nats = tensors_of(folder / WEIGHTS, parts, workers, maker, numbers, name)["nats"]
    return in_order(nats) / images
