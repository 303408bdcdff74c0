"""Hostile insides of files whose outside is right: headers, chunks, tables, offsets."""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from pipeline.tokenizer import Tokenizer
from pipeline.weights.published import load_model
from tests.fuzz_image_sets import _file
from tests.fuzz_pictures import READ, _one, encoded
from tests.fuzz_weights import _model, _pretrained
from tests.fuzzing import Case
from tests.images import noise_image
from tests.pretrained_files import TOKENIZER

Header = dict[str, Any]


def cases(random: random.Random) -> list[Case]:
    torch.manual_seed(0)
    weights = save({k: v.contiguous() for k, v in Tokenizer(TOKENIZER).state_dict().items()})
    made = [Case("safetensors as it is", "accept", partial(_pretrained, _rewritten(weights)))]
    for name, change in HEADERS.items():
        run = partial(_pretrained, _rewritten(weights, change))
        made += [Case(f"safetensors: {name}", "refuse", run)]
        made += [Case(f"published: {name}", "refuse", partial(_published, change))]
    for name, chunk in CHUNKS.items():
        made.append(Case(f"PNG: {name}", "either", partial(_one, _with_chunk(*chunk))))
    for depth, kind in PIXELS:
        must = "accept" if (depth, kind) in KNOWN_PIXELS else "either"
        run = partial(_one, _png(depth, kind))
        made.append(Case(f"PNG of {depth} bits, type {kind}", must, run))
    for name, content in PPM.items():
        made.append(Case(f"PPM: {name}", "either", partial(_one, content)))
    for kind in READ:
        content = encoded(noise_image(16, 12), kind)
        first, last = sorted(random.sample(range(len(content)), 2))
        for name, odd in (
            ("a part twice", content[:last] + content[first:]),
            ("a part gone", content[:first] + content[last:]),
            ("twice", content + content),
            ("more behind it", content + random.randbytes(1000)),
        ):
            made.append(Case(f"{kind}: {name}", "either", partial(_one, odd)))
    made += [Case("TIFF of pages in a ring", "either", partial(_one, _ring()))]
    return [*made, Case("npz bomb", "refuse", partial(_file, "npz", _npz_bomb()))]


Change = Callable[[Header, str, str], object]


def _rewritten(content: bytes, change: Change = lambda *_: 0) -> bytes:
    """A safetensors file with another header."""
    size = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    first, second = [name for name in header if name != "__metadata__"][:2]
    change(header, first, second)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _published(change: Change, folder: Path) -> None:
    """A model of ours, changed."""
    model = _model(folder)
    file = model / "model.safetensors"
    file.write_bytes(_rewritten(file.read_bytes(), change))
    load_model(model, "transformer")


HEADERS: dict[str, Change] = {
    "offsets of another": lambda h, a, b: h[a].update(data_offsets=h[b]["data_offsets"]),
    "offsets reversed": lambda h, a, b: h[a].update(data_offsets=h[a]["data_offsets"][::-1]),
    "negative offsets": lambda h, a, b: h[a].update(data_offsets=[-4, 0]),
    "offsets beyond the end": lambda h, a, b: h[a].update(data_offsets=[0, 2**62]),
    "offsets that are no integers": lambda h, a, b: h[a].update(data_offsets=[0.5, 4.5]),
    "a shape of 2^62": lambda h, a, b: h[a].update(shape=[2**62, 4]),
    "a negative shape": lambda h, a, b: h[a].update(shape=[-1]),
    "an unknown type": lambda h, a, b: h[a].update(dtype="F13"),
    "integers": lambda h, a, b: h[a].update(dtype="I32"),
    "another name": lambda h, a, b: h.update({"evil": h.pop(a)}),
    "a name with NUL": lambda h, a, b: h.update({"a\0b": h.pop(a)}),
    "a tensor less": lambda h, a, b: h.pop(a),
}


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _with_chunk(name: bytes, data: bytes) -> bytes:
    png = encoded(noise_image(24, 20), "PNG")
    place = png.index(b"IDAT") - 4
    return png[:place] + _chunk(name, data) + png[place:]


_ZEROS = zlib.compress(bytes(100_000_000), 9)
CHUNKS = {
    "a bomb of text": (b"zTXt", b"k\0\0" + _ZEROS),
    "a bomb of international text": (b"iTXt", b"k\0\1\0\0\0" + _ZEROS),
    "a bomb of a profile": (b"iCCP", b"k\0\0" + _ZEROS),
    "a bomb of pixels": (b"IDAT", _ZEROS),
    "a second header": (b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0)),
    "animation without frames": (b"acTL", struct.pack(">II", 0, 0)),
    "animation of 2^32 frames": (b"acTL", struct.pack(">II", 2**32 - 1, 0)),
}
KNOWN_PIXELS = {(1, 0), (2, 0), (4, 0), (8, 0), (16, 0), (8, 2), (16, 2)}
KNOWN_PIXELS |= {(8, 4), (16, 4), (8, 6), (16, 6)}
PIXELS = sorted(KNOWN_PIXELS | {(3, 0), (8, 1), (8, 3), (8, 5), (32, 0), (0, 0)})


def _png(depth: int, kind: int) -> bytes:
    channels = {2: 3, 4: 2, 6: 4}.get(kind, 1)
    rows = (b"\0" + bytes((channels * depth * 8 + 7) // 8)) * 8
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


PPM = {
    "a maximum of 0": b"P5\n8 8\n0\n" + bytes(64),
    "a large maximum": b"P5\n8 8\n99999999\n" + bytes(64),
    "a negative width": b"P5\n-8 8\n255\n" + bytes(64),
    "few numbers": b"P2\n2 2\n255\n0 1",
    "a long number": b"P2\n2 2\n255\n" + b"9" * 100_000,
    "text": b"P3\n2 2\n255\nabc",
    "a long comment": b"P5\n#" + b"x" * 10**6 + b"\n8 8\n255\n" + bytes(64),
}


def _ring() -> bytes:
    """A TIFF whose first page is also its second."""
    content = bytearray(encoded(noise_image(24, 20), "TIFF"))
    (page,) = struct.unpack("<I", content[4:8])
    (tags,) = struct.unpack("<H", content[page : page + 2])
    content[page + 2 + 12 * tags : page + 6 + 12 * tags] = struct.pack("<I", page)
    return bytes(content)


def _npz_bomb() -> bytes:
    """One image of 1.6 GB in 1.6 MB."""
    content, side = io.BytesIO(), 23_000
    header = {"descr": "|u1", "fortran_order": False, "shape": (1, side, side, 3)}
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as out,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for _ in range(160):
            out.write(bytes(10_000_000))
    return content.getvalue()
