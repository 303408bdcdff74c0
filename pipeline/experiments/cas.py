"""Classification Accuracy Score (paper, section 4.2): a classifier trained on samples only, tested
on real validation images; with RandAugment (Table 1) and without (Table 5)."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.trainings import workers_per_classifier
from pipeline.data.images.batches import Batch, Batches, prepared
from pipeline.data.images.crops import random_resized_crop
from pipeline.data.images.pixels import decode_image, to_chw
from pipeline.data.images.samples import open_samples
from pipeline.data.images.shards import WINDOW, ImageShards
from pipeline.data.images.threads import in_threads
from pipeline.data.images.views import View
from pipeline.data.order import BatchOrder
from pipeline.data.ranks import ALONE, Ranks
from pipeline.data.seeds import mix
from pipeline.runtime.device import worker_device
from pipeline.runtime.files import read_json
from pipeline.runtime.trials import run_beside
from pipeline.training.classifier import BATCH, LOGGED, ClassifierTask, accuracy, new_classifier
from pipeline.training.loop import TrainingJob, Workers, run_training
from pipeline.weights.published import load_model

REAL = "real"
AUGMENTATIONS = {"none": False, "randaugment": True}
ONE_PIXEL = Image.new("L", (1, 1))  # is augmented in no time, by the same draws as any picture


@dataclass(frozen=True)
class CasJob:
    """One classifier to train, as plain values that travel to a worker. Paths are absolute."""

    images: str  # `REAL`, or the name of the set of samples that it is trained on
    augmentation: str  # a key of `AUGMENTATIONS`
    seed: int
    params: dict[str, Any]
    folder: str  # its run directory
    images_dir: str
    samples_dir: str  # of the set of samples
    classifier_dir: str  # the reference classifier, whose architecture it has

    @property
    def name(self) -> str:
        return f"{self.images}/{self.augmentation}/seed{self.seed}"

    @property
    def folders(self) -> list[Path]:
        return [Path(self.folder)]

    @property
    def result(self) -> Path:
        return Path(self.folder) / "result.json"

    @property
    def finished(self) -> bool:
        return self.result.exists()

    def row(self) -> dict[str, Any]:
        return read_json(self.result)


def run_cas(job: CasJob) -> dict[str, Any]:
    """Train the job's classifier, from its last checkpoint if there is one; returns the row of its
    top-1 and top-5 accuracy on the validation images."""
    params = Params.model_validate(job.params)
    workers = Workers.of(params.ray, workers_per_classifier(params))
    training = TrainingJob(
        name=f"cas {job.name}",
        recipe=partial(cas_task, job),
        steps=params.classifier.steps,
        every=params.classifier.checkpoint_every,
        seed=job.seed,
        folder=job.folder,
        workers=workers,
    )
    weights = run_training(training)["task"]["model"]
    if workers.under_ray_train:
        return run_beside(_measure, job, weights, resources=workers.resources)
    return _measure(job, weights)


def cas_task(job: CasJob, ranks: Ranks, device: torch.device) -> ClassifierTask:
    """A worker's task of training the job's classifier."""
    params = Params.model_validate(job.params)
    held_out, augmented = ImageShards(job.images_dir, "val"), AUGMENTATIONS[job.augmentation]
    looked_at = ranks.rows(range(min(LOGGED, len(held_out))))
    batches = CasBatches(training_pictures(job, params), params, augmented, job.seed, ranks)
    return ClassifierTask(
        load_model(job.classifier_dir, "classifier").config,
        params.classifier,
        prepared(batches, params.ray.loaders_per_worker, device),
        View(held_out, params.data).chosen(looked_at),
        job.seed,
        device,
        ranks,
    )


def _measure(job: CasJob, weights: dict[str, Tensor]) -> dict[str, Any]:
    params = Params.model_validate(job.params)
    device = worker_device(params.ray.use_gpu)
    model = new_classifier(load_model(job.classifier_dir, "classifier").config, device)
    model.load_state_dict(weights)
    held_out = View(ImageShards(job.images_dir, "val"), params.data)
    truth = torch.from_numpy(held_out.images.labels)
    top1, top5 = accuracy(model, held_out.batches(BATCH), truth, device)
    row = {"images": job.images, "augmentation": job.augmentation, "seed": job.seed}
    count = len(training_pictures(job, params).labels)
    return row | {"training_images": count, "top1": top1, "top5": top5}


class Pictures:
    """Labelled pictures that a classifier is trained on.

    Args:
        block_start: where the blocks begin that they are read in, as for `BatchOrder`.
        count: the first so many of the images; None for all.
    """

    def __init__(
        self, images: ImageShards, block_start: np.ndarray | None, count: int | None = None
    ):
        self.images, self.block_start = images, block_start
        self.labels = images.labels[:count]  # (M,) int64


def training_pictures(job: CasJob, params: Params) -> Pictures:
    """The real training images, or the job's set of samples."""
    if job.images == REAL:
        images = ImageShards(job.images_dir, "train")
        return Pictures(images, images.group_start)
    samples, count = open_samples(Path(job.samples_dir)), params.cas.samples
    return Pictures(samples, _blocks(samples, min(count, len(samples))), count)


def _blocks(samples: ImageShards, count: int) -> np.ndarray | None:
    """Row groups of the first samples; none where all of them stay in memory: their order is then
    that of the samples alone, whatever shards they lie in."""
    starts = np.append(samples.group_start[samples.group_start < count], count)
    return starts if len(starts) - 1 > WINDOW else None


class CasBatches(Batches):
    """Randomly cropped, perhaps augmented batches.

    Args:
        ranks: the workers that share each batch; this one makes its own rows.
    """

    def __init__(
        self,
        pictures: Pictures,
        params: Params,
        rand_augment: bool,
        seed: int,
        ranks: Ranks = ALONE,
    ):
        from torchvision.transforms import RandAugment

        self.pictures, self.data, self.seed = pictures, params.classifier_images, seed
        self.ranks = ranks
        self.augment = RandAugment() if rand_augment else None
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
        data, seed = self.data, (self.seed, f"cas/{index}", step)
        picture = decode_image(self.pictures.images.read(index)[1], data.channels)
        return random_resized_crop(
            picture, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
        )
