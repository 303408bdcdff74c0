"""Classification Accuracy Score (paper, section 4.2): a classifier trained on samples only, tested
on real validation images; with RandAugment (Table 1) and without (Table 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.config.params import Params
from pipeline.data.images.batches import Prefetched
from pipeline.data.images.crops import random_resized_crop
from pipeline.data.images.shards import WINDOW, ImageShards
from pipeline.data.images.threads import in_threads
from pipeline.data.images.views import View, decode_image, to_chw
from pipeline.runtime.device import pick_device
from pipeline.runtime.failures import Failure
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.order import BatchOrder
from pipeline.runtime.seeds import mix
from pipeline.training.classifier import BATCH, LOGGED, ClassifierTask, accuracy
from pipeline.training.loop import RunDirSession, train
from pipeline.weights.published import load_model

REAL = "real"
AUGMENTATIONS = {"none": False, "randaugment": True}


@dataclass(frozen=True)
class CasJob:
    """One classifier to train, as plain values that travel to a worker. Paths are absolute."""

    images: str  # `REAL`, or the name of the set of samples that it is trained on
    augmentation: str  # a key of `AUGMENTATIONS`
    seed: int
    params: dict[str, Any]
    folder: str  # its run directory
    images_dir: str
    samples_dir: str  # holds a folder for each set of samples
    classifier_dir: str  # the reference classifier, whose architecture it has

    @property
    def name(self) -> str:
        return f"{self.images}/{self.augmentation}/seed{self.seed}"

    @property
    def result(self) -> Path:
        return Path(self.folder) / "result.json"

    @property
    def failure(self) -> Failure:
        return Failure(self.folder)

    def row(self) -> dict[str, Any]:
        return read_json(self.result)


def run_cas(job: CasJob) -> None:
    """Train the job's classifier, from its last checkpoint if there is one, and write its top-1 and
    top-5 accuracy on the validation images."""
    params, device = Params.model_validate(job.params), pick_device()
    held_out = View(ImageShards(job.images_dir, "val"), params.data)
    pictures = training_pictures(job, params)
    task = ClassifierTask(
        load_model(job.classifier_dir, "classifier").config,
        params.classifier,
        CasBatches(pictures, params, AUGMENTATIONS[job.augmentation], job.seed),
        held_out.first(LOGGED),
        job.seed,
        device,
    )
    train(
        task,
        name=f"cas {job.name}",
        steps=params.classifier.steps,
        every=params.classifier.checkpoint_every,
        seed=job.seed,
        session=RunDirSession(Path(job.folder)),
    )
    truth = torch.from_numpy(held_out.images.labels)
    top1, top5 = accuracy(task.model, held_out.batches(BATCH), truth, device)
    row = {"images": job.images, "augmentation": job.augmentation, "seed": job.seed}
    row |= {"training_images": len(pictures.labels), "top1": top1, "top5": top5}
    write_json(job.result, row)


class Pictures(NamedTuple):
    """Labelled pictures that a classifier is trained on."""

    read: Callable[[int], Any]  # index → the stored form of a picture
    decode: Callable[[Any], Image.Image]  # the stored form → the picture
    labels: Tensor  # (M,) int64
    block_start: np.ndarray | None = None  # where blocks begin, as for `BatchOrder`


def training_pictures(job: CasJob, params: Params) -> Pictures:
    """The real training images, or the job's set of samples."""
    if job.images == REAL:
        images = ImageShards(job.images_dir, "train")
        return Pictures(
            lambda i: images.read(i)[1],
            lambda content: decode_image(content, params.data.channels),
            torch.from_numpy(images.labels),
            images.group_start,
        )
    folder = Path(job.samples_dir) / job.images
    samples = np.load(folder / "images.npy", mmap_mode="r")[: params.cas.samples]
    labels = torch.from_numpy(np.load(folder / "labels.npy")[: len(samples)].astype(np.int64))
    return Pictures(samples.__getitem__, _picture, labels)


def _picture(array: np.ndarray) -> Image.Image:
    """The picture of a (C, H, W) uint8 array."""
    return Image.fromarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0))


class CasBatches:
    """Randomly cropped, perhaps augmented batches; batch k is a pure function of (seed, k)."""

    def __init__(self, pictures: Pictures, params: Params, rand_augment: bool, seed: int):
        from torchvision.transforms import RandAugment

        self.pictures, self.data, self.seed = pictures, params.data, seed
        self.augment = RandAugment() if rand_augment else lambda image: image
        batch_size = params.classifier.batch_size
        count = len(pictures.labels)
        self.order = BatchOrder(count, batch_size, seed, pictures.block_start, WINDOW)
        self._cropped = Prefetched(self._crops)

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, C, size, size) uint8 and labels (B,) of step `step`."""
        crops, labels = self._cropped(step)
        # RandAugment draws from torch's global generator, which dropout shares: not in the thread.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(self.seed, "randaugment", step))
            images = np.stack([to_chw(self.augment(crop)) for crop in crops])
        return torch.from_numpy(images), labels

    def _crops(self, step: int) -> tuple[list[Image.Image], Tensor]:
        indices = self.order(step)
        # Read in order, by one thread, so that each row group is read once.
        contents = [(int(i), self.pictures.read(int(i))) for i in indices]
        return in_threads(partial(self._crop, step), contents), self.pictures.labels[indices]

    def _crop(self, step: int, item: tuple[int, Any]) -> Image.Image:
        index, content = item
        data, seed = self.data, (self.seed, f"cas/{index}", step)
        picture = self.pictures.decode(content)
        return random_resized_crop(
            picture, data.image_size, data.crop_scale, data.crop_ratio, data.flip, seed
        )
