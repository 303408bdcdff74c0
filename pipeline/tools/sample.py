"""`python -m pipeline sample`: pictures from a trained or a released model, without any stage."""

from pathlib import Path

import torch

from pipeline.config.params import Params
from pipeline.config.paths import TOKENIZER, TRANSFORMER
from pipeline.runtime.device import pick_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.pictures import grid_picture, save_picture
from pipeline.sampling import balanced_labels, sample_images, sampler
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model
from pipeline.weights.released.opening import open_pretrained_tokenizer, open_pretrained_transformer

COLUMNS = 10


def sample(params: Params, count: int, classes: list[int] | None, output: Path) -> Path:
    """Write a grid of `count` samples as a PNG.

    Args:
        classes: indices that the samples cycle through; None for all.

    Raises:
        UserError: the model does not have one of the classes, or there is no model yet.
    """
    device = pick_device()
    tokenizer, model = _open_tokenizer(params, device), _open_transformer(params, device)
    known = model.config.num_classes
    for label in classes or ():
        if not 0 <= label < known:
            raise UserError(f"--classes: this model has no class {label}; use 0 to {known - 1}")
    labels = balanced_labels(count, known)
    if classes:
        labels = torch.tensor(classes)[balanced_labels(count, len(classes))]
    batches = sample_images(
        sampler(model, params.decoding_settings()),
        tokenizer,
        labels,
        batch_size=params.decoding.batch_size,
        seed=params.seed,
    )
    images = torch.cat([make() for make in batches])
    return save_picture(grid_picture(images, min(count, COLUMNS)), output)


def _open_tokenizer(params: Params, device: torch.device) -> Tokenizer:
    """The released tokenizer that the params name, else the trained one."""
    if params.tokenizer.pretrained is None:
        return load_model(TOKENIZER, "tokenizer", device)
    return open_pretrained_tokenizer(params, device)


def _open_transformer(params: Params, device: torch.device) -> MaskGitTransformer:
    if params.transformer.pretrained is None:
        return load_model(TRANSFORMER, "transformer", device)
    return open_pretrained_transformer(params, device)
