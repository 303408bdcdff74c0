"""`python -m pipeline sample`: pictures from a trained or a released model, without any stage."""

from pathlib import Path

import torch

from pipeline.errors import UserError
from pipeline.layout import TOKENIZER, TRANSFORMER
from pipeline.models import load_model
from pipeline.params import Params
from pipeline.pictures import grid_picture, save_picture
from pipeline.released import load_pretrained
from pipeline.runtime.device import pick_device
from pipeline.sampling import balanced_labels, sample_images, sampler
from pipeline.tokenizer import Tokenizer
from pipeline.training.tokenizer import tokenizer_config
from pipeline.training.transformer import open_pretrained
from pipeline.transformer import MaskGitTransformer

COLUMNS = 10


def sample(params: Params, count: int, classes: list[int] | None, output: Path) -> Path:
    """Write a grid of `count` samples as a PNG.

    Args:
        classes: indices that the samples cycle through; None for all.

    Raises:
        UserError: a class that the model does not have, or models that are not there.
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
        sampler(model, params),
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
    config = tokenizer_config(params)
    tokenizer = Tokenizer(config)
    tokenizer.load_state_dict(load_pretrained(params.tokenizer.pretrained, config))
    return tokenizer.to(device).eval().requires_grad_(False)


def _open_transformer(params: Params, device: torch.device) -> MaskGitTransformer:
    if params.transformer.pretrained is None:
        return load_model(TRANSFORMER, "transformer", device)
    return open_pretrained(params, device)
