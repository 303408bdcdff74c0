"""The loop: a killed run ends with the bytes of one that was not. The tasks: what a step trains."""

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.classifier import Classifier, ClassifierConfig
from pipeline.errors import UserError
from pipeline.runtime.files import write_json
from pipeline.tokenizer import TokenizerConfig
from pipeline.tokens import TokenCache, cached_code_usage
from pipeline.training.classifier import ClassifierTask, accuracy
from pipeline.training.loop import Ema, RunDirSession, load_checkpoint, train
from pipeline.training.tokenizer import TokenizerTask
from pipeline.training.transformer import TransformerTask, transformer_config

CPU = torch.device("cpu")


class ToyTask:
    """A linear fit with momentum and noise from the global generator, as dropout's."""

    def __init__(self, nan_loss_at: int = -1, nan_weights_at: int = -1):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.nan_loss_at, self.nan_weights_at = nan_loss_at, nan_weights_at
        self.steps_taken = []

    def step(self, step: int) -> dict[str, torch.Tensor]:
        self.steps_taken.append(step)
        loss = (self.model(torch.randn(4, 3)) - 1).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if step == self.nan_weights_at:
            with torch.no_grad():
                self.model.weight.fill_(torch.nan)
        return {"loss": loss * (torch.nan if step == self.nan_loss_at else 1)}

    def evaluate(self, step: int) -> dict[str, float]:
        return {"norm": self.model.weight.norm().item(), "drawn": torch.rand(()).item()}

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


class Killed(BaseException):
    """A process that dies."""


class KilledAfter(RunDirSession):
    """Dies right after its k-th checkpoint is on disk."""

    def __init__(self, folder, k: int):
        super().__init__(folder)
        self.left = k

    def save(self, state, row):
        super().save(state, row)
        self.left -= 1
        if not self.left:
            raise Killed


def fit(task, session, steps=11, every=3):
    return train(task, name="toy", steps=steps, every=every, seed=7, session=session)


def weight_bytes(module: nn.Module | dict) -> bytes:
    state = module if isinstance(module, dict) else module.state_dict()
    buffer = io.BytesIO()
    for name in sorted(state):
        buffer.write(name.encode() + state[name].detach().contiguous().numpy().tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_interrupted_training_ends_with_the_same_bytes(tmp_path, saves):
    straight = ToyTask()
    history = fit(straight, RunDirSession(tmp_path / "straight"))
    with pytest.raises(Killed):
        fit(ToyTask(), KilledAfter(tmp_path / "killed", saves))
    rows = []
    resumed = ToyTask()
    again = fit(resumed, RunDirSession(tmp_path / "killed", on_row=rows.append))
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert again == history
    assert rows == history[saves:]
    assert resumed.steps_taken == list(range(min(3 * saves, 11), 11))


def test_history_averages_the_losses_of_each_interval(tmp_path):
    class Counting(ToyTask):
        def step(self, step):
            return {"loss": torch.tensor(float(step))}

    history = fit(Counting(), RunDirSession(tmp_path), steps=8, every=3)
    assert [(row["step"], row["loss"]) for row in history] == [(3, 1.0), (6, 4.0), (8, 6.5)]


def test_every_step_has_its_own_noise(tmp_path):
    drawn = []

    class Drawing(ToyTask):
        def step(self, step):
            drawn.append(torch.rand(()).item())
            return {"loss": torch.zeros(())}

    fit(Drawing(), RunDirSession(tmp_path / "a"))
    first, drawn[:] = list(drawn), []
    assert len(set(first)) == 11
    session = RunDirSession(tmp_path / "b")
    session.rank = 1
    fit(Drawing(), session)
    assert not set(first) & set(drawn)  # workers draw differently


@pytest.mark.parametrize("bad_step", [4, 5])
def test_nan_loss_names_the_steps_and_keeps_the_checkpoint_before(tmp_path, bad_step):
    with pytest.raises(UserError, match="loss became nan between steps 3 and 6") as error:
        fit(ToyTask(nan_loss_at=bad_step), RunDirSession(tmp_path))
    assert "\n" not in str(error.value)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 3 and len(state["history"]) == 1
    assert all(v.isfinite().all() for v in state["task"]["model"].values())


def test_weights_that_turn_nan_at_a_checkpoint_do_not_replace_the_good_one(tmp_path):
    """The last update of an interval shows in no loss yet, but in the measurements."""
    with pytest.raises(UserError, match="norm became nan between steps 3 and 6"):
        fit(ToyTask(nan_weights_at=5), RunDirSession(tmp_path))
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3


def test_finished_run_is_not_trained_again(tmp_path):
    history = fit(ToyTask(), RunDirSession(tmp_path))
    task = ToyTask()
    assert fit(task, RunDirSession(tmp_path)) == history
    assert task.steps_taken == []


def test_ema_closed_form():
    module = nn.Linear(1, 1, bias=False)
    values = [3.0, -1.0, 4.0, 1.0, -5.0]
    nn.init.zeros_(module.weight)
    ema, wanted = Ema(module, decay=0.3), 0.0
    for step, value in enumerate(values):
        with torch.no_grad():
            module.weight.fill_(value)
        ema.update(module, step)
        decay = min(0.3, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
        assert ema.weights["weight"].item() == pytest.approx(wanted, rel=1e-5)
    assert module.weight.item() == -5  # the module itself is untouched


# --- the transformer's task -----------------------------------------------------------------------


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
    options = {"schedule": "cosine", "seed": 3, "device": CPU} | options
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
    straight = transformer_task(params, tokens_dir)
    history = fit(straight, RunDirSession(tmp_path / "straight"), steps=4, every=2)
    with pytest.raises(Killed):
        fit(transformer_task(params, tokens_dir), KilledAfter(tmp_path / "b", 1), 4, 2)
    resumed = transformer_task(params, tokens_dir)
    assert fit(resumed, RunDirSession(tmp_path / "b"), steps=4, every=2) == history
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


# --- the tokenizer's and the classifier's task ----------------------------------------------------


def image_batches(step: int):
    noise = torch.Generator().manual_seed(step)
    images = torch.randint(256, (6, 1, 8, 8), generator=noise).to(torch.uint8)
    return images, torch.arange(6) % 3


def tokenizer_task(make_params, **changes) -> TokenizerTask:
    values = {"filters": 32, "multipliers": [1, 1], "res_blocks": 1, "embedding_dim": 4}
    values |= {"codebook_size": 256, "bf16": False, "discriminator_filters": 4}
    values |= {"adversarial_start": 1, "r1_every": 2, "revive_after": 2}
    params = make_params(data={"image_size": 28}, tokenizer=values | changes).tokenizer
    torch.manual_seed(0)
    classifier = Classifier(ClassifierConfig("small", 1, 3, 4)).eval().requires_grad_(False)
    config = TokenizerConfig(1, 32, (1, 1), 1, 4, 256)
    images = image_batches(99)[0]
    return TokenizerTask(config, params, classifier, image_batches, images, seed=1, device=CPU)


def test_interrupted_tokenizer_ends_with_the_same_bytes(make_params, tmp_path):
    """Codes are revived at step 4, by what was counted before the interruption at step 3."""

    def task():
        return tokenizer_task(make_params, revive_after=4)

    straight = task()
    history = fit(straight, RunDirSession(tmp_path / "a"), steps=6, every=3)
    with pytest.raises(Killed):
        fit(task(), KilledAfter(tmp_path / "b", 1), steps=6, every=3)
    resumed = task()
    assert fit(resumed, RunDirSession(tmp_path / "b"), steps=6, every=3) == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)
    assert weight_bytes(resumed.discriminator) == weight_bytes(straight.discriminator)
    assert torch.equal(resumed.idle, straight.idle) and resumed.idle.any()


def test_discriminator_joins_at_its_step(make_params):
    task = tokenizer_task(make_params, adversarial_start=2)
    before = weight_bytes(task.discriminator)
    assert not {"adversarial", "discriminator"} & set(task.step(0))
    task.step(1)
    assert weight_bytes(task.discriminator) == before
    assert {"adversarial", "discriminator"} <= set(task.step(2))
    assert weight_bytes(task.discriminator) != before


def test_codes_are_revived_after_their_time(make_params):
    task = tokenizer_task(make_params, revive_after=2, lr=1e-8)
    task.step(0)
    idle = task.idle == 1
    assert idle.any()
    before = task.model.quantizer.codebook.detach().clone()
    task.step(1)
    moved = (task.model.quantizer.codebook - before).abs().amax(dim=1) > 1e-5
    assert not moved.any()
    dead = task.idle == 2
    assert dead.any()
    task.step(2)
    moved = (task.model.quantizer.codebook - before).abs().amax(dim=1) > 1e-5
    assert torch.equal(moved, dead)


def test_classifier_resumes_and_learns(make_params, tmp_path):
    params = make_params(classifier={"steps": 6, "batch_size": 6}).classifier
    config = ClassifierConfig("small", 1, 3, 4)

    def task():
        return ClassifierTask(config, params, image_batches, image_batches(0), seed=0, device=CPU)

    straight = task()
    history = fit(straight, RunDirSession(tmp_path / "a"), steps=6, every=3)
    with pytest.raises(Killed):
        fit(task(), KilledAfter(tmp_path / "b", 1), steps=6, every=3)
    resumed = task()
    assert fit(resumed, RunDirSession(tmp_path / "b"), steps=6, every=3) == history
    assert weight_bytes(resumed.model) == weight_bytes(straight.model)


def test_accuracy_counts():
    class Fixed(Classifier):
        def forward(self, images):
            return images.flatten(1)[:, :6]

    model = Fixed(ClassifierConfig("small", 1, 6, 4))
    rows = torch.tensor([[9, 1, 2, 3, 4, 5], [9, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]])
    images = rows.to(torch.uint8).view(3, 1, 1, 6)
    top1, top5 = accuracy(model, images, torch.tensor([0, 5, 0]), CPU, batch_size=2)
    assert (top1, top5) == (1 / 3, 2 / 3)
