"""The transformer's task: what a step trains. The token cache that it reads."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.runtime.files import write_json
from pipeline.tokens import TokenCache, cached_code_usage
from pipeline.training.transformer import TransformerTask, transformer_config
from tests.interruption import straight_and_resumed, weight_bytes


@pytest.fixture
def tiny(make_params):
    def make(**training):
        values = {"steps": 4, "batch_size": 8, "warmup_steps": 2, "checkpoint_every": 2}
        return make_params(
            tokenizer={"codebook_size": 16},
            transformer={"layers": 1, "hidden": 16, "heads": 2, "mlp": 16, "dropout": 0.0},
            training=values | {"bf16": False} | training,
        )

    return make


@pytest.fixture
def tokens_dir(tmp_path):
    """A token cache of 20 + 6 images in two shards, 2 views of 49 tokens each."""
    folder, rng = tmp_path / "tokens", np.random.default_rng(0)
    folder.mkdir()
    shards = {"train": [13, 7], "val": [6]}
    manifest = {"grid": 7, "codebook_size": 16, "shards": {}}
    for split, counts in shards.items():
        listed = []
        for number, count in enumerate(counts):
            file = f"{split}-{number:05d}.npy"
            np.save(folder / file, rng.integers(0, 16, (count, 2, 49)).astype(np.uint16))
            listed.append({"file": file, "count": count})
        manifest["shards"][split] = listed
        np.save(folder / f"{split}-labels.npy", rng.integers(0, 3, sum(counts)).astype(np.int32))
    write_json(folder / "manifest.json", manifest)
    return folder


def transformer_task(params, tokens_dir, **options) -> TransformerTask:
    options = {"schedule": "cosine", "seed": 3, "device": torch.device("cpu")} | options
    return TransformerTask(params, tokens_dir, 3, **options)


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


@pytest.mark.parametrize("step", [0, 1, 2, 7])
def test_workers_share_out_the_batch_of_one(tiny, tokens_dir, step):
    whole = transformer_task(tiny(), tokens_dir)._batch(step)
    ranks = [
        transformer_task(tiny(), tokens_dir, rank=rank, world_size=2)._batch(step)
        for rank in range(2)
    ]
    for alone, shared in zip(whole, zip(*ranks, strict=True), strict=True):
        assert torch.equal(alone, torch.cat(shared))
    tokens, labels, mask = whole
    assert tokens.shape == mask.shape == (8, 49) and labels.shape == (8,)
    assert mask.any(dim=1).all()


def test_mean_gradient_of_two_workers_is_that_of_one(tiny, tokens_dir):
    """What data-parallel training averages; dropout and clipping are off."""
    params = tiny(grad_clip=None)
    tasks = [transformer_task(params, tokens_dir)]
    tasks += [transformer_task(params, tokens_dir, rank=r, world_size=2) for r in range(2)]
    losses = [task.step(0)["loss"].item() for task in tasks]
    assert losses[0] == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-5)
    one, *two = ([p.grad for p in task.model.parameters()] for task in tasks)
    for alone, a, b in zip(one, *two, strict=True):
        torch.testing.assert_close(alone, (a + b) / 2, atol=1e-6, rtol=1e-4)


def test_batches_and_masks_change_with_step_seed_and_schedule(tiny, tokens_dir):
    batch = transformer_task(tiny(), tokens_dir)._batch(0)
    for other in (
        transformer_task(tiny(), tokens_dir)._batch(1),
        transformer_task(tiny(), tokens_dir, seed=4)._batch(0),
    ):
        assert not torch.equal(batch[0], other[0]) and not torch.equal(batch[2], other[2])
    other = transformer_task(tiny(), tokens_dir, schedule="linear")._batch(0)
    assert torch.equal(batch[0], other[0]) and not torch.equal(batch[2], other[2])


def test_min_masking_rate_reaches_the_masks(tiny, tokens_dir):
    task = transformer_task(tiny(min_masking_rate=0.5), tokens_dir, schedule="logarithmic")
    counts = torch.cat([task._batch(step)[2].sum(dim=1) for step in range(10)])
    assert counts.min() == math.ceil(0.5 * 49)


@pytest.mark.parametrize("loss_on", ["masked", "all"])
def test_loss_is_that_of_the_chosen_positions(tiny, tokens_dir, loss_on):
    """However the head's rows are picked and padded."""
    task = transformer_task(tiny(loss_on=loss_on), tokens_dir)
    tokens, labels, mask = task._batch(0)
    model = task.model
    with torch.no_grad():
        logits = model.logits(model.encode(model.sequence(tokens, mask, labels))[:, 1:])
    chosen = mask if loss_on == "masked" else torch.ones_like(mask)
    wanted = [
        nn.functional.cross_entropy(logits[b][chosen[b]], tokens[b][chosen[b]], label_smoothing=0.1)
        for b in range(8)
    ]
    assert task.step(0)["loss"].item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-5)


def test_warm_up_weight_decay_and_betas(tiny, tokens_dir):
    params = tiny(warmup_steps=4, lr=1e-3)
    task = transformer_task(params, tokens_dir)
    rates = []
    for step in range(6):
        rates.append(task.optimizer.param_groups[0]["lr"])
        task.step(step)
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])
    decayed, others = task.optimizer.param_groups
    assert decayed["weight_decay"] == 4.5e-2 and others["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in decayed["params"]) and len(others["params"]) > 0
    assert decayed["betas"] == (0.9, 0.96)
    count = len(decayed["params"]) + len(others["params"])
    assert count == len(list(task.model.parameters()))


def test_interrupted_transformer_ends_with_the_same_bytes(tiny, tokens_dir, tmp_path):
    params = tiny().model_copy(
        update={"transformer": tiny().transformer.model_copy(update={"dropout": 0.1})}
    )

    def task():
        return transformer_task(params, tokens_dir)

    (straight, history), (resumed, again) = straight_and_resumed(task, tmp_path, steps=4, every=2)
    assert again == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert weight_bytes(resumed.ema.weights) == weight_bytes(straight.ema.weights)
    assert weight_bytes(straight.averaged()) == weight_bytes(straight.ema.weights)


def test_averaged_weights_are_those_of_all_steps(tiny, tokens_dir):
    task = transformer_task(tiny(ema_decay=0.2), tokens_dir)
    wanted = task.model.vocabulary_bias.detach().clone()
    for step in range(4):
        task.step(step)
        decay = min(0.2, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * task.model.vocabulary_bias.detach()
    torch.testing.assert_close(task.averaged().vocabulary_bias.detach(), wanted)


def test_transformer_learns_constant_tokens(tiny, tokens_dir):
    for split in ("train-00000", "train-00001", "val-00000"):
        array = np.load(tokens_dir / f"{split}.npy")
        np.save(tokens_dir / f"{split}.npy", np.full_like(array, 5))
    task = transformer_task(tiny(lr=1e-2, ema_decay=0.5), tokens_dir)
    before = task.evaluate(0)["val_nll"]
    for step in range(30):
        task.step(step)
    assert before > 2.5 and task.evaluate(30)["val_nll"] < 0.5


def test_transformer_config_is_the_params(tiny):
    config = transformer_config(tiny(), num_classes=3)
    assert (config.num_tokens, config.codebook_size, config.num_classes) == (49, 16, 3)
    assert (config.layers, config.hidden, config.mask_id) == (1, 16, 19)
