"""Builds the configs of the networks from params."""

from pipeline.classifier import ClassifierConfig
from pipeline.config.params import Params
from pipeline.tokenizer import TokenizerConfig
from pipeline.transformer import TransformerConfig


def classifier_config(params: Params, num_classes: int) -> ClassifierConfig:
    p = params.classifier
    return ClassifierConfig(p.architecture, params.data.channels, num_classes, p.width)


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
