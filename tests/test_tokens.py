"""The token cache, as training reads it."""

import numpy as np
import pytest
import torch

from pipeline.data.tokens import TokenCache
from pipeline.runtime.errors import UserError
from pipeline.training.tokens import cached_code_usage


def test_token_cache_reads_across_shards(tokens_dir):
    cache = TokenCache(tokens_dir, "train")
    assert (len(cache), cache.views, cache.num_tokens) == (20, 2, 49)
    whole = np.concatenate([np.load(tokens_dir / f"train-0000{i}.npy") for i in range(2)])
    labels = np.load(tokens_dir / "train-labels.npy")
    indices, views = np.array([19, 0, 12, 13, 5]), np.array([1, 0, 1, 0, 0])
    tokens, found = cache.batch(indices, views)
    np.testing.assert_array_equal(tokens.numpy(), whole[indices, views])
    assert found.tolist() == labels[indices].tolist()
    assert tokens.dtype == found.dtype == torch.int64
    np.testing.assert_array_equal(cache.everything()[0].numpy(), whole[:, 0])
    usage, perplexity = cached_code_usage(cache, 32)
    assert usage == len(np.unique(whole)) / 32 and 15 < perplexity <= 16


def test_damaged_token_cache_is_one_line(tokens_dir):
    (tokens_dir / "train-00001.npy").unlink()
    with pytest.raises(UserError, match=r"train-00001\.npy.*dvc repro") as error:
        TokenCache(tokens_dir, "train")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["train-00000.npy", "train-labels.npy"])
def test_a_file_with_a_tail_is_not_hashed_for_minutes(tokens_dir, name):
    with open(tokens_dir / name, "r+b") as file:
        file.truncate(2**36)  # of which the disk has a page
    with pytest.raises(UserError, match=rf"{name} is longer than its header says.*dvc repro"):
        TokenCache(tokens_dir, "train")


def test_a_file_is_looked_through_when_its_tokens_are_asked_for(tokens_dir):
    """Not when the cache is opened: ImageNet's has 6 GiB."""
    path = tokens_dir / "train-00001.npy"  # images 13 to 19
    np.save(path, np.load(path)[::-1])
    cache = TokenCache(tokens_dir, "train")
    cache.batch(np.arange(13), np.zeros(13, int))
    with pytest.raises(UserError, match=r"train-00001\.npy is damaged"):
        cache.batch(np.array([2, 15]), np.zeros(2, int))
