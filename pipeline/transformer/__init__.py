"""The transformer: the network (`model`), and dropout and attention that are fast on CPUs
(`cpu`)."""

from pipeline.transformer.model import (
    LAYER_NORM_EPS,
    MaskGitTransformer,
    TokenTransformer,
    TransformerConfig,
    masked_token_loss,
    with_bfloat16_linears,
)

__all__ = [
    "LAYER_NORM_EPS",
    "MaskGitTransformer",
    "TokenTransformer",
    "TransformerConfig",
    "masked_token_loss",
    "with_bfloat16_linears",
]
