"""Seeds: every random draw of the project is named by what it is for."""

import hashlib

import torch


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any identifiers; unrelated for different ones."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `mix`."""
    return torch.Generator().manual_seed(mix(*parts))
