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
    with pytest.raises(UserError, match="dvc repro cache_tokens") as error:
        TokenCache(tokens_dir, "train")
    assert error.value.subject == str(tokens_dir)
