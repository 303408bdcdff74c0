"""What the networks that measure return for a set of images. Samples are measured as they are drawn
and not stored: 50,000 of 256×256 pixels take 10 GB."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER
from pipeline.evaluation.features import Extractor, extract, open_extractor
from pipeline.evaluation.image_sets import BATCH
from pipeline.runtime.batches import Maker
from pipeline.weights.published import load_model


class Outputs(NamedTuple):
    """What the networks return for M images."""

    features: Tensor  # (M, F) of the main extractor
    logits: Tensor  # (M, classes of the main extractor)
    class_logits: Tensor  # (M, classes of the data set), of the reference classifier
    second: Tensor | None = None  # features (M, G) of the second extractor

    def of_rows(self, rows: Tensor) -> "Outputs":
        """The outputs for some of the images, without the second extractor's."""
        return Outputs(self.features[rows], self.logits[rows], self.class_logits[rows])

    @classmethod
    def of(cls, found: dict[str, Tensor]) -> "Outputs":
        """The tensors of `Networks`; where the reference classifier is the main extractor, its
        logits are among them once."""
        fields = {name: found[name] for name in cls._fields if name in found}
        return cls(**{"class_logits": found["logits"]} | fields)


class Networks:
    """The networks that images are measured with.

    Args:
        main: the extractor of FID, IS and KID.
        judge: the reference classifier.
        second: the second extractor of precision and recall, if it is used.
    """

    def __init__(self, main: Extractor, judge: Extractor, second: Extractor | None = None):
        self.main, self.judge, self.second = main, judge, second

    def __call__(self, images: Tensor, *arguments: object) -> dict[str, Tensor]:
        # In batches of nearly one size: the bits of a small last one could depend on the number of
        # threads (tests/paper/test_kernels.py).
        return self.run(images.chunk(-(-len(images) // BATCH)))

    def run(self, batches: Sequence[Tensor]) -> dict[str, Tensor]:
        """The fields of `Outputs` for image batches (B, C, H, W) uint8, by name."""
        networks = {each.name: each for each in (self.main, self.judge, self.second) if each}
        found = {name: extract(network, batches) for name, network in networks.items()}
        features, logits = found[self.main.name]
        others = found[self.second.name].features if self.second else None
        judged = found[self.judge.name].logits if self.judge.name != self.main.name else None
        outputs = zip(Outputs._fields, (features, logits, judged, others), strict=True)
        return {name: tensor for name, tensor in outputs if tensor is not None}


def open_networks(params: Params, root: Path, second: bool, device: torch.device) -> Networks:
    """The networks that params name.

    Args:
        root: the project's folder.
        second: whether to open the second extractor.
    """
    evaluation = params.evaluation
    classifier = load_model(root / CLASSIFIER, "classifier", device)
    names: list[str] = [evaluation.extractor, "classifier"]
    names += [evaluation.second_extractor] if second else []
    return Networks(*(open_extractor(name, classifier, evaluation, device) for name in names))


class OnTheFly:
    """Makes images, and returns what is measured of them instead of the images.

    Args:
        maker: opens a function that makes images (B, C, H, W) uint8.
        measures: each opens a function of the images and the arguments they were made from, which
            returns tensors (B, …) on the CPU by name.
    """

    def __init__(self, maker: Maker, measures: Sequence[Maker], device: torch.device):
        self.make, self.measures = maker.open(device), [each.open(device) for each in measures]

    def __call__(self, *arguments: object) -> dict[str, Tensor]:
        # Contiguous, as stored images are: for other strides a convolution could round differently.
        images = self.make(*arguments).contiguous()
        found: dict[str, Tensor] = {}
        for measure in self.measures:
            found |= measure(images, *arguments)
        return found
