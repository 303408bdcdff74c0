"""The architecture of a tiny published model."""

from pipeline.transformer import TransformerConfig

PUBLISHED = TransformerConfig(
    num_tokens=4, codebook_size=10, num_classes=4, layers=2, hidden=24, heads=3, mlp=40, dropout=0
)
