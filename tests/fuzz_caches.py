"""Hostile caches: image shards, token grids, features."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.data.images.shards import ImageShards
from pipeline.data.images.writing import write_manifest, write_shards
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.feature_files import load_features
from pipeline.evaluation.features import Features
from pipeline.runtime.files import file_hash, read_json, write_json
from tests.fuzzing import Case
from tests.images import save_features
from tests.test_shards import FakeSource
from tests.transformer_task import random_tokens


def cases(random: random.Random) -> list[Case]:
    made = [Case(f"good {kind}", "accept", partial(_file, kind, None)) for kind in FILES]
    for kind in FILES:
        for number in range(8):
            seed = random.randrange(2**32)
            # Features have no hash: they are made again where they cannot be read.
            must = (
                "either" if kind in ("features", "image manifest", "token manifest") else "refuse"
            )
            made.append(Case(f"damaged {kind} {number}", must, partial(_file, kind, seed)))
        for how in ("empty", "gone", "folder", "fifo"):
            made.append(Case(f"{kind}: {how}", "refuse", partial(_file, kind, how)))
    for name, change in TOKENS.items():
        made.append(Case(f"tokens: {name}", "refuse", partial(_tokens, change, False)))
        made.append(Case(f"tokens: {name}, told", "refuse", partial(_tokens, change, True)))
    for name, labels in LABELS.items():
        made.append(Case(f"labels: {name}", "refuse", partial(_labels, labels)))
    for name, features in FEATURES.items():
        made.append(Case(f"features: {name}", "refuse", partial(_features, features)))
    for name, change in MANIFESTS.items():
        for kind in ("image manifest", "token manifest"):
            made.append(Case(f"{kind}: {name}", "refuse", partial(_manifest, kind, change)))
    return made


def _images(folder: Path) -> Path:
    split = {"train": list(range(90)), "val": list(range(90, 100))}
    source = FakeSource([50, 50])
    shards = {name: write_shards(source, i, name, 64, folder) for name, i in split.items()}
    write_manifest(folder, source.class_names, "fuzz", shards)
    return folder


def _read_images(folder: Path) -> None:
    for split in ("train", "val"):
        images = ImageShards(folder, split)
        assert [len(images.read(i)) for i in range(len(images))] == [2] * len(images)


def _read_tokens(folder: Path) -> None:
    for split in ("train", "val"):
        cache = TokenCache(folder, split)
        cache.require(49, 16)
        assert cache.num_classes <= 3
        tokens, _ = cache.everything()
        assert tokens.max() < 16


def _write_features(folder: Path) -> Path:
    folder.mkdir()
    features = Features(torch.randn(8, 4), torch.randn(8, 3))
    save_features(features, folder / "f.safetensors")
    return folder


Read = Callable[[Path], Any]
# Each: the folder is made, the file that is damaged, the reader of the folder.
FILES: dict[str, tuple[Callable[[Path], Path], str, Read]] = {
    "image shard": (_images, "train-00001.parquet", _read_images),
    "image manifest": (_images, "manifest.json", _read_images),
    "token shard": (random_tokens, "train-00001.npy", _read_tokens),
    "token manifest": (random_tokens, "manifest.json", _read_tokens),
    "features": (_write_features, "f.safetensors", lambda p: load_features(p / "f.safetensors")),
}


def _file(kind: str, how: int | str | None, folder: Path) -> None:
    make, name, read = FILES[kind]
    path = make(folder / "cache") / name
    if how is not None:
        damage(path, how)
    read(folder / "cache")


def damage(path: Path, how: int | str) -> None:
    """Empty, remove or replace a file, or change bytes of it as a seed says."""
    import os

    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "empty":
        path.touch()
    elif how == "folder":
        path.mkdir()
    elif how == "fifo":
        os.mkfifo(path)
    elif how != "gone":
        draw = random.Random(how)
        before = bytes(content)
        for _ in range(draw.randint(1, 6)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.4:
            del content[draw.randrange(len(content)) :]
        path.write_bytes(content if bytes(content) != before else before[1:])


def _tokens(change: Callable[[np.ndarray], np.ndarray], told: bool, folder: Path) -> None:
    cache = random_tokens(folder / "cache")
    path = cache / "train-00001.npy"
    np.save(path, change(np.load(path)))
    if told:
        manifest = read_json(cache / "manifest.json")
        manifest["shards"]["train"][1]["hash"] = file_hash(path)
        write_json(cache / "manifest.json", manifest)
    _read_tokens(cache)


def _labels(labels: np.ndarray, folder: Path) -> None:
    cache = random_tokens(folder / "cache")
    np.save(cache / "train-labels.npy", labels)
    _read_tokens(cache)


def _features(features: dict[str, torch.Tensor], folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(features, folder / "f.safetensors")
    load_features(folder / "f.safetensors")


def _manifest(kind: str, change: Callable[[dict], Any], folder: Path) -> None:
    make, name, read = FILES[kind]
    path = make(folder / "cache") / name
    manifest = read_json(path)
    changed = change(manifest)
    write_json(path, manifest if changed is None else changed)
    read(folder / "cache")


TOKENS = {
    "short": lambda a: a[:-1],
    "long": lambda a: np.concatenate([a, a]),
    "another grid": lambda a: a[:, :, :36],
    "another view": lambda a: a[:, :1],
    "int64": lambda a: a.astype(np.int64),
    "float": lambda a: a.astype(np.float32),
    "flat": lambda a: a.reshape(-1),
    "codes that there are not": lambda a: a + 60_000,
    "objects": lambda a: np.array([{}], dtype=object),
    "none": lambda a: a[:0],
}
LABELS = {
    "few": np.zeros(3, np.int32),
    "many": np.zeros(300, np.int32),
    "negative": np.full(20, -1, np.int32),
    "two axes": np.zeros((20, 1), np.int32),
    "float": np.zeros(20, np.float32),
    "text": np.array(["a"] * 20),
    "objects": np.array([{}] * 20, dtype=object),
    "a number": np.int32(3),
}
FEATURES = {
    "NaN": {"features": torch.full((4, 3), torch.nan)},
    "infinite logits": {"features": torch.ones(4, 3), "logits": torch.full((4, 2), torch.inf)},
    "another name": {"feature": torch.ones(4, 3)},
    "one more": {"features": torch.ones(4, 3), "more": torch.ones(4, 3)},
    "flat": {"features": torch.ones(4)},
    "integers": {"features": torch.ones(4, 3, dtype=torch.long)},
    "logits of others": {"features": torch.ones(4, 3), "logits": torch.ones(5, 2)},
    "none": {},
}
MANIFESTS: dict[str, Callable[[dict], Any]] = {
    "a list": lambda m: [m],
    "null": lambda m: [],
    "no shards": lambda m: m.pop("shards") and None,
    "shards of text": lambda m: m.update(shards="x"),
    "no split": lambda m: m["shards"].pop("train") and None,
    "an empty split": lambda m: m["shards"].update(train=[]),
    "no hash": lambda m: m["shards"]["train"][0].pop("hash") and None,
    "another hash": lambda m: m["shards"]["train"][0].update(hash="0" * 64),
    "no file": lambda m: m["shards"]["train"][0].pop("file") and None,
    "another file": lambda m: m["shards"]["train"][0].update(file="nothing"),
    "a file that is a number": lambda m: m["shards"]["train"][0].update(file=7),
    "a count of text": lambda m: m["shards"]["train"][0].update(count="many"),
    "a count too large": lambda m: m["shards"]["train"][0].update(count=10**9),
    "a negative count": lambda m: m["shards"]["train"][0].update(count=-5),
    "NUL in a name": lambda m: m["shards"]["train"][0].update(file="a\0b"),
}
