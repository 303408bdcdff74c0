"""Everything that is measured on the main model: sample quality, CAS, likelihood."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.data.crops import random_resized_crop
from pipeline.data.order import BatchOrder
from pipeline.data.shards import ImageShards, View, to_chw
from pipeline.evaluation.features import (
    BATCH,
    extract,
    load_features,
    open_extractor,
    reference_features,
)
from pipeline.evaluation.metrics import class_accuracy, sample_metrics
from pipeline.layout import CLASSIFIER, IMAGES, SAMPLES, TOKENIZER, TOKENS, TRANSFORMER
from pipeline.models import load_model
from pipeline.params import Params
from pipeline.pictures import grid_picture, save_picture
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import atomic_file
from pipeline.sampling import balanced_labels, generate, masked_nll, sample_images, tokens_to_images
from pipeline.tokens import TokenCache
from pipeline.training.classifier import ClassifierTask, accuracy
from pipeline.training.loop import RunDirSession, train

PICTURED_CLASSES = 10
PICTURED_ITERATIONS = 4  # samples whose every iteration is kept


def evaluate_model(params: Params, run_folder: Path, results: Path) -> dict[str, float]:
    """Sample from the main model and measure; pictures and arrays go to `results`.

    Args:
        run_folder: keeps the samples and CAS's live checkpoint between kills.
    """
    device = pick_device()
    classifier = load_model(CLASSIFIER, "classifier", device)
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    model = load_model(TRANSFORMER, "transformer", device)
    evaluation, decoding = params.evaluation, params.decoding
    how = {
        "iterations": decoding.iterations,
        "schedule": params.training.mask_schedule,
        "choice_temperature": decoding.choice_temperature,
        "bf16": decoding.bf16,
        "seed": params.seed,
        "device": device,
    }
    count = max(evaluation.samples, evaluation.cas_samples)
    labels = balanced_labels(count, model.config.num_classes)
    path = run_folder / "samples.npy"
    if not path.exists():
        shape = (params.data.channels, params.data.image_size, params.data.image_size)
        batches = sample_images(model, tokenizer, labels, batch_size=decoding.batch_size, **how)
        _write_stream(path, batches, count, shape)
    samples = np.load(path, mmap_mode="r")
    print(f"evaluate: {count} samples decoded", flush=True)

    held_out = View(ImageShards(IMAGES, "val"), params.data, params.seed)
    real = held_out.everything()
    chosen = slice(evaluation.samples)
    metrics = _quality(params, classifier, samples[chosen], labels[chosen], real[0], device)
    metrics |= _cas(params, samples, labels, real, run_folder / "cas", device)
    metrics["cas_real_top1"], metrics["cas_real_top5"] = accuracy(classifier, *real, device)
    metrics["nll"] = masked_nll(
        model,
        *TokenCache(TOKENS, "val").everything(),
        schedule=params.training.mask_schedule,
        seed=params.seed,
        batch_size=500,
        device=device,
    )
    _publish_samples(path, labels)
    _keep_pictures(params, model, tokenizer, samples, how, results)
    return metrics


def _quality(
    params: Params, classifier, samples: np.ndarray, labels: Tensor, real: Tensor, device
) -> dict[str, float]:
    """FID, IS, precision, recall, class accuracy; the same of real validation images (`_real`)."""
    evaluation = params.evaluation
    extractor = open_extractor(
        evaluation.extractor, classifier, evaluation.inception_weights, device
    )
    reference = load_features(reference_features(extractor, params))

    def measure(images: Tensor) -> dict[str, float]:
        return sample_metrics(
            extract(extractor, images.split(BATCH)),
            reference,
            extractor.name,
            neighbors=evaluation.neighbors,
            is_splits=evaluation.is_splits,
            seed=params.seed,
        )

    images = torch.from_numpy(np.array(samples))
    metrics = measure(images)
    metrics |= {f"{name}_real": value for name, value in measure(real).items()}
    judge = open_extractor("classifier", classifier, None, device)
    logits = extract(judge, images.split(BATCH)).logits
    return metrics | {"class_accuracy": class_accuracy(logits, labels)}


def _cas(
    params: Params,
    samples: np.ndarray,
    labels: Tensor,
    real: tuple[Tensor, Tensor],
    folder: Path,
    device: torch.device,
) -> dict[str, float]:
    """Classification Accuracy Score (section 4.2): a classifier that saw samples only, on real
    validation images. Its recipe is the reference classifier's."""
    config = load_model(CLASSIFIER, "classifier").config
    number = params.evaluation.cas_samples
    task = ClassifierTask(
        config,
        params.classifier,
        SampleBatches(samples[:number], labels[:number], params),
        real,
        params.seed,
        device,
    )
    train(
        task,
        name="cas",
        steps=params.classifier.steps,
        every=params.classifier.checkpoint_every,
        seed=params.seed,
        session=RunDirSession(folder),
    )
    top1, top5 = accuracy(task.model, *real, device)
    return {"cas_top1": top1, "cas_top5": top5}


class SampleBatches:
    """Randomly cropped batches of samples, as `ImageBatches` makes them of real images."""

    def __init__(self, samples: np.ndarray, labels: Tensor, params: Params):
        self.samples, self.labels, self.params = samples, labels, params
        self.order = BatchOrder(len(samples), params.classifier.batch_size, params.seed)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        indices = self.order(step)
        images = np.stack([self._crop(int(i), step) for i in indices])
        return torch.from_numpy(images), self.labels[indices]

    def _crop(self, index: int, step: int) -> np.ndarray:
        data = self.params.data
        array = self.samples[index].transpose(1, 2, 0)
        image = Image.fromarray(array[..., 0] if data.channels == 1 else array)
        seed = (self.params.seed, f"sample/{index}", step)
        return to_chw(
            random_resized_crop(
                image, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
            )
        )


def _write_stream(path: Path, batches, count: int, shape: tuple[int, ...]) -> None:
    """Batches of images as one .npy, never all in memory."""
    with atomic_file(path) as temporary:
        out = np.lib.format.open_memmap(temporary, "w+", np.uint8, (count, *shape))
        filled = 0
        for batch in batches:
            out[filled : filled + len(batch)] = batch.numpy()
            filled += len(batch)
        out.flush()


def _publish_samples(path: Path, labels: Tensor) -> None:
    """The samples as `images.npy` and `labels.npy`."""
    shutil.rmtree(SAMPLES, ignore_errors=True)
    SAMPLES.mkdir(parents=True)
    shutil.copyfile(path, SAMPLES / "images.npy")
    np.save(SAMPLES / "labels.npy", labels.numpy().astype(np.int32))


def _keep_pictures(params: Params, model, tokenizer, samples, how: dict, results: Path) -> None:
    """Arrays behind the sample grid and Figure 2, and the grid as a picture."""
    names = ImageShards(IMAGES, "train").class_names
    classes = min(PICTURED_CLASSES, len(names))
    per_class = min(PICTURED_CLASSES, len(samples) // len(names))
    grid = np.stack([samples[c :: len(names)][:per_class] for c in range(classes)])
    _save_npz(
        results / "class_grid.npz",
        images=grid.transpose(0, 1, 3, 4, 2),
        class_names=np.array(names[:classes]),
    )
    flat = torch.from_numpy(grid.reshape(-1, *grid.shape[2:]))
    save_picture(grid_picture(flat, per_class), results / "samples.png")

    steps = generate(model, balanced_labels(PICTURED_ITERATIONS, model.config.num_classes), **how)
    side = params.grid
    _save_npz(
        results / "decoding.npz",
        images=np.stack(
            [tokens_to_images(tokenizer, s.sampled).permute(0, 2, 3, 1).numpy() for s in steps]
        ),
        masked=np.stack([s.masked.unflatten(-1, (side, side)).cpu().numpy() for s in steps]),
    )


def _save_npz(path: Path, **arrays: np.ndarray) -> None:
    with atomic_file(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, **arrays)
