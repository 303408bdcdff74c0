"""Classification Accuracy Score (paper, section 4.2): a classifier is trained only on samples and
tested on real validation images, with RandAugment (Table 1) and without (Table 5)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.classifier import ClassifierConfig
from pipeline.config.params import Params
from pipeline.data.images.batches import Batch, Batches, prepared
from pipeline.data.images.pixels import decode_image, in_threads, random_resized_crop, to_chw
from pipeline.data.images.samples import open_samples
from pipeline.data.images.shards import WINDOW, ImageShards, View
from pipeline.data.order import BatchOrder
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.experiments.rows import Row
from pipeline.runtime.device import worker_device
from pipeline.runtime.trials import run_beside
from pipeline.training.classifier import BATCH, LOGGED, ClassifierTask, accuracy, new_classifier
from pipeline.training.loop import Training, run_training
from pipeline.weights.configs import classifier_config

REAL = "real"
AUGMENTATIONS = {"none": False, "randaugment": True}
ONE_PIXEL = Image.new("L", (1, 1))  # is augmented in no time, by the same draws as any picture


@dataclass(frozen=True, kw_only=True)
class CasTraining(Training):
    """The training of a classifier with the reference classifier's architecture. Paths are
    absolute."""

    section = "classifier"

    images: str  # that it is trained on: `REAL`, or the network whose samples they are
    augmentation: str  # a key of `AUGMENTATIONS`
    images_dir: Path
    samples_dir: Path

    @property
    def config(self) -> ClassifierConfig:
        """The reference classifier's, unless released weights take its place."""
        classes = ImageShards(self.images_dir, "val").class_names
        return classifier_config(self.params, len(classes))

    @property
    def result(self) -> Path:
        """The file with the row of this classifier's accuracy."""
        return self.folder / "result.json"

    @property
    def finished(self) -> bool:
        return self.result.exists()

    def task(self, ranks: Ranks, device: torch.device) -> ClassifierTask:
        params, held_out = self.params, ImageShards(self.images_dir, "val")
        looked_at = ranks.rows(range(min(LOGGED, len(held_out))))
        augmented = AUGMENTATIONS[self.augmentation]
        batches = CasBatches(training_pictures(self), params, augmented, self.seed, ranks)
        return ClassifierTask(
            self.config,
            params.classifier,
            prepared(batches, params.ray.loaders_per_worker, device),
            View(held_out, params.data).chosen(looked_at),
            self.seed,
            device,
            ranks,
        )


def run_cas(training: CasTraining) -> Row:
    """Train a classifier from its last checkpoint, if there is one. Returns the row with its top-1
    and top-5 accuracy on the validation images."""
    weights, workers = run_training(training)["task"]["model"], training.workers
    if workers.under_ray_train:
        return run_beside(_measure, training, weights, resources=workers.resources)
    return _measure(training, weights)


def _measure(training: CasTraining, weights: dict[str, Tensor]) -> Row:
    device = worker_device(training.params.ray.use_gpu)
    model = new_classifier(training.config, device)
    model.load_state_dict(weights)
    held_out = View(ImageShards(training.images_dir, "val"), training.params.data)
    truth = torch.from_numpy(held_out.images.labels)
    batches = map(held_out.centers, torch.arange(len(truth)).split(BATCH))
    top1, top5 = accuracy(model, batches, truth, device)
    row = {"images": training.images, "augmentation": training.augmentation, "seed": training.seed}
    count = len(training_pictures(training).labels)
    return row | {"training_images": count, "top1": top1, "top5": top5}


class Pictures(NamedTuple):
    """The first M of some images, on which a classifier is trained."""

    images: ImageShards
    labels: np.ndarray  # (M,) int64
    block_start: np.ndarray | None  # where the blocks begin that they are read in (`BatchOrder`)


def training_pictures(training: CasTraining) -> Pictures:
    """The real training images, or the set of samples."""
    if training.images == REAL:
        images = ImageShards(training.images_dir, "train")
        return Pictures(images, images.labels, images.group_start)
    samples = open_samples(training.samples_dir)
    labels = samples.labels[: training.params.cas.samples]
    starts = np.append(samples.group_start[samples.group_start < len(labels)], len(labels))
    # Where all samples stay in memory, their order does not depend on the shards they lie in.
    return Pictures(samples, labels, starts if len(starts) - 1 > WINDOW else None)


class CasBatches(Batches):
    """Randomly cropped batches, with or without RandAugment.

    Args:
        ranks: the workers that share each batch; this one makes its own rows.
    """

    def __init__(
        self,
        pictures: Pictures,
        params: Params,
        augment: bool,
        seed: int,
        ranks: Ranks = ALONE,
    ):
        from torchvision.transforms import RandAugment

        self.pictures, self.data, self.seed = pictures, params.classifier_images, seed
        self.ranks = ranks
        self.augment = RandAugment() if augment else None
        batch_size = params.classifier.batch_size
        count = len(pictures.labels)
        self.order = BatchOrder(count, batch_size, seed, pictures.block_start, WINDOW)

    def load(self, step: int) -> tuple[list[Image.Image], Tensor]:
        indices = self.ranks.rows(self.order(step))
        pictures = in_threads(partial(self._crop, step), indices.tolist())
        return pictures, torch.from_numpy(self.pictures.labels[indices])

    def finish(self, step: int, loaded: tuple[list[Image.Image], Tensor]) -> Batch:
        pictures, labels = loaded
        if self.augment is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(mix(self.seed, "randaugment", step))
                for _ in range(self.ranks.rank * len(pictures)):  # what others' rows draw before
                    self.augment(ONE_PIXEL)
                pictures = [self.augment(picture) for picture in pictures]
        return torch.from_numpy(np.stack([to_chw(picture) for picture in pictures])), labels

    def _crop(self, step: int, index: int) -> Image.Image:
        picture = decode_image(self.pictures.images.read(index)[1], self.data.channels)
        return random_resized_crop(picture, self.data, (self.seed, f"cas/{index}", step))
