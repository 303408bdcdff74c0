"""Computes the Classification Accuracy Score (paper, section 4.2): trains classifiers only on
samples, with RandAugment (Table 1) or without (Table 5), and tests them on validation images."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.paths import IMAGES
from pipeline.data.images.batches import Batch, Batches
from pipeline.data.images.pixels import decode_image, in_threads, random_resized_crop, to_chw
from pipeline.data.images.shards import SAMPLES, WINDOW, ImageShards, View
from pipeline.data.order import BatchOrder
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.experiments.rows import Row
from pipeline.runtime.device import worker_device
from pipeline.runtime.files import write_json
from pipeline.runtime.storage import upload
from pipeline.runtime.trials import run_beside
from pipeline.training.classifier import BATCH, ClassifierTraining, accuracy, new_classifier
from pipeline.training.loop.run import run_training
from pipeline.weights.configs import classifier_config

REAL = "real"
AUGMENTATIONS = {"none": False, "randaugment": True}
ONE_PIXEL = Image.new("L", (1, 1))  # quick to augment, with as many random draws as any picture


@dataclass(frozen=True, kw_only=True)
class CasTraining(ClassifierTraining):
    """Settings of a training run of a classifier, on samples or real images, for the Classification
    Accuracy Score."""

    images: str  # source of the training images: `REAL`, or the network that drew the samples
    augmentation: str  # a key of `AUGMENTATIONS`
    samples: Path

    @property
    def result(self) -> Path:
        """The file with the row of results of this classifier."""
        return self.folder / "result.json"

    @property
    def finished(self) -> bool:
        return self.result.exists()

    def batches(self, ranks: Ranks) -> "CasBatches":
        return CasBatches(self, ranks)


def run_cas(training: CasTraining) -> None:
    """Train a classifier, or resume its training from the last checkpoint. Then write a row with
    the classifier's top-1 and top-5 accuracy on the validation images to `training.result`."""
    weights, workers = run_training(training)["task"]["model"], training.workers
    if workers.under_ray_train:
        row = run_beside(_measure, training, weights, resources=workers.resources)
    else:
        row = _measure(training, weights)
    write_json(training.result, row)
    upload(training.result)


def _measure(training: CasTraining, weights: dict[str, Tensor]) -> Row:
    device = worker_device(training.params.ray.use_gpu)
    held_out = View(ImageShards(IMAGES, "val"), training.params.data)
    config = classifier_config(training.params, len(held_out.images.class_names))
    model = new_classifier(config, device)
    model.load_state_dict(weights)
    truth = torch.from_numpy(held_out.images.labels)
    batches = map(held_out.centers, torch.arange(len(truth)).split(BATCH))
    top1, top5 = accuracy(model, batches, truth, device)
    row = {"images": training.images, "augmentation": training.augmentation, "seed": training.seed}
    count = len(CasBatches(training).labels)
    return row | {"training_images": count, "top1": top1, "top5": top5}


class CasBatches(Batches):
    """Batches of random crops of the real training images or of the first `cas.samples` samples,
    with or without RandAugment. Each worker prepares only its own share of a batch."""

    def __init__(self, training: CasTraining, ranks: Ranks = ALONE):
        from torchvision.transforms import RandAugment

        params, self.seed, self.ranks = training.params, training.seed, ranks
        self.data, size = params.classifier_images, params.classifier.batch_size
        self.augment = RandAugment() if AUGMENTATIONS[training.augmentation] else None
        real = training.images == REAL
        source = (IMAGES, "train") if real else (training.samples, SAMPLES)
        self.images = ImageShards(*source)
        self.labels = self.images.labels[: None if real else params.cas.samples]  # (M,) int64
        count, starts = len(self.labels), self.images.group_start
        blocks = np.append(starts[starts < count], count)
        # If all samples fit into memory, the order of samples does not depend on shards.
        in_blocks = real or len(blocks) - 1 > WINDOW
        self.order = BatchOrder(count, size, self.seed, blocks if in_blocks else None, WINDOW)

    def load(self, step: int) -> tuple[list[Image.Image], Tensor]:
        indices = self.ranks.rows(self.order(step))
        pictures = in_threads(partial(self._crop, step), indices.tolist())
        return pictures, torch.from_numpy(self.labels[indices])

    def finish(self, step: int, loaded: tuple[list[Image.Image], Tensor]) -> Batch:
        pictures, labels = loaded
        if self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(self.seed, "randaugment", step))
                for _ in range(self.ranks.rank * len(pictures)):  # skip draws of earlier ranks
                    self.augment(ONE_PIXEL)
                pictures = [self.augment(picture) for picture in pictures]
        return torch.from_numpy(np.stack([to_chw(picture) for picture in pictures])), labels

    def _crop(self, step: int, index: int) -> Image.Image:
        picture = decode_image(self.images.read(index)[1], self.data.channels)
        return random_resized_crop(picture, self.data, (self.seed, f"cas/{index}", step))
