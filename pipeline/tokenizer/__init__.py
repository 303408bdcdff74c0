"""The tokenizer: `vqgan` is a VQGAN without attention, `quantizer` is its vector quantizer, and
`discriminator` contains the networks and losses for its adversarial training."""

from pipeline.tokenizer.vqgan import Tokenizer, TokenizerConfig, tokens_to_images

__all__ = ["Tokenizer", "TokenizerConfig", "tokens_to_images"]
