"""The tokenizer: a VQGAN without attention (`vqgan`) around a vector quantizer (`quantizer`), and
the discriminator that trains it."""

from pipeline.tokenizer.vqgan import Tokenizer, TokenizerConfig, tokens_to_images

__all__ = ["Tokenizer", "TokenizerConfig", "tokens_to_images"]
