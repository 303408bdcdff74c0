"""The token cache: every image's token grids, as memory-mapped uint16 arrays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.runtime.checksums import as_noted, require_hash, require_in_place
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import require_readable
from pipeline.runtime.files import SUMS, read_json
from pipeline.runtime.limits import IMAGES, WIDTH

SHARD = 8192  # images whose tokens lie in one file
LABELS = 8 * IMAGES + 4096  # bytes that labels have at most
WAY_OUT = "run `dvc repro cache_tokens` to make it again (if that runs nothing, delete it first)"


class TokenCache:
    """One split of the cache; tokens stay on disk until they are asked for, and each file is
    compared with its hash when the first of its tokens are.

    Raises:
        UserError: a file is missing, or holds something else than the manifest says.
    """

    def __init__(self, folder: Path | str, split: str):
        folder = Path(folder)
        manifest = read_json(folder / "manifest.json", "shards", "codebook_size", way_out=WAY_OUT)
        try:
            self._files = [
                (folder / shard["file"], shard["hash"]) for shard in manifest["shards"][split]
            ]
            for path, known in self._files:
                require_in_place(path, WAY_OUT)
                if not isinstance(known, str) or len(known) != 64:
                    raise ValueError(f"{path.name} has no hash")
            self._shards = [_mapped(path) for path, _ in self._files]
            labels = _labels(folder, split, manifest)
            wrong = _wrong(self._shards, labels, manifest, split)
            self.num_classes = 0 if wrong else _num_classes(manifest, folder)
            self.labels = labels if wrong else np.array(labels)
        except UserError:
            raise
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            require_readable(folder, error)
            reason = " ".join(f"{type(error).__name__} {error}".split())[:150]
            raise UserError(f"token cache {folder}: damaged ({reason}); {WAY_OUT}") from error
        if not wrong and (greatest := self.labels.max()) >= self.num_classes:
            wrong = f"has a label {greatest}, of {self.num_classes} classes"
        if wrong:
            raise UserError(f"token cache {folder}: {split} {wrong}; {WAY_OUT}")
        self._start = np.cumsum([0] + [len(s) for s in self._shards])
        _, self.views, self.num_tokens = self._shards[0].shape
        self.codebook_size: int = manifest["codebook_size"]
        self._checked: set[int] = set()

    def __len__(self) -> int:
        return int(self._start[-1])

    def require(self, num_tokens: int, codebook_size: int) -> None:
        """Refuse a cache of other params.

        Raises:
            UserError: its images have another number of tokens, or its codebook another size.
        """
        if (self.num_tokens, self.codebook_size) != (num_tokens, codebook_size):
            raise UserError(
                f"token cache: {self.num_tokens} tokens an image of {self.codebook_size} codes, "
                f"where params.yaml asks for {num_tokens} of {codebook_size}; {WAY_OUT}"
            )

    def batch(self, indices: np.ndarray, views: np.ndarray) -> tuple[Tensor, Tensor]:
        """Tokens (B, N) int64 and labels (B,) int64 of chosen images, each in a chosen view."""
        shard = np.searchsorted(self._start, indices, side="right") - 1
        tokens = np.empty((len(indices), self.num_tokens), dtype=np.int64)
        for number in np.unique(shard):
            rows = shard == number
            tokens[rows] = self._shard(number)[indices[rows] - self._start[number], views[rows]]
        return torch.from_numpy(tokens), torch.from_numpy(self.labels[indices].astype(np.int64))

    def shards(self) -> Iterator[np.ndarray]:
        """Each file's tokens (n, views, N) uint16, memory-mapped."""
        return map(self._shard, range(len(self._shards)))

    def _shard(self, number: int) -> np.ndarray:
        """The tokens of a file, which is looked through the first time.

        Raises:
            UserError: it is not the one that was written, or has codes that there are not.
        """
        shard = self._shards[number]
        if number not in self._checked:
            path, known = self._files[number]
            require_hash(path, WAY_OUT, known)
            if (greatest := int(shard.max())) >= self.codebook_size:
                raise UserError(
                    f"{path} has a code {greatest}, of a codebook of {self.codebook_size}; "
                    f"{WAY_OUT}"
                )
            self._checked.add(number)
        return shard

    def everything(self) -> tuple[Tensor, Tensor]:
        """First view of every image: tokens (M, N) and labels (M,)."""
        indices = np.arange(len(self))
        return self.batch(indices, np.zeros_like(indices))


def _labels(folder: Path, split: str, manifest: dict[str, Any]) -> np.ndarray:
    """The labels of a split, memory-mapped: their header may promise more than any memory has.

    Raises:
        UserError: they are missing, or not those that were written.
    """
    path = folder / f"{split}-labels.npy"
    require_in_place(path, WAY_OUT)
    if path.stat().st_size <= LABELS:  # else nobody has written them
        require_hash(path, WAY_OUT)
    if "classes" in manifest and not as_noted(path):  # an older version noted no hashes
        raise UserError(f"{path.with_name(SUMS)} has no hash of {path.name}; {WAY_OUT}")
    return _mapped(path)


def _mapped(path: Path) -> np.ndarray:
    """A file's array, memory-mapped; a tail is found before it would be hashed.

    Raises:
        ValueError: it is not.
    """
    array = np.load(path, mmap_mode="r")
    if path.stat().st_size != array.offset + array.nbytes:
        raise ValueError(f"{path.name} is longer than its header says")
    return array


def _wrong(
    shards: list[np.ndarray], labels: np.ndarray, manifest: dict[str, Any], split: str
) -> str | None:
    """What a split's arrays have wrong, if anything."""
    if not shards:
        return "has no tokens"
    if type(manifest["codebook_size"]) is not int:
        return f"has codes of a codebook of {manifest['codebook_size']}"
    _, views, tokens = shards[0].shape
    if not views or not tokens:
        return f"has {views} views of {tokens} tokens an image"
    for shard, entry in zip(shards, manifest["shards"][split], strict=True):
        if not len(shard):
            return f"has no image in {entry['file']}"
        if shard.dtype != np.uint16 or shard.shape != (entry["count"], views, tokens):
            return f"tokens in {entry['file']} are {shard.dtype} {shard.shape}, not as the others"
    if "grid" in manifest and tokens != manifest["grid"] ** 2:
        return f"has {tokens} tokens an image, and its manifest a grid of {manifest['grid']}"
    if labels.ndim != 1 or labels.dtype.kind != "i" or len(labels) != sum(map(len, shards)):
        return f"labels are {labels.dtype} {labels.shape}, not one an image"
    return "has negative labels" if labels.min() < 0 else None


def _num_classes(manifest: dict[str, Any], folder: Path) -> int:
    """Number of classes: as the manifest says, or where it is of an older version, those of the
    training images, of which every class has one.

    Raises:
        ValueError: they are no number of classes.
    """
    if "classes" in manifest:
        number = manifest["classes"]
        if type(number) is not int or not 1 <= number <= WIDTH:
            raise ValueError(f"{number} classes")
        return number
    found = np.unique(_labels(folder, "train", manifest))
    gaps = np.flatnonzero(found != np.arange(len(found)))
    if len(gaps):
        raise ValueError(f"train has a label {found[-1]}, and no image of class {gaps[0]}")
    return len(found)
