"""Small folders of pictures by class, and the folder source that opens them."""

import os
from pathlib import Path

from pipeline.prepare.datasets import open_source
from pipeline.prepare.source import Source
from tests.images import noise_image


def save(place: Path | str, seed: int = 0, kind: str = "PNG") -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "wb") as handle:
        noise_image(8, 8, seed=seed).save(handle, kind)


def two_classes(root: Path) -> Path:
    """A folder of two classes with three images each."""
    for number in range(6):
        save(root / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    return root / "pictures"


def folder_source(root: Path) -> Source:
    return open_source(f"folder:{root}", "nowhere", 28)
