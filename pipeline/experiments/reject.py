"""Table 4: classifier-based rejection sampling (paper, appendix B). Of the samples of each class
the share is kept that the reference classifier rates highest for the class."""

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import SAMPLES
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.features import Features
from pipeline.evaluation.images import ArrayImages
from pipeline.evaluation.metrics import manifold_metrics
from pipeline.runtime.seeds import generator

NETWORKS = ("transformer", "autoregressive")


def rejection_rows(params: Params, device: torch.device) -> list[dict[str, Any]]:
    """A row for every network, acceptance and selection of its published samples: "rejection", and
    "random" of the same size and classes, since FID falls with the number of samples.

    Where `evaluation.extractor` is the reference classifier itself, the network that selects is the
    one that measures: IS and the recognised share rise by construction.
    """
    evaluator = Evaluator(params, device)
    manifold = partial(
        manifold_metrics,
        reference=evaluator.reference.features,
        extractor=evaluator.extractor.name,
        evaluation=params.evaluation,
        seed=params.seed,
    )
    rows = []
    for network in NETWORKS:
        images = ArrayImages(np.load(SAMPLES / network / "images.npy", mmap_mode="r"))
        labels = torch.from_numpy(np.load(SAMPLES / network / "labels.npy").astype(np.int64))
        features, logits = evaluator.features(images), evaluator.recognised(images)
        ratings = {
            "rejection": class_log_odds(logits, labels),
            "random": torch.rand(len(labels), generator=generator(params.seed, "reject", network)),
        }
        for acceptance in params.rejection.acceptance:
            for selection, rating in ratings.items():
                kept = select(rating, labels, acceptance)
                samples = Features(features.features[kept], features.class_logits[kept])
                row = {"network": network, "selection": selection, "acceptance": acceptance}
                row |= {"candidates": len(labels), "samples": len(kept)}
                row |= evaluator.scores_of(samples, logits[kept], labels[kept])
                row |= evaluator.spreads(samples)
                rows.append(row | manifold(samples.features))
                print(
                    f"reject: {network}, {selection} {acceptance:g}: {len(kept)} samples, "
                    f"{row['class_accuracy']:.1%} recognised",
                    flush=True,
                )
    return rows


def class_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """log p/(1 − p), (M,) float64, where p = p(label | image) follows from logits (M, classes). It
    ranks samples as p does, but p rounds to 1 for the surest, which would tie."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    logits = logits.double()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)


def select(ratings: Tensor, labels: Tensor, acceptance: float) -> Tensor:
    """The highest rated samples of each class: round(acceptance · count) of them, at least one. Of
    equal ratings the earlier sample goes first.

    Args:
        ratings: (M,).
        labels: (M,).
        acceptance: in (0, 1].

    Returns:
        Indices (kept,) in ascending order.
    """
    kept = []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        count = max(1, round(acceptance * len(members)))
        order = ratings[members].argsort(descending=True, stable=True)
        kept.append(members[order[:count]])
    return torch.cat(kept).sort().values
