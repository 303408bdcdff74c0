"""The networks that params describe: their configurations, and released weights in them."""

import torch

from pipeline.classifier import ClassifierConfig
from pipeline.config.params import Params
from pipeline.tokenizer import Tokenizer, TokenizerConfig
from pipeline.transformer import MaskGitTransformer, TransformerConfig
from pipeline.weights.released import load_pretrained, pretrained_num_classes


def classifier_config(params: Params, num_classes: int) -> ClassifierConfig:
    return ClassifierConfig(
        architecture=params.classifier.architecture,
        channels=params.data.channels,
        num_classes=num_classes,
        width=params.classifier.width,
    )


def tokenizer_config(params: Params) -> TokenizerConfig:
    p = params.tokenizer
    return TokenizerConfig(
        channels=params.data.channels,
        filters=p.filters,
        multipliers=tuple(p.multipliers),
        res_blocks=p.res_blocks,
        embedding_dim=p.embedding_dim,
        codebook_size=p.codebook_size,
    )


def transformer_config(params: Params, num_classes: int) -> TransformerConfig:
    return TransformerConfig(
        num_tokens=params.num_tokens,
        codebook_size=params.tokenizer.codebook_size,
        num_classes=num_classes,
        **params.transformer.model_dump(exclude={"pretrained"}),
    )


def open_pretrained_transformer(
    params: Params, device: torch.device, num_classes: int | None = None
) -> MaskGitTransformer:
    """The released transformer `transformer.pretrained`, frozen.

    Args:
        num_classes: how many classes it must have; None accepts any number.

    Raises:
        UserError: the file does not hold this architecture.
    """
    path = params.transformer.pretrained
    assert path is not None  # the caller has looked
    if num_classes is None:
        num_classes = pretrained_num_classes(path, params.tokenizer.codebook_size)
    config = transformer_config(params, num_classes)
    model = MaskGitTransformer(config).to(device)
    model.load_state_dict(load_pretrained(path, config))
    return model.eval().requires_grad_(False)


def open_pretrained_tokenizer(params: Params, device: torch.device) -> Tokenizer:
    """The released tokenizer `tokenizer.pretrained`, frozen.

    Raises:
        UserError: the file does not hold this architecture.
    """
    path, config = params.tokenizer.pretrained, tokenizer_config(params)
    assert path is not None  # the caller has looked
    tokenizer = Tokenizer(config)
    tokenizer.load_state_dict(load_pretrained(path, config))
    return tokenizer.to(device).eval().requires_grad_(False)
