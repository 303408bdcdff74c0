"""Seeds: every random draw of the project is named by what it is for."""

import hashlib

import torch


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any identifiers; different identifiers give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on the device, seeded by `mix`. A GPU draws other numbers than a CPU."""
    return torch.Generator(device).manual_seed(mix(*parts))
