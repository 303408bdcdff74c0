"""What each stage writes to disk, in bytes: what grows with the run, and not tables, pictures, logs
or MLflow's files."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS
from pipeline.data.tokens import SHARD
from pipeline.runtime import limits
from pipeline.tools.plan import costs
from pipeline.tools.plan.measured import measured_sets
from pipeline.tools.plan.networks import CAS_SETS, DataSize, Network

NPY_HEADER = 128
# Samples as PNGs in shards: photographs of 256 × 256 take about 0.6 of their pixels' bytes, digits
# 0.35; and for each what a PNG and a row of Parquet add, which tells where pictures are small.
PNG_SHARE, PNG_BYTES = 0.7, 160
# Features and logits of the pretrained extractors (`pipeline.evaluation.features`).
PRETRAINED = {"inception": 2048 + 1008, "vgg": 4096}
FEATURES_HEADER = 160


@dataclass(frozen=True)
class Storage:
    """What a stage writes, in bytes."""

    stage: str
    outputs: int  # the stage's results, which DVC tracks and keeps in its cache as well
    live: int = 0  # under `ray.storage_path`: it stays there after the stage
    passing: int = 0  # besides, at most, while the stage runs


def plan_storage(params: Params, data: DataSize, networks: list[Network]) -> list[Storage]:
    """Every stage that writes much, and the features of images, which several stages share."""
    by_name = {network.name: network for network in networks}
    seeds, hidden = len(params.evaluation.seeds), params.reconstruction

    def images(count: int) -> int:
        return image_bytes(params, count)

    sampled = max(params.evaluation.samples, params.cas.samples)
    # Of other smoothings as an array, its batches and then all of it: they are only measured.
    others = params.evaluation.samples if params.training.other_label_smoothings else 0
    published = len(NETWORKS) * seeds  # sets of samples
    kept = published if params.evaluation.keep_samples else 0  # besides, no link
    edited = images(min(params.editing.images, data.val))
    draws = images(min(hidden.images, data.val) * hidden.draws)
    every = params.classifier.checkpoint_every
    cas = by_name["classifier"].checkpoint or 0
    return [
        Storage("prepare", data.shard_bytes or 0),
        _training(by_name["classifier"], every),
        _training(by_name["tokenizer"], params.tokenizer.checkpoint_every),
        Storage("cache_tokens", token_cache_bytes(params, data)),
        _training(by_name["transformer"], params.training.checkpoint_every, keeps_models=True),
        _training(by_name["autoregressive"], params.training.checkpoint_every, keeps_models=True),
        _sweep(params, by_name["transformer"]),
        Storage(
            "evaluate",
            published * encoded_bytes(params, sampled),
            kept * encoded_bytes(params, sampled),
            2 * max(images(data.val), images(others)),
        ),
        Storage("cas", 0, CAS_SETS * seeds * _kept(params.cas.steps, every) * cas, cas),
        Storage("temperature", 0, 0, 2 * images(params.temperature.samples)),
        Storage("edit", 0, 0, 3 * edited),  # the originals, and composites as those of other sets
        Storage("reconstruct", 0, seeds * len(hidden.mask_ratios) * draws, draws),
        Storage("features of images", 0, features_bytes(params, data)),
    ]


def _training(network: Network, every: int, keeps_models: bool = False) -> Storage:
    """A model for each training (one where released weights take its place), and live ones: of each
    its checkpoints, one in `every` steps, and its finished model where the stage has several."""
    trainings, model = (network.trainings if network.steps else 1), network.published or 0
    checkpoint = (network.checkpoint or 0) if network.steps else 0
    kept = _kept(network.steps, every) * checkpoint
    kept += model if keeps_models and network.steps else 0
    return Storage(f"train_{network.name}", trainings * model, trainings * kept, checkpoint)


def encoded_bytes(params: Params, count: int) -> int:
    """Size, at most, of samples in shards; of noise they take a little more than their pixels."""
    pixels = params.data.channels * params.data.image_size**2
    return round(count * (PNG_SHARE * pixels + PNG_BYTES))


def image_bytes(params: Params, count: int) -> int:
    """Size of a set of samples as an array: uint8 pixels."""
    return NPY_HEADER + count * params.data.channels * params.data.image_size**2


def token_cache_bytes(params: Params, data: DataSize) -> int:
    """Size of the token cache: uint16 grids of every view, and int32 labels."""
    total = 0
    for images, views in ((data.train, params.tokens.crops_per_image), (data.val, 1)):
        files = -(-images // SHARD) + 1  # shards of grids, and one of labels
        total += files * NPY_HEADER + images * (2 * views * params.num_tokens + 4)
    return total


def features_bytes(params: Params, data: DataSize) -> int:
    """Size of the features that are kept of every set of images that is measured, float32."""
    sets = measured_sets(params, data)
    names = {name for each in sets for name in each.extractors}
    dimensions = {name: _dimensions(name, params, data) for name in names}
    return sum(
        FEATURES_HEADER + 4 * each.images * dimensions[name]
        for each in sets
        for name in each.extractors
    )


def _dimensions(extractor: str, params: Params, data: DataSize) -> int:
    """Features and logits of an image."""
    if extractor in PRETRAINED:
        return PRETRAINED[extractor]
    head = costs.on_meta(lambda: costs.classifier_of(params, data.classes)).head
    return head.in_features + head.out_features


def _kept(steps: int, every: int) -> int:
    """How many checkpoints of a training are there at its end."""
    return min(limits.CHECKPOINTS, -(-steps // every))


def _sweep(params: Params, transformer: Network) -> Storage:
    """A checkpoint and a model for each trial, and, while it is measured, samples of one T."""
    sweep = params.sweep
    trials = len(sweep.schedules) * len(sweep.seeds)
    checkpoints = _kept(sweep.steps, params.training.checkpoint_every)
    kept = (
        0
        if params.transformer.pretrained
        else trials * (checkpoints * (transformer.checkpoint or 0) + (transformer.published or 0))
    )
    return Storage("sweep", 0, kept, 2 * image_bytes(params, sweep.samples))
