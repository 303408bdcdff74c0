"""Real photographs, in colour: from a folder of files to a tokenizer, tokens and a transformer."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.classifier import ClassifierConfig
from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.data.images.batches import ImageBatches
from pipeline.data.images.pixels import as_float, decode_image
from pipeline.data.images.shards import ImageShards, write_manifest, write_shards
from pipeline.data.images.views import View
from pipeline.data.tokens import TokenCache
from pipeline.evaluation.reconstruction import psnr, quality, rebuild
from pipeline.perceptual import open_perceptual
from pipeline.prepare.datasets import open_source
from pipeline.prepare.split import stratified_split
from pipeline.runtime.batches import BatchWorkers
from pipeline.sampling import balanced_labels, sampler
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.training.classifier import ClassifierTask, accuracy
from pipeline.training.tokenizer import TokenizerTask
from pipeline.training.tokens import cache_tokens
from pipeline.training.tokens import write_manifest as write_tokens_manifest
from pipeline.training.transformer import TransformerTask
from pipeline.weights.configs import tokenizer_config
from pipeline.weights.published import save_model
from tests.params import make_params

CPU = torch.device("cpu")
SIDE = 64  # of the pieces, which are shown at a quarter of that


class Photos(NamedTuple):
    pieces: dict[str, np.ndarray]  # by key, (SIDE, SIDE, 3) as they were before they were encoded
    params: Params
    folder: Path  # of shards


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Photos:
    """scikit-learn's two photographs, a temple and a flower, cut into 60 squares each, every other
    one a JPEG, the rest PNGs; read through `folder:` and written as shards."""
    root, pieces = tmp_path_factory.mktemp("photos"), {}
    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for number in range(60):
            row, column = divmod(number, 10)
            top, left = SIDE * row, SIDE * column
            key = f"{name}/{number:02d}.{'png' if number % 2 else 'jpg'}"
            pieces[key] = photo[top : top + SIDE, left : left + SIDE]
            Image.fromarray(pieces[key]).save(root / key, quality=95)

    tokenizer = {"multipliers": [1, 1], "batch_size": 16, "lr": 2e-3, "ema_decay": 0.9}
    tokenizer |= {"steps": 120, "betas": [0.9, 0.99], "entropy_weight": 0.01}
    tokenizer |= {"revive_after": 10, "adversarial_start": 100}
    params = make_params(
        data={"source": f"folder:{root}", "image_size": 16, "channels": 3, "flip": True},
        classifier={"width": 8, "steps": 30, "batch_size": 16, "lr": 1e-2},
        tokenizer=tokenizer,
        tokens={"crops_per_image": 2},
        transformer={"layers": 1, "hidden": 32, "heads": 2, "mlp": 64},
        training={"batch_size": 32, "lr": 1e-2, "warmup_steps": 5, "ema_decay": 0.8},
    )

    source = open_source(params.data.source, "nowhere", params.data.image_size)
    splits, folder = stratified_split(source, 0.2, seed=0), tmp_path_factory.mktemp("shards")
    shards = {split: write_shards(source, i, split, 64, folder) for split, i in splits.items()}
    write_manifest(folder, source.class_names, params.data.source, shards)
    return Photos(pieces, params, folder)


def batches(photos: Photos, batch_size: int) -> ImageBatches:
    return ImageBatches(ImageShards(photos.folder, "train"), photos.params.data, batch_size, seed=0)


def validation(photos: Photos) -> tuple[torch.Tensor, torch.Tensor]:
    return View(ImageShards(photos.folder, "val"), photos.params.data, seed=0).first(24)


@pytest.fixture(scope="module")
def classifier(photos):
    config, params = ClassifierConfig("small", 3, 2, 8), photos.params.classifier
    read = batches(photos, params.batch_size)
    task = ClassifierTask(config, params, read, validation(photos), seed=0, device=CPU)
    for step in range(params.steps):
        task.step(step)
    return task.model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer(photos, classifier) -> Tokenizer:
    """Trained for 120 steps, which makes the tests that ask for it slow ones."""
    params = photos.params.tokenizer
    task = TokenizerTask(
        tokenizer_config(photos.params),
        params,
        open_perceptual("classifier", classifier, CPU),
        batches(photos, params.batch_size),
        validation(photos)[0],
        seed=0,
        device=CPU,
    )
    for step in range(params.steps):
        losses = task.step(step)
    assert {"adversarial", "discriminator"} <= set(losses)
    return task.average.module


@pytest.fixture(scope="module")
def tokens_dir(photos, tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    crops = {"train": photos.params.tokens.crops_per_image, "val": 0}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        IMAGES.parent.mkdir()
        IMAGES.symlink_to(photos.folder)
        save_model(TOKENIZER, "tokenizer", tokenizer.config, tokenizer.state_dict())
        shards = {
            split: cache_tokens(split, number, photos.params, folder, BatchWorkers(CPU))
            for split, number in crops.items()
        }
    write_tokens_manifest(folder, photos.params, "hash", shards, classes=2)
    return folder


def test_shards_hold_the_photographs_in_their_colours(photos):
    """PNGs to the last bit, JPEGs nearly; red is red and blue is blue in what training reads."""
    kinds, keys = {"png": 0, "jpg": 0}, []
    for split, count in (("train", 96), ("val", 24)):
        images = ImageShards(photos.folder, split)
        assert len(images) == count and images.class_names == ["china", "flower"]
        assert np.bincount(images.labels).tolist() == [count / 2, count / 2]
        view = View(images, photos.params.data, seed=0)
        for index in range(count):
            key, content = images.read(index)
            piece, kind = photos.pieces[key].astype(float), key[-3:]
            decoded = np.asarray(decode_image(content, channels=3)).astype(float)
            assert np.abs(decoded - piece).mean() <= {"png": 0, "jpg": 8}[kind]
            shown = view.centers([index])[0].numpy()
            assert shown.shape == (3, 16, 16)
            np.testing.assert_allclose(shown.mean(axis=(1, 2)), piece.mean(axis=(0, 1)), atol=4)
            assert images.class_names[images.labels[index]] == key.split("/")[0]
            kinds[kind] += 1
            keys.append(key)
    assert kinds == {"png": 60, "jpg": 60} and len(set(keys)) == 120


def test_classifier_tells_the_photographs_apart(photos, classifier):
    images, labels = validation(photos)
    assert accuracy(classifier, images.split(10), labels, CPU)[0] >= 18 / 24


@pytest.mark.slow
def test_tokenizer_reconstructs_better_than_the_mean_colour(photos, tokenizer):
    images, _ = validation(photos)
    pixels = as_float(images)
    mean_colour = pixels.mean(dim=(0, 2, 3), keepdim=True)
    flat = psnr((pixels - mean_colour).square().mean().item())
    reconstruction, sums = rebuild(tokenizer, images, CPU)
    assert quality(sums)["psnr"] > flat + 2
    assert reconstruction.shape == (24, 3, 16, 16)
    # And in colour: images that are more red than blue come back so.
    warmth = [(x[:, 0] - x[:, 2]).mean(dim=(1, 2)) for x in (pixels, as_float(reconstruction))]
    assert torch.corrcoef(torch.stack(warmth))[0, 1] > 0.5


@pytest.mark.slow
def test_cached_tokens_are_those_of_the_seeded_crops(photos, tokenizer, tokens_dir):
    for split, views in (("train", 2), ("val", 1)):
        cache, images = TokenCache(tokens_dir, split), ImageShards(photos.folder, split)
        assert (len(cache), cache.views, cache.num_tokens) == (len(images), views, 64)
        assert next(cache.shards()).dtype == np.uint16
        view = View(images, photos.params.data, photos.params.seed)
        for draw in range(views):
            indices = np.arange(len(images))
            tokens, labels = cache.batch(indices, np.full(len(images), draw))
            shown = view.crops(indices, draw) if split == "train" else view.centers(indices)
            wanted = tokenizer.encode(as_float(shown)).flatten(1)
            assert (tokens == wanted).float().mean() > 0.99  # sums may differ with the batch
            assert labels.tolist() == images.labels.tolist()


@pytest.mark.slow
def test_transformer_learns_their_tokens_and_its_samples_are_colour_images(
    photos, tokenizer, tokens_dir
):
    params = photos.params
    task = TransformerTask(params, tokens_dir, seed=0, device=CPU)
    before = task.evaluate(0)["val_nll"]
    for step in range(40):
        task.step(step)
    assert before == pytest.approx(math.log(params.tokenizer.codebook_size), abs=0.2)
    assert task.evaluate(40)["val_nll"] < before - 0.5
    drawn = sampler(task.average.module, params.decoding_settings())(balanced_labels(8, 2), 0)
    images = tokens_to_images(tokenizer, drawn)
    assert images.shape == (8, 3, 16, 16) and images.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in images}) == 8
    grey = (images.float() - images.float().mean(dim=1, keepdim=True)).abs().mean()
    assert grey > 2  # levels: channels differ
