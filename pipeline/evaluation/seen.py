"""Images that are measured as they are made. What the networks see in them is kept until a row is
measured, and not the images: 50,000 of 256×256 take 10 GB."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER
from pipeline.evaluation.features import (
    Extractor,
    Features,
    extract,
    open_extractor,
)
from pipeline.evaluation.images import BATCH
from pipeline.runtime.batches import Maker, drop_parts
from pipeline.runtime.files import write_json
from pipeline.weights.published import load_model

Row = dict[str, Any]  # of a result file


class Seen(NamedTuple):
    """What the networks see in a set of M images."""

    samples: Features  # of the main extractor
    recognised: Tensor | None = None  # logits (M, classes) of the reference classifier
    others: Tensor | None = None  # features (M, F) of the second extractor

    @property
    def class_logits(self) -> Tensor:
        """The logits of the reference classifier, where it has looked."""
        assert self.recognised is not None, "the reference classifier has not looked"
        return self.recognised

    def of_rows(self, rows: Tensor) -> "Seen":
        """The same of some of the images, without what the second extractor sees."""
        samples, logits = self.samples, self.class_logits
        return Seen(Features(samples.features[rows], samples.class_logits[rows]), logits[rows])

    @classmethod
    def of(cls, found: dict[str, Tensor]) -> "Seen":
        """What `Networks` have found in every batch."""
        samples = Features(found["features"], found.get("logits"))
        return cls(samples, found.get("recognised", samples.logits), found.get("others"))


class Look(Protocol):
    def __call__(self, images: Tensor, *arguments: object) -> dict[str, Tensor]:
        """Named tensors (B, …), on the CPU, of images (B, C, H, W) uint8 that were made of these
        arguments."""


class Networks:
    """The networks through which images are measured.

    Args:
        judge: the reference classifier; may be the main extractor too.
        second: the second extractor, if it looks too; may be the judge.
    """

    def __init__(self, main: Extractor, judge: Extractor, second: Extractor | None):
        self.main, self.judge, self.second = main, judge, second

    def __call__(self, images: Tensor, *arguments: object) -> dict[str, Tensor]:
        """What `Seen` is made of; names are those that it reads."""
        # Shares of nearly one size: a small last one could depend on the threads (`workers`).
        shares = images.chunk(-(-len(images) // BATCH))
        networks = {each.name: each for each in (self.main, self.judge, self.second) if each}
        seen = {name: extract(network, shares) for name, network in networks.items()}
        features, logits = seen[self.main.name]
        found = {"features": features, "logits": logits}
        if self.judge.name != self.main.name:
            found["recognised"] = seen[self.judge.name].class_logits
        if self.second:
            found["others"] = seen[self.second.name].features
        return {name: tensor for name, tensor in found.items() if tensor is not None}


def open_networks(params: Params, root: Path, second: bool, device: torch.device) -> Networks:
    """The networks of these params, in a worker.

    Args:
        root: the project's folder.
        second: whether the second extractor looks too.
    """
    classifier, evaluation = load_model(root / CLASSIFIER, "classifier", device), params.evaluation

    def opened(name: str) -> Extractor:
        return open_extractor(name, classifier, evaluation, device)

    other = opened(evaluation.second_extractor) if second else None
    return Networks(opened(evaluation.extractor), opened("classifier"), other)


class Shown:
    """Makes images, and gives what is found in them.

    Args:
        maker: of images (B, C, H, W) uint8.
        looks: each opens a `Look`.
    """

    def __init__(self, maker: Maker, looks: Sequence[Maker], device: torch.device):
        self.make, self.looks = maker.open(device), [look.open(device) for look in looks]

    def __call__(self, *arguments: object) -> dict[str, Tensor]:
        # As those that are kept lie in memory, or a convolution of colours could round otherwise.
        images = self.make(*arguments).contiguous()
        found: dict[str, Tensor] = {}
        for look in self.looks:
            found |= look(images, *arguments)
        return found


def keep_row(cell: Path, measure: Callable[[Path], Row]) -> None:
    """Measure a row and keep it in its file, unless an earlier run has.

    Args:
        measure: gives the row; what it sees in images may lie at the path that it is given until
            the row is kept.
    """
    path = cell.with_suffix(".safetensors")
    if not cell.exists():
        write_json(cell, measure(path))
    drop_parts(path)
