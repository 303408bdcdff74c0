"""The bidirectional transformer (`network`), and faster layers for CPUs (`kernels`)."""

from pipeline.transformer.network import MaskGitTransformer, TokenTransformer, TransformerConfig

__all__ = ["MaskGitTransformer", "TokenTransformer", "TransformerConfig"]
