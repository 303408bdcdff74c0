"""What is measured of a run's images: which sets, through which networks, and what an image costs
there."""

from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import nn

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, replicates
from pipeline.experiments.edit import TASKS
from pipeline.tools.plan import costs
from pipeline.tools.plan.networks import DataSize

PRETRAINED = frozenset({"inception", "vgg"})


class Measured(NamedTuple):
    """A set of images whose features are made once. They are kept of images that are: of others,
    which are measured as they are made, until their metrics are there."""

    stage: str
    images: int
    extractors: frozenset[str]
    kept: Literal["pictures", "samples", ""] = ""  # of the data set, in shards, nowhere


def judges(params: Params) -> frozenset[str]:
    """The extractors of a set that is scored: the main one, and the classifier that recognises."""
    return frozenset({params.evaluation.extractor, "classifier"})


def measured_sets(params: Params, data: DataSize) -> list[Measured]:
    """Every set but those of the sweep's cells. The training images are under the stages that need
    them first."""
    e, heated, seeds = params.evaluation, params.temperature, len(params.evaluation.seeds)
    main, second = judges(params), frozenset({e.second_extractor})
    trained = sum(len(replicates(params, network)) for network in NETWORKS)
    published = len(NETWORKS) * seeds
    found = [
        Measured("sweep", data.train, frozenset({e.extractor}), "pictures"),
        Measured("evaluate", data.train, second, "pictures"),
        *[Measured("evaluate", e.samples, main | second, "samples")] * published,
        *[Measured("evaluate", e.samples, main | second)] * (trained - published),
        Measured("evaluate", data.val, main | second),  # reconstructions
        Measured("evaluate", data.val, main | second, "pictures"),
    ]
    if params.cas.samples > e.samples:  # rejection selects from all; else from those measured above
        found += [Measured("reject", params.cas.samples, main, "samples")] * published
    found += [Measured("temperature", heated.samples, main)] * (len(heated.values) * seeds)
    edits = 1 + len(TASKS) * (1 + seeds)  # originals; nearest pixels and each seed's
    return found + [Measured("edit", min(params.editing.images, data.val), main)] * edits


class Reader(NamedTuple):
    """An extractor's network, on the meta device, and the images that it sees."""

    network: nn.Module
    channels: int
    side: int


def extractor_flops(params: Params, data: DataSize) -> dict[str, int]:
    """FLOPs of an image's features, by extractor."""
    own = _image_flops(reader("classifier", params, data))
    evaluation = params.evaluation
    pretrained = {evaluation.extractor, evaluation.second_extractor} & PRETRAINED
    return {"classifier": own, "random": own} | {name: _flops(name) for name in pretrained}


def reader(name: str, params: Params, data: DataSize) -> Reader:
    """The extractor of that name."""
    if name in PRETRAINED:
        return _pretrained(name)
    classifier = costs.on_meta(lambda: costs.classifier_of(params, data.classes)).eval()
    return Reader(classifier, params.data.channels, params.data.image_size)


@cache
def _pretrained(name: str) -> Reader:
    """A network as torchvision has it, whose convolutions are those of torch-fidelity's, and so is
    the size that either resizes images to."""
    from torchvision import models

    if name == "inception":
        build = lambda: models.inception_v3(weights=None, init_weights=False, aux_logits=False)  # noqa: E731
        return Reader(costs.on_meta(build).eval(), 3, 299)
    vgg = costs.on_meta(lambda: models.vgg16(weights=None)).eval()
    vgg.classifier = vgg.classifier[:-1]  # the second fully connected layer is its last
    return Reader(vgg, 3, 224)


@cache
def _flops(name: str) -> int:
    return _image_flops(_pretrained(name))


@torch.no_grad()
def _image_flops(own: Reader) -> int:
    image = torch.empty(1, own.channels, own.side, own.side, device="meta")
    return costs.count_flops(lambda: own.network(image))
