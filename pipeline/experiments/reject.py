"""Table 4: classifier-based rejection sampling (paper, appendix B). Of the samples of each class
the share is kept that the reference classifier rates highest for the class."""

import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.replicates import Replicate
from pipeline.data.seeds import generator
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.fid import BLOCK
from pipeline.evaluation.image_sets import SampleImages
from pipeline.evaluation.labels import kept_of_each
from pipeline.evaluation.outputs import Outputs, Row
from pipeline.runtime.batches import Alone
from pipeline.runtime.files import read_json, write_json

KEYS = ("network", "seed", "selection", "acceptance", "candidates", "samples")
SELECTIONS = ("rejection", "random")


def rejection_rows(params: Params, folders: Mapping[Replicate, Path], workers: Alone) -> list[Row]:
    """A row for every replicate's published samples, acceptance and selection: "rejection", and
    "random" of the same size and classes, since FID falls with the number of samples.

    Where `evaluation.extractor` is the reference classifier itself, the network that selects is the
    one that measures: IS and the recognised share rise by construction.

    Args:
        folders: of each replicate; keeps the rows that are finished, `<acceptance>.json`.
    """
    evaluator, rows = Evaluator(params, workers), []
    for replicate, folder in folders.items():
        candidates = Candidates(replicate, evaluator, folder)
        for acceptance in params.rejection.acceptance:
            cell = folder / f"{acceptance}.json"
            if not cell.exists():
                write_json(cell, candidates.rows(acceptance))
            for row in read_json(cell):
                rows.append({k: row[k] for k in KEYS} | row)
                print(
                    f"reject: {row['network']} seed {row['seed']}, {row['selection']} "
                    f"{acceptance:g}: {row['samples']} samples, {row['class_accuracy']:.1%} "
                    f"recognised",
                    flush=True,
                )
    return rows


class Candidates:
    """A replicate's published samples, and the ratings by which they are selected.

    Args:
        folder: for what is measured of them.
    """

    def __init__(self, replicate: Replicate, evaluator: Evaluator, folder: Path):
        self.replicate, self.evaluator, self.folder = replicate, evaluator, folder
        self.images = SampleImages(replicate.samples, evaluator.params.data)
        self.labels = self.images.labels

    @cached_property
    def outputs(self) -> Outputs:
        return self.evaluator.outputs(self.images, self.folder / "outputs")

    def ratings(self) -> dict[str, Tensor]:
        """Of each selection, (M,): those that are rated highest are kept."""
        draws = generator(self.replicate.seed, "reject", self.replicate.network)
        surest = class_log_odds(self.outputs.class_logits, self.labels)
        ratings = (surest, torch.rand(len(self.labels), generator=draws))
        return dict(zip(SELECTIONS, ratings, strict=True))

    def rows(self, acceptance: float) -> list[Row]:
        """A row for each selection of that share."""
        rows = []
        for selection, rating in self.ratings().items():
            kept = select(rating, self.labels, acceptance)
            row: Row = {"network": self.replicate.network, "seed": self.replicate.seed}
            row |= {"selection": selection, "acceptance": acceptance}
            row |= {"candidates": len(self.labels), "samples": len(kept)}
            rows.append(row | self._metrics(kept))
        return rows

    def _metrics(self, kept: Tensor) -> Row:
        if len(kept) == len(self.labels):
            return self._metrics_of_all
        features, logits, class_logits, _ = self.outputs
        chosen = (on_disk(each, kept, self.folder) for each in (features, logits, class_logits))
        return self._metrics_of(Outputs(*chosen), self.labels[kept])

    @cached_property
    def _metrics_of_all(self) -> Row:
        """Of both selections, where they leave nothing out. ImageNet's features lie on the disk as
        they are."""
        return self._metrics_of(self.outputs, self.labels)

    def _metrics_of(self, outputs: Outputs, labels: Tensor) -> Row:
        scores, seed = self.evaluator.scores(outputs, labels), self.evaluator.params.seed
        return scores | self.evaluator.manifolds(outputs.features, seed)


def on_disk(features: Tensor, rows: Tensor, folder: Path) -> Tensor:
    """Some rows (n, F) of features (M, F) float32, in a file without a name, as the features
    themselves are in one: half of ImageNet's would take 8 GB of memory."""
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in rows.split(BLOCK):
            file.write(features[block].numpy().data)
        file.flush()
        shape = (len(rows), features.shape[1])
        return torch.from_numpy(np.memmap(file, np.float32, mode="c", shape=shape))


def class_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p/(1 − p), (M,) float64, where p = p(label | image) follows from logits (M, classes). It
    ranks samples as p does, but p rounds to 1 for the surest, which would tie."""
    blocks = zip(logits.split(BLOCK), labels.split(BLOCK), strict=True)
    return torch.cat([_block_log_odds(*block) for block in blocks])


def _block_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    own = F.one_hot(labels, logits.shape[1]).bool()
    logits = logits.double()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)


def select(ratings: Tensor, labels: Tensor, acceptance: float) -> Tensor:
    """The highest rated samples of each class, as many as `kept_of_each` says. Of equal ratings the
    earlier sample goes first.

    Args:
        ratings: (M,).
        labels: (M,).
        acceptance: in (0, 1].

    Returns:
        Indices (kept,) in ascending order.
    """
    kept = []
    for label, count in enumerate(kept_of_each(labels, acceptance).tolist()):
        members = (labels == label).nonzero()[:, 0]
        order = ratings[members].argsort(descending=True, stable=True)
        kept.append(members[order[:count]])
    return torch.cat(kept).sort().values
