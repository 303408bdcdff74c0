"""The bidirectional transformer: the network (`model`), and its parts that suit a CPU (`cpu`)."""

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
