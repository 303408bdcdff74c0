"""Seeds: every random draw of the project has a seed derived from its purpose."""

import hashlib

import torch


def mix(*parts: int | str) -> int:
    """A 63-bit seed computed from any identifiers; different identifiers give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator on the device, seeded by `mix`. A GPU draws other numbers than a CPU."""
    return torch.Generator(device).manual_seed(mix(*parts))
