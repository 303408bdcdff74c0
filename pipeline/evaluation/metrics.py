"""FID, Inception Score (torchmetrics) and improved precision/recall (torch-fidelity), from features
that were computed once."""

import warnings

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.evaluation.features import Features
from pipeline.seeds import mix


class _Precomputed(nn.Module):
    """Stands in for a feature extractor: what goes in has been extracted already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(samples: Tensor, reference: Tensor) -> float:
    """Fréchet distance of Gaussians fitted to features (M, F) and (R, F).

    Raises:
        UserError: too few samples for a covariance.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    for name, features in (("samples", samples), ("reference images", reference)):
        count, dimension = features.shape
        if count < dimension + 1:
            raise UserError(
                f"FID: {count} {name} cannot give a covariance of {dimension}-dimensional "
                f"features; use at least {dimension + 1} (sweep.samples, evaluation.samples)"
            )
    metric = FrechetInceptionDistance(feature=_Precomputed(samples.shape[1])).set_dtype(
        torch.float64
    )
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    return max(metric.compute().item(), 0.0)


def inception_score(logits: Tensor, splits: int, seed: int) -> float:
    """exp E KL(p(y|x) ‖ p(y)) from logits (M, classes), mean over seeded random splits."""
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # Of buffers that are small here, and of the spread over one split, which is not used.
        warnings.simplefilter("ignore")
        torch.manual_seed(mix(seed, "is_splits"))
        metric = InceptionScore(feature=_Precomputed(logits.shape[1]), splits=splits)
        metric.update(logits.double())
        mean, _ = metric.compute()
    return mean.item()


def precision_recall(samples: Tensor, reference: Tensor, neighbors: int) -> tuple[float, float]:
    """Share of samples in the reference's k-NN manifold, and the reverse (Kynkäänniemi 2019)."""
    from torch_fidelity.metric_prc import calculate_precision_recall_part

    if min(len(samples), len(reference)) <= neighbors:
        raise UserError(
            f"evaluation.neighbors: {neighbors} nearest neighbours need more than {neighbors} "
            f"images on each side; there are {len(samples)} and {len(reference)}"
        )
    return calculate_precision_recall_part(samples, reference, neighbors, batch_size=5000)


def sample_metrics(
    samples: Features,
    reference: Features,
    extractor: str,
    *,
    neighbors: int,
    is_splits: int,
    seed: int,
) -> dict[str, float]:
    """Every metric of a set of samples, each named after its extractor."""
    precision, recall = precision_recall(samples.features, reference.features, neighbors)
    values = {
        "fid": fid(samples.features, reference.features),
        "is": inception_score(samples.logits, is_splits, seed),
        "precision": precision,
        "recall": recall,
    }
    return {f"{name}_{extractor}": value for name, value in values.items()}


def class_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of samples that the reference classifier recognises as their class."""
    return (logits.argmax(dim=1) == labels).double().mean().item()
