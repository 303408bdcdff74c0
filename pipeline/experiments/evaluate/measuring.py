"""Table 1: samples of MaskGIT and the baseline, reconstructions (the best that either can reach)
and held-out real images, all measured in the same way."""

import shutil
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer, token_nll
from pipeline.config.params import Params
from pipeline.config.paths import (
    AUTOREGRESSIVE,
    IMAGES,
    SAMPLES,
    TOKENIZER,
    TOKENS,
    TRANSFORMER,
)
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages, CenterCrops, make_images
from pipeline.evaluation.metrics import fid, unless_few
from pipeline.evaluation.reconstruction import BATCH, Reconstruction
from pipeline.masking import masked_nll
from pipeline.runtime.files import atomic_folder
from pipeline.sampling import Network, balanced_labels, sample_images, sampler
from pipeline.tokenizer import Tokenizer
from pipeline.weights.published import load_model

NETWORKS: dict[Literal["transformer", "autoregressive"], Path] = {
    "transformer": TRANSFORMER,
    "autoregressive": AUTOREGRESSIVE,
}


def evaluate_all(
    params: Params, run_folder: Path, device: torch.device
) -> dict[str, dict[str, float | None]]:
    """Metrics of each set: the samples of every network, "reconstruction" and "real".

    Args:
        run_folder: keeps finished samples if the run is killed; they are published under `SAMPLES`.
    """
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    evaluator = Evaluator(params, device)
    metrics: dict[str, dict[str, float | None]] = {}
    for network, folder in NETWORKS.items():
        model = load_model(folder, network, device)
        images, labels = published_samples(params, network, model, tokenizer, run_folder)
        chosen = slice(params.evaluation.samples)
        metrics[network] = evaluator.measure(images[chosen], labels[chosen])
        metrics[network] |= {
            "nll": held_out_nll(model, params, device),
            "parameters": sum(p.numel() for m in (model, tokenizer) for p in m.parameters()),
            "steps": _steps(model, params),
        }
        print(f"evaluate: {network} measured on {params.evaluation.samples} samples", flush=True)
    real = CenterCrops(IMAGES, "val", params.data)
    rebuilt = _reconstructed(real, tokenizer, run_folder / "reconstruction.npy", device)
    metrics["reconstruction"] = evaluator.measure(rebuilt, real.labels)
    metrics["reconstruction"] |= _rfid(evaluator, rebuilt, real)
    metrics["real"] = evaluator.measure(real, real.labels)
    return metrics


def _rfid(evaluator: Evaluator, rebuilt: ArrayImages, real: CenterCrops) -> dict[str, float | None]:
    """rFID: the FID of the reconstructed validation images against the validation images. Where
    they are too few it is None, and a line says so."""
    rfid = None
    with unless_few():
        rfid = fid(evaluator.features(rebuilt).features, evaluator.features(real).features)
    return {f"rfid_{evaluator.extractor.name}": rfid}


def _reconstructed(
    real: CenterCrops, tokenizer: Tokenizer, path: Path, device: torch.device
) -> ArrayImages:
    reconstruction = Reconstruction(tokenizer, device)

    def make(chosen: Tensor) -> Tensor:
        return reconstruction(real.view.centers(chosen))

    batches = [partial(make, chosen) for chosen in torch.arange(len(real)).split(BATCH)]
    return make_images(path, batches, "evaluate: reconstructions")


def published_samples(
    params: Params,
    network: str,
    model: Network,
    tokenizer: Tokenizer,
    run_folder: Path,
) -> tuple[ArrayImages, Tensor]:
    """Sample from a network (unless the samples are in `run_folder` already), and publish them as
    `SAMPLES/<network>/images.npy` (M, C, H, W) uint8 and `labels.npy` (M,).

    Returns:
        The samples and their labels (M,).
    """
    count = max(params.evaluation.samples, params.cas.samples)
    labels = balanced_labels(count, model.config.num_classes)
    autoregressive = isinstance(model, AutoregressiveTransformer)
    batches = sample_images(
        sampler(model, params.decoding_settings(autoregressive=autoregressive)),
        tokenizer,
        labels,
        batch_size=params.decoding.batch_size,
        seed=params.seed,
    )
    path = run_folder / f"{network}.npy"
    images = make_images(path, batches, f"evaluate: samples of the {network}")
    with atomic_folder(SAMPLES / network) as folder:
        shutil.copyfile(path, folder / "images.npy")
        np.save(folder / "labels.npy", labels.numpy().astype(np.int32))
    return images, labels


def held_out_nll(model: Network, params: Params, device: torch.device) -> float:
    """Negative log-likelihood of the validation tokens, in nats a token. MaskGIT's is that of
    masked tokens, the baseline's the exact one, so that the two are not comparable."""
    tokens, labels = TokenCache(TOKENS, "val").everything()
    if isinstance(model, AutoregressiveTransformer):
        return token_nll(model, tokens, labels, device=device)
    return masked_nll(
        model,
        tokens,
        labels,
        schedule=params.training.mask_schedule,
        min_masking_rate=params.training.min_masking_rate,
        seed=params.seed,
        device=device,
    )


def _steps(model: Network, params: Params) -> int:
    """Forward passes of the network per image."""
    autoregressive = isinstance(model, AutoregressiveTransformer)
    return model.config.num_tokens if autoregressive else params.decoding.iterations
