"""Seeds: every random draw of the project is named by what it is for."""

import hashlib

import torch


def mix(*parts: int | str) -> int:
    """A 63-bit seed from any identifiers; unrelated for different ones."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on the device, seeded by `mix`; each kind of device draws numbers of its own."""
    return torch.Generator(device).manual_seed(mix(*parts))
