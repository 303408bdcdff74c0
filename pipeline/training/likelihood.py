"""Computes the likelihood of the validation tokens under a saved MaskGIT or baseline."""

from collections.abc import Callable
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


def held_out_nll(
    network: NetworkName,
    folder: Path,
    params: Params,
    seed: int,
    parts: Path,
    workers: BatchWorkers,
) -> float:
    """Negative log-likelihood (NLL) of the validation tokens under the saved network in
    `folder`, in nats per token. MaskGIT's NLL covers only masked tokens, and the baseline's NLL
    covers all tokens, so the two values cannot be compared. `seed` is the seed of MaskGIT's masks.
    Results of finished batches are saved in the folder `parts`, so that a killed run can resume."""
    images = len(TokenCache(TOKENS, "val"))
    # Send the model itself: workers on other nodes cannot read this stage's outputs.
    maker = Maker(_open_nats, load_model(folder, network), params, seed)
    numbers = [(number,) for number in range(-(-images // BATCH))]
    name = f"likelihood of {network}/{folder.name}"
    nats = tensors_of(folder / WEIGHTS, parts, workers, maker, numbers, name)["nats"]
    return sum_in_order(nats) / images


def _open_nats(
    model: MaskGitTransformer | AutoregressiveTransformer,
    params: Params,
    seed: int,
    device: torch.device,
) -> Callable[[int], dict[str, Tensor]]:
    model, training = model.to(device), params.training
    tokens, labels = TokenCache(TOKENS, "val").everything()

    def nats(number: int) -> dict[str, Tensor]:
        rows = slice(number * BATCH, (number + 1) * BATCH)
        if isinstance(model, AutoregressiveTransformer):
            total = token_nll_sum(model, tokens[rows], labels[rows])
        else:
            total = masked_nll_sum(
                *(model, tokens[rows], labels[rows]),
                number=number,
                schedule=training.mask_schedule,
                min_masking_rate=training.min_masking_rate,
                seed=seed,
            )
        return {"nats": torch.tensor([total], dtype=torch.float64)}

    return nats
