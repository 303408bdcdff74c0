"""Hostile folders of pictures, read the whole way: listing, split, shards, views."""

import io
import os
import random
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.images.shards import ImageShards
from pipeline.data.images.views import View
from pipeline.data.images.writing import write_manifest, write_shards
from pipeline.prepare.datasets import open_source
from pipeline.prepare.split import stratified_split
from tests.fuzzing import Case
from tests.images import noise_image
from tests.params import make_params

READ = ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM", "JPEG2000")
NOT_READ = ("EPS", "PDF", "ICO", "TGA", "PCX", "SGI", "DDS", "IM", "MSP", "XBM", "ICNS", "QOI")
MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(random: random.Random) -> Image.Image:
    size = random.randint(1, 40), random.randint(8, 40)
    return noise_image(*size, random.choice(["L", "RGB"]), seed=random.randrange(10**6))


def cases(random: random.Random) -> list[Case]:
    one = [(kind, "refuse", content) for kind, content in _refused(random)]
    for number in range(60):
        kind = random.choice(READ)
        content = bytearray(encoded(picture(random), kind))
        for _ in range(random.randint(1, 5)):
            content[random.choice([random.randrange(len(content)), random.randrange(30)])] ^= (
                1 << random.randrange(8)
            )
        if random.random() < 0.4:
            del content[random.randrange(len(content)) :]
        one.append((f"damaged {kind} {number}", "either", bytes(content)))
    one += [(f"good {name}", "accept", content) for name, content in _good(random)]
    made = [Case(name, must, partial(_one, content)) for name, must, content in one]
    for name, build in FOLDERS.items():
        made.append(Case(name, "refuse", partial(_folder, build)))
    for name in STRANGE:
        made.append(Case(f"strange name {name!r}"[:60], "accept", partial(_strange, name)))
    return made


def _refused(random: random.Random):
    for kind in NOT_READ:
        image = noise_image(32, 32).convert("1") if kind in ("MSP", "XBM") else noise_image(32, 32)
        try:
            content = encoded(image, kind)
        except (KeyError, OSError, ValueError):  # this Pillow does not write it
            continue
        yield kind, content
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "JPEG2000", "PPM"):
        content = encoded(noise_image(40, 40), kind)
        yield f"{kind} cut in half", content[: len(content) // 2]
        yield f"{kind} of its first bytes", content[: random.randint(1, 20)]
        if kind != "PPM":  # which has no head, and zeros are black
            yield f"{kind} of zeros after its head", content[:16] + bytes(len(content) - 16)
    numbers = {"int32": np.arange(64, dtype=np.int32), "float": np.linspace(0, 1, 64, dtype="f4")}
    for name, values in numbers.items():
        yield f"{name} TIFF", encoded(Image.fromarray(values.reshape(8, 8)), "TIFF")
    yield "PFM", b"Pf\n8 8\n-1.0\n" + bytes(256)
    sizes = ((1, 20_000), (20_000, 1), (13_400, 13_400), (60_000, 60_000), (2**31 - 1, 5), (0, 5))
    for size in sizes:
        yield f"PNG of {size}", png_of_size(*size)
        yield f"BMP of {size}", bmp_of_size(*size)
    yield "GIF bomb", b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + bytes(50)
    yield "empty file", b""
    yield "text", b"no picture at all\n" * 100
    yield "HTML", b"<html><body>404</body></html>"
    yield "zip", b"PK\x03\x04" + bytes(200)
    yield "SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "noise", random.randbytes(5000)


def _good(random: random.Random):
    for mode in MODES:
        image = noise_image(20, 24)
        sixteen = Image.fromarray(np.asarray(image.convert("L")).astype("u2"))
        image = sixteen if mode == "I;16" else image.convert(mode)
        for kind in ("TIFF",) if mode == "CMYK" else ("PNG", "TIFF"):
            yield f"{mode} {kind}", encoded(image, kind)
    for kind in READ:
        yield kind, encoded(noise_image(21, 19), kind)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation {orientation}", encoded(noise_image(12, 20), "JPEG", exif=exif)
    yield "transparent palette", encoded(noise_image(9, 9).quantize(8), "PNG", transparency=3)
    yield "one pixel", encoded(noise_image(1, 1), "PNG")
    yield "broken EXIF", encoded(noise_image(9, 9), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff")


def png_of_size(width: int, height: int) -> bytes:
    chunk = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + b"\x08\0\0\0\0"
    data = zlib.compress(bytes(1000))
    parts = [chunk, b"IDAT" + data, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(p) - 4).to_bytes(4) + p + zlib.crc32(p).to_bytes(4) for p in parts
    )


def bmp_of_size(width: int, height: int) -> bytes:
    content = bytearray(encoded(noise_image(4, 4), "BMP"))
    content[18:22], content[22:26] = width.to_bytes(4, "little"), height.to_bytes(4, "little")
    return bytes(content)


def read_whole(root: Path, folder: Path) -> None:
    source = open_source(f"folder:{root}", "", 28)
    splits = stratified_split(source, 0.5, seed=0)
    shards = {split: write_shards(source, i, split, 64, folder) for split, i in splits.items()}
    write_manifest(folder, source.class_names, "fuzz", shards)
    for channels in (1, 3):
        data = make_params(data={"image_size": 28, "channels": channels}).data
        for split in splits:
            view = View(ImageShards(folder, split), data)
            list(view.batches(8))
            view.crops(range(len(view.images)), 0)


def save(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_image(16, 16, seed=seed).save(path)


def touched(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _one(content: bytes, folder: Path) -> None:
    for number in range(3):
        save(folder / "set/a" / f"{number}.png", number)
    (folder / "set/a/x.png").write_bytes(content)
    read_whole(folder / "set", folder / "shards")


def _folder(build: Callable[[Path], None], folder: Path) -> None:
    root = folder / "set"
    for number in range(4):
        save(root / "ab"[number % 2] / f"{number}.png", number)
    build(root)
    read_whole(root, folder / "shards")


def _strange(name: bytes, folder: Path) -> None:
    root = os.path.join(os.fsencode(folder), b"set")
    for number in range(3):
        place = os.path.join(root, name, b"%d " % number + name[:200] + b".png")
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as handle:
            noise_image(16, 16, seed=number).save(handle, "PNG")
    read_whole(folder / "set", folder / "shards")


def _splits(**names: list[int]) -> Callable[[Path], None]:
    def build(root: Path) -> None:
        for each in list(root.iterdir()):
            os.rename(each, root.with_name(each.name))
        for name, seeds in names.items():
            for seed in seeds:
                save(root / name / "a" / f"{seed}.png", seed)

    return build


FOLDERS: dict[str, Callable[[Path], object]] = {
    "a FIFO": lambda root: os.mkfifo(root / "a/x.png"),
    "a device": lambda root: (root / "a/x.png").symlink_to("/dev/zero"),
    "a random device": lambda root: (root / "a/x.png").symlink_to("/dev/urandom"),
    "a folder named as a picture": lambda root: (root / "a/x.png").mkdir(),
    "a broken link": lambda root: (root / "a/x.png").symlink_to(root / "nothing.png"),
    "a link to itself": lambda root: (root / "a/x.png").symlink_to(root / "a/x.png"),
    "a sparse file": lambda root: os.truncate(touched(root / "a/x.png"), 2**41),
    "a class that is a loop": lambda root: (root / "c").symlink_to(root),
    "a class that is the root": lambda root: (root / "c").symlink_to("/"),
    "a class twice": lambda root: (root / "c").symlink_to(root / "a"),
    "an empty class": lambda root: (root / "c").mkdir(),
    "a class of HEIC": lambda root: touched(root / "c/x.heic"),
    "a class of one image": lambda root: save(root / "c" / "x.png"),
    "a class of a blank": lambda root: save(root / " " / "x.png"),
    "a class with splits": _splits(**{"a/train/x": [1, 2], "a/val/x": [3]}),
    "two classes shown alike": lambda root: [
        save(root / name / "x.png", seed) for seed, name in enumerate(("q\n", "q\\n"))
    ],
    "validation without training": lambda root: save(root / "val/a/x.png", 9),
    "the same images": _splits(train=[1, 2, 3], val=[1, 2, 3]),
    "a part of training": _splits(train=[1, 2, 3], valid=[2]),
    "two validations": _splits(train=[1, 2], val=[3], validation=[4]),
    "two trainings": _splits(train=[1, 2], training=[3], val=[4]),
    "classes that training lacks": lambda root: [
        save(root / place, seed)
        for seed, place in enumerate(("train/a/1.png", "val/a/2.png", "val/b/3.png"))
    ],
}
STRANGE = [
    b"new\nline",
    b"\xff\xfe\x80",
    b"$\\frac$",
    b"a" * 200,
    "日本語".encode(),
    b"\x1b[31m",
    b" x ",
]
STRANGE += [b"<script>", b"%s%n", b"NUL", b"con.png", b"e\xcc\x81", b"'; DROP TABLE", b"\x7f\x01"]
