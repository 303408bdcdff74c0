"""A project with tiny random models and a data set of noise, and scores of its images."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from torch import Tensor

from pipeline.autoregressive import AutoregressiveTransformer
from pipeline.classifier import Classifier
from pipeline.config.params import Params
from pipeline.config.paths import CLASSIFIER, FEATURES, IMAGES, TOKENIZER, TOKENS
from pipeline.config.replicates import NETWORKS, NetworkName, Replicate, main_replicates, replicates
from pipeline.data.images.pixels import as_float
from pipeline.data.images.shards import ImageShards, View, write_manifest, write_shards
from pipeline.data.seeds import mix
from pipeline.decoding.settings import DecodingSettings
from pipeline.evaluation.features import write_reference
from pipeline.prepare.datasets import open_source, stratified_split
from pipeline.runtime.batches import BatchWorkers
from pipeline.sampling import Network, balanced_labels, sample_tokens
from pipeline.tokenizer import Tokenizer, tokens_to_images
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import classifier_config, tokenizer_config, transformer_config
from pipeline.weights.published import load_model, save_model
from tests.images import noise_image, write_samples, write_token_cache
from tests.params import make_params

CPU = torch.device("cpu")
ALONE = BatchWorkers(CPU)
SIDE, GRID, CODES, CLASSES = 8, 4, 11, 3
VAL = 24  # validation images; the classifier's features have 16 dimensions
CHANGES = {
    "data": {"source": "folder:pictures", "image_size": SIDE},
    "classifier": {"width": 4},
    "tokenizer": {"multipliers": [1, 1], "embedding_dim": 8, "codebook_size": CODES},
    "transformer": {"layers": 2, "hidden": 16, "heads": 2, "mlp": 32},
    "decoding": {"iterations": 3, "bf16": False, "batch_size": 10},
    "sweep": {"iterations": [2]},
    "training": {"other_label_smoothings": [0.2]},
    "evaluation": {"seeds": [0, 1], "kid_subset_size": 10, "halves": 3},
    "temperature": {"values": [0.0, 9.0], "top_k": [0], "samples": 23},
    "editing": {"images": 23, "iterations": 3, "feather": 1},
    "rejection": {"acceptance": [1.0, 0.5, 0.2]},
    "reconstruction": {"images": 21, "mask_ratios": [0.0, 0.5], "draws": 3, "iterations": 2},
    "speed": {"grids": [1, 2], "batch_sizes": [1, 3], "repeats": 3},
}


def with_params(**sections: dict) -> Params:
    """Return the tiny project's params, with changes as section={key: value}."""
    changes = {k: CHANGES.get(k, {}) | sections.get(k, {}) for k in CHANGES | sections}
    return make_params(**changes)


def folders_of(
    folder: Path, params: Params, network: NetworkName = "transformer"
) -> dict[Replicate, Path]:
    """Return a run folder per main replicate, named by its seed."""
    return {r: folder / f"seed{r.seed}" for r in main_replicates(params, network)}


def write_images() -> None:
    """Write noise as `data/images`, with another contrast for each of three classes."""
    for split, count in (("train", 60), ("val", VAL)):
        for number in range(count):
            label = number % CLASSES
            image = noise_image(SIDE, SIDE, "L", seed=mix(split, number) % 2**32)
            path = Path("pictures", split, f"class{label}", f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            image.point([int(v / (1 + label)) for v in range(256)]).save(path)
    write_shards_of(Path("pictures"), IMAGES)


def write_shards_of(pictures: Path, folder: Path) -> None:
    """Write a folder of classes as shards."""
    source = open_source(f"folder:{pictures}", "", SIDE)
    splits = stratified_split(source, 0.2, seed=0)
    written = {k: write_shards(source, v, k, 50, folder) for k, v in splits.items()}
    write_manifest(folder, source.class_names, f"folder:{pictures}", written)


def write_models(params: Params) -> None:
    """Write random weights, scaled up so that predictions depend on the input."""
    torch.manual_seed(1)
    config = transformer_config(params, CLASSES)
    classes = {"transformer": MaskGitTransformer, "autoregressive": AutoregressiveTransformer}
    for network in NETWORKS:
        for replicate in replicates(params, network):
            plain = classes[network](config).state_dict()
            weights = {k: 20 * v if v.ndim == 2 else v for k, v in plain.items()}
            save_model(replicate.folder, network, config, weights)
    tokenizer = Tokenizer(tokenizer_config(params))
    torch.nn.init.normal_(tokenizer.quantizer.codebook)
    torch.nn.init.constant_(tokenizer.decoder.out.bias, 0.5)
    save_model(TOKENIZER, "tokenizer", tokenizer.config, tokenizer.state_dict())
    classifier = Classifier(classifier_config(params, CLASSES))
    classifier.head.weight.data.normal_()
    images = training_images()
    with torch.no_grad():  # every class is recognised in some
        classifier.head.bias -= classifier.eval()(as_float(images)).mean(dim=0)
    save_model(CLASSIFIER, "classifier", classifier.config, classifier.state_dict())


def write_features(params: Params) -> None:
    """Write the outputs of the stage `features`."""
    shutil.rmtree(FEATURES, ignore_errors=True)
    for name in (params.evaluation.extractor, params.evaluation.second_extractor):
        write_reference(name, FEATURES / name, params, ALONE)


def write_tokens() -> None:
    """Write a token cache of noise."""
    draw, labels, splits = np.random.default_rng(0), np.arange(VAL) % CLASSES, ("train", "val")
    noise = {split: [draw.integers(0, CODES, (VAL, 1, GRID**2))] for split in splits}
    write_token_cache(TOKENS, noise, dict.fromkeys(splits, labels), CODES)


def write_noise(count: int) -> None:
    noise = np.random.default_rng(0)
    for folder in (r.samples for n in NETWORKS for r in main_replicates(with_params(), n)):
        contrast = noise.uniform(size=(count, 1, 1, 1))
        images = contrast * noise.integers(256, size=(count, 1, SIDE, SIDE))
        labels, names = balanced_labels(count, CLASSES).tolist(), list(map(str, range(CLASSES)))
        write_samples(images.astype(np.uint8), labels, names, 70, folder)


def make_project(folder: Path) -> Path:
    """Write data, models and samples to a folder that is to be the working directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_images()
        write_models(with_params())
        write_features(with_params())
        write_noise(90)
    return folder


def validation(count: int) -> tuple[Tensor, Tensor]:
    view = View(ImageShards(IMAGES, "val"), with_params().data)
    return view.read(0, count), view.labels[:count]


def training_images() -> Tensor:
    images = ImageShards(IMAGES, "train")
    return View(images, with_params().data, 0).centers(range(len(images)))


def drawn_in_tens(model: Network, how: DecodingSettings, labels: Tensor, seed: int) -> np.ndarray:
    """Return a model's samples of labels, drawn in batches of ten."""
    tokens = [
        sample_tokens(model, how, chunk, mix(seed, "batch", number))
        for number, chunk in enumerate(labels.split(10))
    ]
    return tokens_to_images(load_model(TOKENIZER, "tokenizer"), torch.cat(tokens)).numpy()


def classified(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return features and logits of the reference classifier."""
    outputs = load_model(CLASSIFIER, "classifier").outputs(as_float(torch.from_numpy(images)))
    return outputs.features.double().numpy(), outputs.logits.double().numpy()


def frechet(images: np.ndarray, reference: np.ndarray | None = None) -> float:
    """FID (classifier) by its formula, by default against the training images."""
    others = training_images().numpy() if reference is None else reference
    (a, _), (b, _) = classified(images), classified(others)
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(ca @ cb).real.clip(0)).sum()  # trace of the matrix root
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca + cb) - 2 * root


def inception(logits: np.ndarray) -> float:
    p = scipy.special.softmax(logits, axis=1)
    return math.exp((p * np.log(p / p.mean(axis=0))).sum(axis=1).mean())


def check_scores(row: dict, images: np.ndarray, labels: Tensor) -> None:
    _, logits = classified(images)
    assert row["fid_classifier"] == pytest.approx(frechet(images), rel=1e-3)
    assert row["is_classifier"] == pytest.approx(inception(logits), rel=1e-6)
    assert row["class_accuracy"] == (logits.argmax(axis=1) == labels.numpy()).mean()


class Dies:
    """A function whose n-th call fails, or raises what stands for a killed process."""

    def __init__(self, function, calls: int, error: type[BaseException] = KeyboardInterrupt):
        self.function, self.left, self.error = function, calls, error

    def __call__(self, *args, **kwargs):
        if self.left == 0:
            raise self.error
        self.left -= 1
        return self.function(*args, **kwargs)
