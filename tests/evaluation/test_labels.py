"""The classes of samples that are measured."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.fid import fid
from pipeline.evaluation.labels import proportional_labels
from pipeline.sampling import balanced_labels


def apportioned(count: int, images: list[int]) -> list[int]:
    """Sainte-Laguë's method by hand: the next label is the class with the most images for each of
    its samples, 2k + 1 counted for k; of equal ones the first."""
    taken = [0] * len(images)
    labels = []
    for _ in range(count):
        best = max(range(len(images)), key=lambda c: (images[c] / (2 * taken[c] + 1), -c))
        taken[best] += 1
        labels.append(best)
    return labels


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 100),
    st.lists(st.sampled_from([0, 1, 2, 3, 5, 30, 64, 1000]), min_size=1, max_size=12).filter(any),
)
def test_labels_are_apportioned_to_the_classes(count, images):
    assert proportional_labels(count, torch.tensor(images)).tolist() == apportioned(count, images)


def test_fid_holds_other_proportions_against_perfect_samples():
    """As docs/metrics.md says."""
    means = torch.tensor([[0.0], [3.0], [-3.0]]).expand(3, 8)
    noise = torch.Generator().manual_seed(0)

    def features(labels: torch.Tensor) -> torch.Tensor:
        return means[labels] + torch.randn(len(labels), 8, generator=noise)

    images = torch.tensor([8000, 1500, 500])
    reference = features(torch.arange(3).repeat_interleave(images))
    assert fid(features(proportional_labels(3000, images)), reference) < 0.1
    assert fid(features(balanced_labels(3000, 3)), reference) == pytest.approx(11, abs=0.5)
