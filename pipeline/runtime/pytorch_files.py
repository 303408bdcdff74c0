"""Weights that other projects publish: downloaded to torch's cache, and read without running any of
the code that a pickle can hold. A file's name in the cache ends in the first digits of its SHA-256,
as of all that PyTorch and torch-fidelity publish."""

import io
import json
import pickletools
import sys
import threading
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from pipeline.runtime.files import distinct, file_hash, require_file
from pipeline.runtime.limits import INDEX_BYTES

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the start of PyTorch's format before 1.6
LEGACY_PICKLES = 5  # magic number, version, machine, the state dict, the order of its storages
# What the pickle of a state dict names, and nothing that makes more of a short file.
GLOBALS = {"collections OrderedDict"}
GLOBALS |= {f"torch._utils _rebuild_{x}" for x in ("tensor", "tensor_v2", "parameter")}
GLOBALS |= {f"torch {x}Storage" for x in ("Float", "Half", "BFloat16", "Double", "Bool")}
GLOBALS |= {f"torch {x}Storage" for x in ("Int", "Long", "Short", "Char", "Byte")}
# What it does: all that `torch.save` writes, in Python 2 and 3.
WRITES = {"BINPUT", "LONG_BINPUT"}
READS = {"BINGET", "LONG_BINGET"}
SHARED = {"BINUNICODE", "SHORT_BINSTRING", "GLOBAL"}
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
OPCODES = WRITES | READS | SHARED | TUPLES
OPCODES |= {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BINPERSID", "REDUCE", "BUILD"}
OPCODES |= {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "APPEND", "APPENDS", "EMPTY_LIST"}
OPCODES |= {"EMPTY_DICT", "SETITEM", "SETITEMS", "EMPTY_TUPLE"}
# The same kinds of numbers in safetensors. It has others: floats of 8 bits, whose scale lies
# elsewhere, and of 4 and 6, of which several share bytes.
KINDS = {"F16", "BF16", "F32", "F64", "BOOL", "I8", "I16", "I32", "I64", "U8"}
MAX_TUPLES = 1 << 15  # some five a tensor; those within each other are hashed by recursion
MAX_DIMENSIONS = 8
LOAD, ONE_AT_A_TIME = torch.load, threading.RLock()


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
    """Within, `torch.load` is `read_state_dict`, however this thread's libraries call it: those of
    published networks ask it to run what there is."""
    own = threading.get_ident()

    def load(file: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() != own:
            return LOAD(file, *args, **kwargs)
        return read_state_dict(Path(file))

    with ONE_AT_A_TIME:
        before = torch.load
        torch.load = load  # type: ignore[assignment]
        try:
            yield
        finally:
            torch.load = before


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors, on the CPU, of a file that `torch.save` wrote, now or before PyTorch 1.6. Those
    of a zip are mapped: they take memory when they are looked at.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: it is no regular file.
        ValueError: it holds anything but a dict of dense tensors, or is damaged.
        zipfile.BadZipFile, RuntimeError: it is a damaged zip.
    """
    require_file(path)
    with ShortReads(io.FileIO(path)) as handle:
        start = handle.read(len(LEGACY))
        if zipped := start.startswith(b"PK\x03\x04"):
            _require_plain_zip(handle)
        elif start == LEGACY:
            content = io.BytesIO(start + handle.read(INDEX_BYTES))
            for _ in range(LEGACY_PICKLES):
                _require_plain(content)
        else:
            raise ValueError("it is no PyTorch state dict")
    with warnings.catch_warnings():  # PyTorch's, about PyTorch's own formats
        warnings.simplefilter("ignore")
        try:
            # Mapped, so that a storage that claims to be larger than the file is not read past it.
            weights = LOAD(path, map_location="cpu", weights_only=True, mmap=zipped)
        except Exception as error:  # nearly any, and of many sentences
            raise ValueError("its tensors cannot be read") from error
    if not isinstance(weights, dict):
        raise ValueError(f"it holds a {type(weights).__name__} and not a dict of tensors")
    for name, weight in weights.items():
        if not isinstance(name, str):
            raise ValueError("a name in it is no text")
        require_dense(name, weight)
    return {name: weight.detach() for name, weight in weights.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Its library takes a list of any length, and of two of one
    name the last.

    Raises:
        ValueError: its list of tensors is too long, has a name twice, or numbers of another kind
            than weights and counts have.
        Exception: nearly any other, where it is damaged.
    """
    from safetensors.torch import load_file

    with open(path, "rb") as handle:
        size = int.from_bytes(handle.read(8), "little")
        if size > INDEX_BYTES:
            raise ValueError(f"its list of tensors has more than {INDEX_BYTES:,} bytes")
        listed = json.loads(handle.read(size), object_pairs_hook=distinct)
    weights = load_file(path)
    for name in weights:
        if (kind := listed[name]["dtype"]) not in KINDS:
            raise ValueError(f"{name[:200]} is {kind}, no kind of number that weights have")
    return weights


class ShortReads(io.BufferedReader):
    """A file for `zipfile`, which would read a list of millions of entries at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > INDEX_BYTES:
            raise ValueError(f"its list of entries has more than {INDEX_BYTES:,} bytes")
        return super().read(size)


def require_dense(name: str, weight: Any) -> None:
    """Raise a `ValueError` unless it is a tensor, all of whose elements the file has."""
    if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.is_meta:
        within = (
            ", but holds others: save what is in it by itself" if isinstance(weight, dict) else ""
        )
        raise ValueError(f"{name[:200]} is not a dense tensor{within}")
    if weight.ndim > MAX_DIMENSIONS:
        raise ValueError(f"{name[:200]} has {weight.ndim} dimensions")
    if not 0 < weight.nbytes <= weight.untyped_storage().nbytes():
        raise ValueError(f"{name[:200]} has no elements, or more than there are in the file")


def require_stored(archive: zipfile.ZipFile, size: int) -> None:
    """Raise a `ValueError` unless all that is in a zip lies there as it is, each in its own place,
    as `torch.save` writes it: else a small file may hold gigabytes.

    Args:
        size: of the file, in bytes.
    """
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its entries are compressed, which PyTorch never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("its entries overlap")


def _require_plain_zip(handle: BinaryIO) -> None:
    """Raise a `ValueError` unless a zip is as `torch.save` writes it, whole, and its pickle lists
    tensors."""
    size = handle.seek(0, io.SEEK_END)
    with zipfile.ZipFile(handle) as archive:
        require_stored(archive, size)
        entries = archive.infolist()
        distinct([(entry.filename, entry) for entry in entries])
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                if entry.file_size > INDEX_BYTES:
                    raise ValueError(f"its list of tensors has more than {INDEX_BYTES:,} bytes")
                _require_plain(io.BytesIO(archive.read(entry)))
        if broken := archive.testzip():
            raise ValueError(f"{broken} does not match its checksum")


def _require_plain(pickled: BinaryIO) -> None:
    """Read a pickle to its end without running it, and raise a `ValueError` if it does anything but
    list tensors. Nothing but a text or a global may be used again: of lists, dicts and tuples that
    hold each other, a short pickle makes what no machine has the memory or the time for."""
    shared: set[Any] = set()  # their numbers
    before, tuples = "", 0
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            name, tuples = opcode.name, tuples + (opcode.name in TUPLES)
            if name not in OPCODES or (name == "GLOBAL" and argument not in GLOBALS):
                what = ".".join(str(argument).split())[:80] if name == "GLOBAL" else name
                if name == "FRAME":
                    what = "or is saved with another pickle_protocol than PyTorch's own"
                raise MoreThanTensors(f"it holds more than tensors ({what}); that is not run")
            if (name in READS and argument not in shared) or tuples > MAX_TUPLES:
                raise MoreThanTensors("its list of tensors is none that PyTorch writes")
            if name in WRITES and before in SHARED:
                shared.add(argument)
            elif name in WRITES:
                shared.discard(argument)
            before = name
    except MoreThanTensors:
        raise
    except Exception as error:
        raise ValueError("its list of tensors is damaged") from error


class MoreThanTensors(ValueError):
    """A pickle does anything but list tensors."""
