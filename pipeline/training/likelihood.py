"""The likelihood of the validation tokens under a published network, computed by all workers."""

from pathlib import Path

import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, token_nll_sum
from pipeline.config.params import Params
from pipeline.config.paths import TOKENS
from pipeline.config.replicates import NetworkName
from pipeline.data.ranks import sum_in_order
from pipeline.data.tokens import TokenCache
from pipeline.masking import BATCH, masked_nll_sum
from pipeline.runtime.batches import BatchWorkers, Maker, tensors_of
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import WEIGHTS, load_model


class Likelihood:
    """A network and the validation tokens.

    Args:
        seed: draws MaskGIT's masks.
    """

    def __init__(
        self,
        model: MaskGitTransformer | AutoregressiveTransformer,
        params: Params,
        seed: int,
        device: torch.device,
    ):
        self.params, self.seed, self.device = params.training, seed, device
        self.model = model.to(device)
        self.tokens, self.labels = TokenCache(TOKENS, "val").everything()

    def __call__(self, number: int) -> dict[str, Tensor]:
        """The sum over the images of a batch, in nats per token, (1,) float64."""
        rows = slice(number * BATCH, (number + 1) * BATCH)
        batch = self.tokens[rows], self.labels[rows]
        if isinstance(self.model, AutoregressiveTransformer):
            nats = token_nll_sum(self.model, *batch, device=self.device)
        else:
            nats = masked_nll_sum(
                self.model,
                *batch,
                number=number,
                schedule=self.params.mask_schedule,
                min_masking_rate=self.params.min_masking_rate,
                seed=self.seed,
                device=self.device,
            )
        return {"nats": torch.tensor([nats], dtype=torch.float64)}


def held_out_nll(
    network: NetworkName,
    folder: Path,
    params: Params,
    seed: int,
    parts: Path,
    workers: BatchWorkers,
) -> float:
    """Negative log-likelihood of the validation tokens, in nats per token. MaskGIT's is over masked
    tokens, the baseline's is exact, so the two cannot be compared.

    Args:
        folder: where the network is published.
        seed: draws MaskGIT's masks.
        parts: the folder of batches that a killed run made.
    """
    images = len(TokenCache(TOKENS, "val"))
    # The model itself: workers on other nodes do not see what this stage has made.
    maker = Maker(Likelihood, load_model(folder, network), params, seed)
    numbers = [(number,) for number in range(-(-images // BATCH))]
    name = f"likelihood of {network}/{folder.name}"
    nats = tensors_of(folder / WEIGHTS, parts, workers, maker, numbers, name)["nats"]
    return sum_in_order(nats) / images
