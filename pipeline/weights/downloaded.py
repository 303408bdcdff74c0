"""Weights that other projects publish, in torch's cache. A file's name ends in the first digits of
its SHA-256, as of all that PyTorch and torch-fidelity publish."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.runtime.files import file_hash

ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def downloaded(url: str) -> Path:
    """The file of that address, whole: one that is in torch's cache and does not match its name's
    hash is downloaded again, and a line says so.

    Raises:
        OSError, RuntimeError: it cannot be downloaded, or what came does not match either; nothing
            is changed then.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    known = path.stem.rsplit("-", 1)[1]
    there = path.exists()
    if there and file_hash(path).startswith(known):
        return path
    if there:
        print(f"{path} is damaged (its hash is not the one in its name): downloaded again")
    path.parent.mkdir(parents=True, exist_ok=True)
    shown = sys.stderr.isatty()
    torch.hub.download_url_to_file(url, str(path), hash_prefix=known, progress=shown)
    return path


@contextmanager
def only_tensors() -> Iterator[None]:
    """Within, `torch.load` runs no code that a pickle holds, whoever calls it: the libraries of
    published networks ask it to run what there is."""
    before = os.environ.get(ONLY_TENSORS)
    os.environ[ONLY_TENSORS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[ONLY_TENSORS]
        else:
            os.environ[ONLY_TENSORS] = before
