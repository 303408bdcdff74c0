"""Weights that other projects publish: downloaded to torch's cache, and read without running any of
the code that a pickle can hold."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile

import torch
from torch import Tensor

from pipeline.runtime.files import file_hash

FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # read by every call of `torch.load`
ONE_AT_A_TIME = threading.RLock()


def downloaded(url: str) -> Path:
    """Path of the file in torch's cache, downloaded if it is missing or damaged. Its name ends in
    the first digits of its SHA-256, as of all that PyTorch and torch-fidelity publish.

    Raises:
        OSError, RuntimeError: it cannot be downloaded, or does not match its hash.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    known = path.stem.rsplit("-", 1)[1]
    if path.exists():
        if file_hash(path).startswith(known):
            return path
        print(f"{path} is damaged (its hash is not the one in its name): downloaded again")
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = sys.stderr.isatty()
    torch.hub.download_url_to_file(url, str(path), hash_prefix=known, progress=progress)
    return path


@contextmanager
def only_tensors() -> Iterator[None]:
    """Within the block `torch.load` runs no code of a pickle, whatever a library asks for: those
    of published networks pass `weights_only=False`.

    Raises:
        ValueError: a file holds more than tensors, or is damaged. (PyTorch's own message proposes
            to run what is in it.)
    """
    with ONE_AT_A_TIME:
        before = os.environ.get(FORCE)
        os.environ[FORCE] = "1"
        try:
            yield
        except UnpicklingError as error:
            reason = "it is damaged, or holds more than tensors (which is not run)"
            raise ValueError(reason) from error
        finally:
            del os.environ[FORCE]
            if before is not None:
                os.environ[FORCE] = before


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read what `torch.save` wrote, a zip, on the CPU. Tensors are mapped: they take memory when
    they are used.

    Raises:
        ValueError: it holds anything else than a dict of dense tensors.
        Exception: nearly any other, if the file is damaged.
    """
    with ZipFile(path) as archive:  # torch does not check its checksums
        if broken := archive.testzip():
            raise ValueError(f"{broken} does not match its checksum")
    with only_tensors():
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(weights, dict):
        raise ValueError(f"it holds a {type(weights).__name__} and not a dict of tensors")
    for name, weight in weights.items():
        if isinstance(weight, dict):
            raise ValueError(f"{str(name)[:200]} is a dict of weights: save it by itself")
        if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.is_meta:
            raise ValueError(f"{str(name)[:200]} is not a dense tensor")
    return {str(name): weight.detach() for name, weight in weights.items()}
