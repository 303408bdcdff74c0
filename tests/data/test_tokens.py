"""The token cache: its content, and how training reads it."""

import numpy as np
import torch

from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards, View
from pipeline.data.tokens import TokenCache
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.files import write_json
from pipeline.training.tokens import cache_tokens, cached_code_usage
from pipeline.weights.published import load_model
from tests.errors import refused
from tests.tiny_project import CLASSES, CPU, GRID, with_params


def test_cached_tokens_are_those_of_the_seeded_crops(in_tiny_project, tmp_path):
    params, crops = with_params(tokens={"crops_per_image": 2, "batch_size": 10}), {"train": 2}
    shards = {
        split: cache_tokens(split, count, params, tmp_path, BatchWorkers(CPU))
        for split, count in (crops | {"val": 0}).items()
    }
    write_json(tmp_path / "manifest.json", {"classes": CLASSES, "shards": shards})
    tokenizer = load_model(TOKENIZER, "tokenizer", CPU)
    for split, views in (("train", 2), ("val", 1)):
        cache, images = TokenCache(tmp_path, split), ImageShards(IMAGES, split)
        assert (len(cache), cache.views, cache.num_tokens) == (len(images), views, GRID**2)
        assert cache.shards[0].dtype == np.uint16
        view, indices = View(images, params.data, params.seed), np.arange(len(images))
        for draw in range(views):
            tokens, labels = cache.batch(indices, np.full(len(images), draw))
            shown = view.crops(indices, draw) if split == "train" else view.centers(indices)
            wanted = tokenizer.encode(as_float(shown)).flatten(1)
            assert (tokens == wanted).float().mean() > 0.99  # sums may differ with the batch
            assert labels.tolist() == images.labels.tolist()


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
    with refused(tokens_dir / "train-00001.npy", match="dvc repro cache_tokens"):
        TokenCache(tokens_dir, "train")
