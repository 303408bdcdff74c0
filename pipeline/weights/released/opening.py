"""The networks that params describe, with the released weights that they name."""

import torch

from pipeline.config.params import Params
from pipeline.runtime.project import of_project
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config
from pipeline.weights.released.checkpoint import load_pretrained, pretrained_num_classes


def open_pretrained_transformer(
    params: Params, device: torch.device, num_classes: int | None = None
) -> MaskGitTransformer:
    """The released transformer `transformer.pretrained`, frozen.

    Args:
        num_classes: how many classes it must have; None accepts any number.

    Raises:
        UserError: the file does not hold this architecture.
    """
    assert params.transformer.pretrained is not None  # the caller has looked
    path = of_project(params.transformer.pretrained)
    if num_classes is None:
        num_classes = pretrained_num_classes(path, params.tokenizer.codebook_size)
    config = transformer_config(params, num_classes)
    weights = load_pretrained(path, config)  # first: the file may claim more than there is memory
    model = MaskGitTransformer(config).to(device)
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def open_pretrained_tokenizer(params: Params, device: torch.device) -> Tokenizer:
    """The released tokenizer `tokenizer.pretrained`, frozen.

    Raises:
        UserError: the file does not hold this architecture.
    """
    assert params.tokenizer.pretrained is not None  # the caller has looked
    path, config = of_project(params.tokenizer.pretrained), tokenizer_config(params)
    tokenizer = Tokenizer(config)
    tokenizer.load_state_dict(load_pretrained(path, config))
    return tokenizer.to(device).eval().requires_grad_(False)
