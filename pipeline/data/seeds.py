"""Derives the seed of every random draw from identifiers, such as (seed, "batch", step)."""

import hashlib

import torch


def mix(*parts: int | str) -> int:
    """Compute a 63-bit seed from identifiers; different identifiers give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator on the device, seeded with `mix`. A GPU's draws differ from a CPU's."""
    return torch.Generator(device).manual_seed(mix(*parts))
