"""What each stage writes to disk, in bytes: what grows with the run, and not tables, pictures, logs
or MLflow's files."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS
from pipeline.config.trainings import classifier_count, trial_count
from pipeline.data.tokens import SHARD
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.experiments.reconstruct import PICTURED
from pipeline.runtime import limits
from pipeline.tools.plan import costs
from pipeline.tools.plan.measured import PRETRAINED, Measured, judges, measured_sets
from pipeline.tools.plan.networks import DataSize, Network

NPY_HEADER = 128
# Samples as PNGs in shards: photographs of 256 × 256 take about 0.6 of their pixels' bytes, digits
# 0.35; and for each what a PNG and a row of a shard add, which tells where pictures are small.
PNG_SHARE, PNG_BYTES = 0.7, 160
# Features and logits of the pretrained extractors (`pipeline.evaluation.features`).
SEEN = {"inception": 2048 + 1008, "vgg": 4096}
FEATURES_HEADER, TENSORS_HEADER = 160, 320


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
    rebuilt = len(hidden.mask_ratios) * reconstructions_bytes(params, data)

    def seen(stage: str) -> int:
        """Of the largest set that the stage measures as it is made."""
        sets = [s for s in measured_sets(params, data) if s.stage == stage and not s.kept]
        return max((seen_bytes(s, params, data) for s in sets), default=0)

    sampled = max(params.evaluation.samples, params.cas.samples)
    published = len(NETWORKS) * seeds  # sets of samples
    kept = published if params.evaluation.keep_samples else 0  # besides, no link
    every = params.classifier.checkpoint_every
    cas = by_name["classifier"].checkpoint or 0
    return [
        Storage("prepare", data.shard_bytes or 0),
        _training(by_name["classifier"], every),
        _training(by_name["tokenizer"], params.tokenizer.checkpoint_every),
        Storage("cache_tokens", token_cache_bytes(params, data)),
        _training(by_name["transformer"], params.training.checkpoint_every, keeps_models=True),
        _training(by_name["autoregressive"], params.training.checkpoint_every, keeps_models=True),
        _sweep(params, data, by_name["transformer"]),
        Storage(
            "evaluate",
            published * encoded_bytes(params, sampled),
            kept * encoded_bytes(params, sampled),
            seen("evaluate"),
        ),
        Storage("cas", 0, classifier_count(params) * _kept(params.cas.steps, every) * cas, cas),
        Storage("temperature", 0, 0, seen("temperature")),
        Storage("edit", 0, 0, seen("edit")),
        Storage("reconstruct", 0, seeds * rebuilt, rebuilt),
        Storage("features of images", 0, features_bytes(params, data)),
    ]


def outputs_bytes(storage: list[Storage]) -> int:
    """What lies in the project in the end, and once more in DVC's cache."""
    return sum(s.outputs for s in storage)


def runs_bytes(storage: list[Storage]) -> int:
    """What lies under `ray.storage_path`: all live copies, and what the stage that needs most needs
    besides while it runs."""
    return sum(s.live for s in storage) + max(s.passing for s in storage)


def disk_bytes(storage: list[Storage]) -> int:
    """What the disk must hold: outputs twice, and run directories."""
    return 2 * outputs_bytes(storage) + runs_bytes(storage)


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


def reconstructions_bytes(params: Params, data: DataSize) -> int:
    """Size of what is kept of the reconstructions of a mask ratio: two distances of each image and
    draw and of the median, and the images that are pictured, twice."""
    p, images = params.reconstruction, min(params.reconstruction.images, data.val)
    pixels = params.data.channels * params.data.image_size**2
    return TENSORS_HEADER + 8 * images * (p.draws + 1) + 2 * min(images, PICTURED) * pixels


def seen_bytes(measured: Measured, params: Params, data: DataSize) -> int:
    """Size of what the networks see in a set that is measured as it is made, float32."""
    e, judge = params.evaluation, costs.on_meta(lambda: costs.classifier_of(params, data.classes))
    numbers = _dimensions(e.extractor, params, data)
    numbers += judge.head.out_features if e.extractor != "classifier" else 0
    if measured.stage == "evaluate":  # which looks through the second extractor as well
        pretrained = {"inception": 2048, "vgg": 4096}
        numbers += pretrained.get(e.second_extractor, judge.head.in_features)
    return 4 * measured.images * numbers


def token_cache_bytes(params: Params, data: DataSize) -> int:
    """Size of the token cache: uint16 grids of every view, and int32 labels."""
    total = 0
    for images, views in ((data.train, params.tokens.crops_per_image), (data.val, 1)):
        files = -(-images // SHARD) + 1  # shards of grids, and one of labels
        total += files * NPY_HEADER + images * (2 * views * params.num_tokens + 4)
    return total


def features_bytes(params: Params, data: DataSize) -> int:
    """Size of the features that are kept, of every set of images that is, float32."""
    sets = [each for each in measured_sets(params, data) if each.kept]
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
        return SEEN[extractor]
    head = costs.on_meta(lambda: costs.classifier_of(params, data.classes)).head
    return head.in_features + head.out_features


def _kept(steps: int, every: int) -> int:
    """How many checkpoints of a training are there at its end."""
    return min(limits.CHECKPOINTS, -(-steps // every))


def _sweep(params: Params, data: DataSize, transformer: Network) -> Storage:
    """A checkpoint and a model for each trial, and, while those that run at once are measured, what
    is seen in the samples of one T of each."""
    sweep = params.sweep
    trials = trial_count(params)
    checkpoints = _kept(sweep.steps, params.training.checkpoint_every)
    kept = (
        0
        if params.transformer.pretrained
        else trials * (checkpoints * (transformer.checkpoint or 0) + (transformer.published or 0))
    )
    at_once = min(trials, max(1, params.ray.num_workers // trial_workers(params).count))
    cell = Measured("sweep", sweep.samples, judges(params))
    return Storage("sweep", 0, kept, at_once * seen_bytes(cell, params, data))
