"""Downloads weights that other projects publish, and reads them without running code in their
pickles."""

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
_LOCK = threading.RLock()


def downloaded(url: str) -> Path:
    """The path of a file in torch's cache, downloaded from `url` if it is missing or damaged. The
    file's name must end in the first digits of its SHA-256, as the names of PyTorch's and
    torch-fidelity's files do."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    digits = path.stem.rsplit("-", 1)[1]
    if path.exists():
        if file_hash(path).startswith(digits):
            return path
        print(f"{path} is damaged (its hash is not the one in its name): downloading again")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(url, str(path), digits, progress=sys.stderr.isatty())
    return path


@contextmanager
def only_tensors() -> Iterator[None]:
    """Within the block, `torch.load` runs no code of a pickle, even if a library passes
    `weights_only=False`. A file that holds other objects than tensors raises a ValueError."""
    with _LOCK:
        before = os.environ.get(FORCE, "0")
        os.environ[FORCE] = "1"
        try:
            yield
        except UnpicklingError as error:
            raise ValueError("damaged, or holds more than tensors; its code was not run") from error
        finally:
            os.environ[FORCE] = before


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a dict of weights, memory-mapped, from a zip file that `torch.save` wrote. Raises a
    ValueError if the file holds anything but a dict of dense tensors. A damaged file may raise
    an error of any other type."""
    with ZipFile(path) as archive:  # torch does not verify checksums
        if broken := archive.testzip():
            raise ValueError(f"{broken} in the zip file does not match its checksum")
    with only_tensors():
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(weights, dict):
        raise ValueError(f"the file holds a {type(weights).__name__}, not a dict of tensors")
    for name, weight in weights.items():
        if not isinstance(weight, Tensor) or weight.layout != torch.strided:
            reason = "not a dense tensor; if the file has a dict of weights, save only that dict"
            raise ValueError(f"{str(name)[:200]} is {reason}")
    return {str(name): weight.detach() for name, weight in weights.items()}
