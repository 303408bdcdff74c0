"""Hostile weights: published models, released checkpoints, reference statistics."""

import io
import random
import struct
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from pipeline.decoding import DecodingSettings, generate
from pipeline.evaluation.fid import load_statistics
from pipeline.runtime.files import read_json, write_json
from pipeline.tokenizer import Tokenizer
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.published import load_model, save_model
from pipeline.weights.released.checkpoint import load_pretrained
from tests.damage import no_file
from tests.fuzzing import Case
from tests.pretrained_files import PUBLISHED, TOKENIZER
from tests.release import Port, flax_bytes, flax_tokenizer

SETTINGS = DecodingSettings(iterations=2, schedule="cosine", choice_temperature=1.0)


def cases(random: random.Random) -> list[Case]:
    torch.manual_seed(0)
    made = [Case("a published model", "accept", _published)]
    for change in CONFIGS:
        made.append(Case(f"config {change}"[:60], "refuse", partial(_config, change)))
    for value in (torch.nan, torch.inf, -torch.inf):
        for name in ("vocabulary_bias", "blocks.0.mlp_in.weight", "position_embedding"):
            made.append(Case(f"publish {value}", "refuse", partial(_publish_bad, name, value)))
            made.append(Case(f"load {value}", "refuse", partial(_load_bad, name, value)))
    for value, name in ((torch.nan, "vocabulary_bias"), (torch.inf, "blocks.0.mlp_in.weight")):
        made.append(Case(f"decode {value}", "refuse", partial(_decode_bad, name, value)))
    files = _released()
    for kind, content in files.items():
        made.append(Case(f"released {kind}", "accept", partial(_pretrained, content)))
        for number in range(12):
            damaged = _damaged(content, random)
            made.append(Case(f"{kind} {number}", "either", partial(_pretrained, damaged)))
        for kept in (0, 1, 9, len(content) // 2, len(content) - 1):
            run = partial(_pretrained, content[:kept])
            made.append(Case(f"{kind} of {kept} bytes", "refuse", run))
    for name, content in NO_WEIGHTS.items():
        made.append(Case(name, "refuse", partial(_pretrained, content)))
    for name in ("fifo", "folder", "zero"):
        made.append(Case(f"weights: {name}", "refuse", partial(_no_file, name)))
    for name, arrays in STATISTICS.items():
        made.append(Case(f"statistics: {name}", "refuse", partial(_statistics, arrays)))
    return [*made, Case("statistics", "accept", partial(_statistics, _pair()))]


def _model(folder: Path) -> Path:
    torch.manual_seed(0)
    weights = MaskGitTransformer(PUBLISHED).state_dict()
    save_model(folder / "model", "transformer", PUBLISHED, weights)
    return folder / "model"


def _published(folder: Path) -> None:
    load_model(_model(folder), "transformer")


def _config(change: dict[str, Any], folder: Path) -> None:
    model = _model(folder)
    config = read_json(model / "config.json") | change
    write_json(model / "config.json", {k: v for k, v in config.items() if v != "gone"})
    load_model(model, "transformer")


def _bad(name: str, value: float) -> MaskGitTransformer:
    torch.manual_seed(0)
    network = MaskGitTransformer(PUBLISHED).eval()
    with torch.no_grad():
        dict(network.named_parameters())[name].flatten()[0] = value
    return network


def _publish_bad(name: str, value: float, folder: Path) -> None:
    save_model(folder / "model", "transformer", PUBLISHED, _bad(name, value).state_dict())


def _load_bad(name: str, value: float, folder: Path) -> None:
    model = _model(folder)
    weights = {k: v.contiguous() for k, v in _bad(name, value).state_dict().items()}
    (model / "model.safetensors").write_bytes(save(weights))
    load_model(model, "transformer")


def _decode_bad(name: str, value: float, folder: Path) -> None:
    generate(_bad(name, value), torch.tensor([0, 1]), SETTINGS, seed=0)


def _released() -> dict[str, bytes]:
    torch.manual_seed(0)
    port = io.BytesIO()
    torch.save(Port(TOKENIZER).state_dict(), port)
    generator = torch.Generator().manual_seed(0)
    tree = flax_tokenizer(torch.rand(1, 8, 8, 1, generator=generator), TOKENIZER)[0]
    ours = save({k: v.contiguous() for k, v in Tokenizer(TOKENIZER).state_dict().items()})
    return {"flax": flax_bytes({"params": tree}), "port": port.getvalue(), "safetensors": ours}


def _damaged(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        where = draw.choice([draw.randrange(len(changed)), draw.randrange(min(200, len(changed)))])
        if draw.random() < 0.8:
            changed[where] = draw.randrange(256)
        else:
            del changed[where : where + draw.randint(1, 50)]
    return bytes(changed)


def _pretrained(content: bytes, folder: Path) -> None:
    (folder / "weights").write_bytes(content)
    weights = load_pretrained(folder / "weights", TOKENIZER)
    assert all(weight.isfinite().all() for weight in weights.values())


def _no_file(what: str, folder: Path) -> None:
    path = folder / "weights"
    no_file(what, path)
    load_pretrained(path, TOKENIZER)


def _pair() -> dict[str, np.ndarray]:
    values = np.random.default_rng(0).normal(size=(40, 6))
    return {"mu": values.mean(axis=0), "sigma": np.cov(values, rowvar=False)}


def _statistics(arrays: dict[str, np.ndarray] | bytes, folder: Path) -> None:
    path = folder / "statistics.npz"
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez(path, **arrays)
    load_statistics(path)


def _bomb() -> bytes:
    """An archive of 1 MB that unpacks to 1.2 GB."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sigma.npy", b"")
        with archive.open("mu.npy", "w", force_zip64=True) as out:
            header = {"descr": "<f8", "fortran_order": False, "shape": (150_000_000,)}
            np.lib.format.write_array_header_1_0(out, header)
            for _ in range(120):
                out.write(bytes(10_000_000))
    return content.getvalue()


CONFIGS = [{"layers": "gone"}, {"layers": 10**9}, {"layers": -1}, {"hidden": 10**12}, {"heads": 0}]
CONFIGS += [{"heads": "two"}, {"hidden": 1e300}, {"surprise": 1}, {"kind": "gone"}, {"kind": [1]}]
CONFIGS += [{"kind": "classifier"}, {"num_tokens": 5}, {"dropout": None}, {"mlp": [1, 2]}]
CONFIGS += [{"num_classes": True}, {"codebook_size": 65_000}, {"dropout": "0.1"}]
NO_WEIGHTS = {
    "text": b"weights, perhaps",
    "HTML": b"<html>404</html>",
    "a header of 2^60 bytes": struct.pack("<Q", 2**60) + b'{"a":1}',
    "a header that is no JSON": struct.pack("<Q", 8) + b"{notjson",
    "a map of 2^32 keys": b"\x81\xa6params\xdf\xff\xff\xff\xff",
    "deep maps": b"\x81\xa1a" * 20_000 + b"\x01",
    "a pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "an empty zip": b"PK\x05\x06" + bytes(18),
}
_SIGMA = _pair()["sigma"]
STATISTICS: dict[str, Any] = {
    "NaN": {"mu": _pair()["mu"], "sigma": np.full((6, 6), np.nan)},
    "an infinite mean": {"mu": np.full(6, np.inf), "sigma": _SIGMA},
    "asymmetric": {"mu": np.zeros(6), "sigma": _SIGMA + np.triu(np.ones((6, 6)), 1)},
    "a negative variance": {"mu": np.zeros(6), "sigma": -_SIGMA},
    "complex": {"mu": np.zeros(6), "sigma": _SIGMA + 0.1j},
    "text": {"mu": np.array(["a"] * 6), "sigma": _SIGMA},
    "objects": {"mu": np.array([{}] * 6, dtype=object), "sigma": _SIGMA},
    "two sizes": {"mu": np.zeros(5), "sigma": _SIGMA},
    "one array": {"mu": np.zeros(6)},
    "no arrays": {},
    "flat": {"mu": np.zeros(6), "sigma": np.zeros(36)},
    "no dimension": {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
    "a scalar": {"mu": np.float64(0), "sigma": np.float64(1)},
    "a bomb": _bomb(),
    "no archive": b"PK\x03\x04 not one",
}
