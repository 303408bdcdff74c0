"""Rejection sampling for Table 4 (paper, appendix B): of each class's samples, keeps only the share
that the reference classifier rates highest."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.replicates import Replicate
from pipeline.data.images.shards import SAMPLES, ImageShards, View
from pipeline.data.seeds import generator
from pipeline.evaluation.evaluator import Evaluator, Outputs, kept_of_each, of_rows
from pipeline.experiments.rows import Row
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.files import read_json, write_json

KEYS = ("network", "seed", "selection", "acceptance", "candidates", "samples")


def rejection_rows(
    params: Params, folders: Mapping[Replicate, Path], workers: BatchWorkers
) -> list[Row]:
    """Compute a row for each replicate (training run), acceptance rate and selection. "rejection"
    selects the samples that the classifier rates highest. "random" selects as many samples of each
    class at random, since FID depends on the number of samples. Rows are stored as
    `<acceptance>.json` in the replicates' run directories `folders`.

    The reference classifier also computes `class_accuracy`, so rejection raises this metric by
    construction. Rejection also raises IS if `evaluation.extractor` is the reference classifier.
    """
    evaluator, rows = Evaluator(params, workers), []
    for replicate, folder in folders.items():
        images = View(ImageShards(replicate.samples, SAMPLES), params.data)
        for acceptance in params.rejection.acceptance:
            file = folder / f"{acceptance}.json"
            if not file.exists():
                outputs = evaluator.outputs(images, folder / "outputs")
                rated = _selections(replicate, outputs, images.labels, acceptance, evaluator)
                write_json(file, rated)
            for row in read_json(file):
                rows.append({key: row[key] for key in KEYS} | row)
                what = f"{row['network']} seed {row['seed']}, {row['selection']}"
                share = f"at acceptance rate {100 * acceptance:g}%: {row['samples']} samples kept"
                found = f"{row['class_accuracy']:.1%} recognised as their class"
                print(f"reject: {what} {share}, {found}", flush=True)
    return rows


def _selections(
    replicate: Replicate, outputs: Outputs, labels: Tensor, acceptance: float, evaluator: Evaluator
) -> list[Row]:
    rows, draws = [], generator(replicate.seed, "reject", replicate.network)
    ratings = {
        "rejection": class_log_odds(outputs["class_logits"], labels),
        "random": torch.rand(len(labels), generator=draws),
    }
    for selection, rating in ratings.items():
        kept = select(rating, labels, acceptance)
        row: Row = {"network": replicate.network, "seed": replicate.seed}
        row |= {"selection": selection, "acceptance": acceptance}
        row |= {"candidates": len(labels), "samples": len(kept)}
        chosen = of_rows(outputs, kept)
        scores = evaluator.scores(chosen, labels[kept])
        rows.append(row | scores | evaluator.manifolds(chosen["features"], evaluator.params.seed))
    return rows


def class_log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """From logits (M, classes) and labels (M,), compute the log-odds log(p / (1 − p)) (M,) float64,
    where p is the probability of an image's label. Log-odds and p order images alike, but
    log-odds have no ties where p rounds to 1."""
    own = F.one_hot(labels, logits.shape[1]).bool()
    logits = logits.double()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(dim=1)


def select(ratings: Tensor, labels: Tensor, acceptance: float) -> Tensor:
    """Select the highest rated samples of each class, from the ratings (M,) and labels (M,) of all
    samples. If ratings are equal, the sample with the lower index is preferred. `acceptance` is the
    share of samples to keep, in (0, 1]. Returns indices (kept,) in ascending order."""
    kept = []
    for label, count in enumerate(kept_of_each(labels, acceptance).tolist()):
        members = (labels == label).nonzero()[:, 0]
        order = ratings[members].argsort(descending=True, stable=True)
        kept.append(members[order[:count]])
    return torch.cat(kept).sort().values
