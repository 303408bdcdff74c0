"""`plan`'s sizes of networks, files and memory against what is really built and saved."""

import pytest
import torch

from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.data.images.shards import write_manifest, write_shards
from pipeline.prepare.datasets import open_source
from pipeline.runtime.batches import Alone
from pipeline.runtime.device import autocast
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.tools.plan.networks import DataSize, plan_networks
from pipeline.tools.plan.storage import token_cache_bytes
from pipeline.training.loop import save_checkpoint
from pipeline.training.tokens import cache_tokens
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config
from pipeline.weights.published import save_model
from tests.images import noise_image
from tests.planned import DIGITS, default_task, network
from tests.pretended import pretended_device


@pytest.mark.parametrize("name", ["tokenizer", "transformer", "autoregressive", "classifier"])
def test_sizes_are_those_of_the_defaults_files(name, make_params, digit_tokens, tmp_path):
    params = make_params(training={"batch_size": 4}, ray={"num_workers": 1})
    planned = network(plan_networks(make_params(), DIGITS), name)
    task = default_task(name, params, digit_tokens)
    task.step(0)
    assert planned.parameters == sum(p.numel() for p in task.model.parameters())

    save_model(tmp_path / "model", name, task.model.config, task.model.state_dict())
    published = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert planned.published == pytest.approx(published, rel=0.01)

    history = [{"step": 100 * i, "loss": 1.0, "val_nll": 1.0, "lr": 0.1} for i in range(12)]
    checkpoint = {"task": task.state_dict(), "step": 1200, "history": history, "run": "a/run"}
    save_checkpoint(checkpoint, tmp_path / "checkpoint.pt")
    live = (tmp_path / "checkpoint.pt").stat().st_size
    assert planned.checkpoint == pytest.approx(live, rel=0.01)


@pytest.mark.parametrize(("name", "side"), [("patch", 28), ("stylegan", 32)])
def test_discriminator_is_the_one_that_is_trained(name, side, make_params, digit_tokens):
    params = make_params(data={"image_size": side}, tokenizer={"discriminator": name})
    planned = network(plan_networks(params, DIGITS), "discriminator")
    task = default_task("tokenizer", params, digit_tokens)
    assert planned.parameters == sum(p.numel() for p in task.discriminator.parameters())
    assert planned.steps == params.tokenizer.steps - params.tokenizer.adversarial_start


def test_token_cache_is_that_of_a_real_one(make_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = make_params(tokens={"batch_size": 16})
    for label in range(2):
        for split, count in (("train", 20), ("val", 5)):
            for i in range(count):
                path = tmp_path / "source" / split / str(label) / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                noise_image(30, 30, "L", seed=i + count).save(path)
    source = open_source(f"folder:{tmp_path}/source", "", params.data.image_size)
    shards = {
        split: write_shards(
            source, [i for i, x in enumerate(source.items) if x.split == split], split, 64, IMAGES
        )
        for split in ("train", "val")
    }
    write_manifest(IMAGES, source.class_names, "folder", shards)
    tokenizer, folder = Tokenizer(tokenizer_config(params)), tmp_path / "tokens"
    save_model(TOKENIZER, "tokenizer", tokenizer.config, tokenizer.state_dict())
    alone = Alone(torch.device("cpu"))
    cache_tokens("train", params.tokens.crops_per_image, params, folder, alone)
    cache_tokens("val", 0, params, folder, alone)
    measured = sum(path.stat().st_size for path in folder.glob("*.npy"))
    assert token_cache_bytes(params, DataSize(40, 10, 2, "test")) == measured


def test_token_cache_counts_every_shard(make_params):
    params = make_params()
    grids = (
        20_000 * params.tokens.crops_per_image + 100
    )  # 3 shards and 1, and a file of labels each
    wanted = grids * 49 * 2 + 20_100 * 4 + 6 * 128
    assert token_cache_bytes(params, DataSize(20_000, 100, 10, "test")) == wanted


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_activations_are_what_autograd_keeps(make_params, dropout):
    config = transformer_config(make_params(transformer={"dropout": dropout}), 10)
    meta = costs.on_meta(lambda: MaskGitTransformer(config))
    real = MaskGitTransformer(config)
    tokens = torch.zeros(8, 49, dtype=torch.long)
    where = torch.zeros(100, dtype=torch.long)
    kept = costs.activation_bytes(real, lambda: real(tokens, tokens.bool(), tokens[:, 0], where))
    planned = costs.activation_bytes(meta, lambda: costs.transformer_forward(meta, 8, 100))
    # Without dropout a CPU's attention in float32 keeps no scores, which others do.
    assert kept == planned if dropout else 0.8 * planned < kept < planned
    hidden = 8 * 50 * config.hidden * 4
    assert kept > 10 * hidden * config.layers


def kept_of_a_tokenizer(params, bf16: bool) -> int:
    """Bytes that autograd keeps of a forward pass on the device that the `gpu` fixture pretends."""
    device, sizes = pretended_device(), {}
    model = Tokenizer(tokenizer_config(params)).to(device)

    def keep(x):
        storage = x.on_cpu.untyped_storage()
        sizes[storage._cdata] = (storage.nbytes(), storage)
        return x

    images = torch.rand(4, 1, 64, 64).to(device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast(device, bf16):
        model(images)
    weights = {p.data.on_cpu.untyped_storage()._cdata for p in model.parameters()}
    return sum(size for key, (size, _) in sizes.items() if key not in weights)


def test_bfloat16_saves_little_where_norms_are_of_groups(gpu, make_params):
    params = make_params(data={"image_size": 64}, tokenizer={"multipliers": [1, 1, 2]})
    saved = kept_of_a_tokenizer(params, bf16=True) / kept_of_a_tokenizer(params, bf16=False)
    assert saved == pytest.approx(costs.BF16_GROUP_NORM, abs=0.02)


def test_memory_is_that_of_float32_where_the_pull_of_the_discriminator_is_logged(make_params):
    def memory(**tokenizer) -> int:
        return network(plan_networks(make_params(tokenizer=tokenizer), DIGITS), "tokenizer").memory

    logged = memory(bf16=True, adversarial_weight=0.1, adversarial_start=0)
    assert logged == memory(bf16=False, adversarial_weight=0.1, adversarial_start=0)
    assert memory(bf16=True, adversarial_weight=0.0) < logged
