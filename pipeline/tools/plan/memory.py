"""About what a worker's device holds in each stage: its networks' weights, and the tensors that are
alive at once, which the stage's own code makes without content, on the meta device or under torch's
FakeTensorMode.

All that predicts is in float32. Not counted: what PyTorch itself and CUDA need, what is free and
not given back, and the stage's own process, where a worker has the same device.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import torch

# torch has no public name for networks without memory that still compute on their own device.
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline import masking
from pipeline.autoregressive import CACHE_BYTES, AutoregressiveTransformer, cache_bytes
from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, replicates
from pipeline.config.trainings import workers_per_classifier, workers_per_trial
from pipeline.data.microbatches import TENSOR_BYTES
from pipeline.decoding import decode_steps, predictor
from pipeline.evaluation import reconstruction
from pipeline.evaluation.images import BATCH
from pipeline.perceptual import pair_bytes
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.tools.plan.allocations import Allocations
from pipeline.tools.plan.measured import Reader, judges, measured_sets, reader
from pipeline.tools.plan.networks import DataSize, Network, plan_network
from pipeline.training import classifier
from pipeline.training.networks import preview_size
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config

OPEN = 4  # replicates whose networks are open at once, at most
PREDICTING = 6  # largest tensors that are alive at once in a network that predicts in parts
VGG_WIDTH = 64  # channels of VGG's first stage, which `pair_bytes` is of


def stage_memory(params: Params, data: DataSize, networks: list[Network]) -> dict[str, int]:
    """Bytes, for each stage that computes with networks of the run's sizes.

    Args:
        networks: the run's, as `plan_networks` has them.
    """
    memory = _Memory(params, data, networks)
    seeds = len(params.evaluation.seeds)
    trained = sum(len(replicates(params, network)) for network in NETWORKS)
    own = params.ray.num_workers
    selects = any(each.stage == "reject" for each in measured_sets(params, data))
    return {
        "train_classifier": memory.training("classifier", own),
        "train_tokenizer": memory.training("tokenizer", own),
        "cache_tokens": 2 * memory.weights["tokenizer"] + memory.coding,  # one for each split
        "train_transformer": memory.training("transformer", own),
        "train_autoregressive": memory.training("autoregressive", own),
        "sweep": max(
            memory.sampling(1, memory.likelihood),
            0
            if params.transformer.pretrained
            else memory.training("transformer", workers_per_trial(params), logs=False),
        ),
        "evaluate": memory.evaluation(trained),
        "cas": memory.training("classifier", workers_per_classifier(params)),
        "temperature": memory.sampling(seeds),
        "edit": memory.editing(seeds),
        "reject": sum(memory.scoring) if selects else 0,  # else all has been looked at
        "reconstruct": memory.editing(seeds, scored=False),
    }


class _Memory:
    """What is alive at once, in bytes. A worker keeps the networks of several replicates open."""

    def __init__(self, params: Params, data: DataSize, networks: list[Network]):
        self.params, self.data, self.networks = params, data, networks
        self.weights = {network.name: 4 * network.parameters for network in networks}
        own = params.evaluation.samples, params.cas.samples, params.temperature.samples
        self.batch = min(params.decoding.batch_size, max(*own, params.sweep.samples))
        coded = min(params.tokens.batch_size, data.train)
        self.coding, self.decoding = _coding(params, coded, self.batch)
        self.drawing = _drawing(params, data, self.batch)
        self.in_turn = _drawing_in_turn(params, data, self.batch)
        self.rebuilding = max(_coding(params, reconstruction.BATCH, reconstruction.BATCH))
        self.preview = preview_size(data.classes)
        self.previewing = _coding(params, self.preview, self.preview)[1]
        self.likelihood = _likelihood(params, data)
        self.scoring = _scoring(params, data, judges(params))

    def training(self, name: str, workers: int, logs: bool = True) -> int:
        """A network's training by so many workers, and what it is looked at with meanwhile.

        Args:
            logs: it draws samples for MLflow.
        """
        trained = self._trained(name, workers)
        steps = trained.get(name, 0)
        if name == "tokenizer":  # beside which its discriminator is trained
            steps += trained.get("discriminator", 0)
        # Weights, gradients, two moments and, but for the classifier, an average.
        state = (4 + (name != "classifier")) * self.weights[name] if steps else self.weights[name]
        return max(steps, state + (self._looking(name) if logs else self.likelihood))

    def _trained(self, name: str, workers: int) -> dict[str, int]:
        networks = self.networks
        if workers != self.params.ray.num_workers:
            ray = self.params.ray.model_copy(update={"num_workers": workers})
            params = self.params.model_copy(update={"ray": ray})
            networks = [plan_network(name, params, self.data)]
        return {network.name: network.memory for network in networks if network.steps}

    def _looking(self, name: str) -> int:
        """At validation images or tokens, and the samples that are logged."""
        if name == "classifier":
            return _classifying(self.params, self.data)
        if name == "tokenizer":
            return self.rebuilding
        draw = _drawing if name == "transformer" else _drawing_in_turn
        drawn = max(draw(self.params, self.data, self.preview), self.previewing)
        return max(self.likelihood, self.weights["tokenizer"] + drawn)

    def sampling(self, replicates: int, look: int = 0) -> int:
        """Samples that are drawn and scored.

        Args:
            look: what the networks are looked at with besides.
        """
        weights, scored = self.scoring
        return self._open(replicates, weights) + max(self.drawing, self.decoding, scored, look)

    def evaluation(self, replicates: int) -> int:
        main, second = judges(self.params), self.params.evaluation.second_extractor
        weights, scored = _scoring(self.params, self.data, main | {second})
        drawn = max(self.drawing, self.in_turn, self.decoding, self.rebuilding)
        return self._open(replicates, weights) + max(drawn, scored, self.likelihood)

    def editing(self, replicates: int, scored: bool = True) -> int:
        """Edits or reconstructions, and their distances from the originals."""
        weights, look = self.scoring if scored else (0, 0)
        coded = max(_coding(self.params, self.batch, self.batch))
        most = max(self.drawing, coded, look, _distances(self.params, self.batch))
        return self._open(replicates, weights) + most

    def _open(self, replicates: int, extractors: int) -> int:
        """Weights of the networks of each replicate that is open."""
        largest = max(self.weights["transformer"], self.weights["autoregressive"])
        return min(OPEN, replicates) * (largest + self.weights["tokenizer"] + extractors)


def _peak(run: Callable[[], object]) -> int:
    """Bytes of the tensors that a function makes and that are alive at once."""
    with torch.no_grad(), Allocations() as seen:
        run()
    return seen.peak


def _in_parts(peak: Callable[[int], int], batch: int, row: int, given: int) -> int:
    """What a batch needs that goes through a network in parts: one of them beside what all have
    given, or that twice, as it is put together.

    Args:
        peak: of so many rows at once.
        row: bytes of the largest tensor of a row, by which parts are cut.
        given: bytes of a row's result.
    """
    rows = min(batch, max(1, TENSOR_BYTES // row))
    if rows == batch:
        return peak(batch)
    return max(peak(rows) + (batch - rows) * given, 2 * batch * given)


def _coding(params: Params, encoded: int, decoded: int) -> tuple[int, int]:
    """The encoding and the decoding of so many images."""
    tokenizer = costs.on_meta(lambda: Tokenizer(tokenizer_config(params)))
    row, pixels = tokenizer.config.image_bytes(params.data.image_size), params.data.image_size**2

    def encode(count: int) -> int:
        images = costs.image_batch(params, count)
        return _peak(lambda: tokenizer.encode(images))

    def decode(count: int) -> int:
        shape = (count, params.grid, params.grid)
        tokens = torch.empty(shape, dtype=torch.long, device="meta")
        return _peak(lambda: tokenizer.decode(tokens))

    return (
        _in_parts(encode, encoded, row, 8 * params.num_tokens),
        _in_parts(decode, decoded, row, 4 * params.data.channels * pixels),
    )


def _drawing(params: Params, data: DataSize, batch: int) -> int:
    """An iteration of MaskGIT's decoding, while the logits of the one before are there. All of a
    network's layers need what one needs."""
    config = replace(transformer_config(params, data.classes), layers=1)
    settings = replace(params.decoding_settings(iterations=3), bf16=False)
    model = costs.on_meta(lambda: MaskGitTransformer(config)).eval()
    guided = 2 if settings.guidance_scale else 1
    logits = 4 * config.num_tokens * config.codebook_size

    def predict(count: int) -> int:
        tokens = torch.zeros(count, config.num_tokens, dtype=torch.long)
        predicted = predictor(model, tokens[:, 0], settings)
        return _peak(lambda: predicted(tokens, tokens.bool()))

    # Noise is drawn by a CPU's generator, which a meta device does not know.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        network = _in_parts(predict, batch, guided * config.image_bytes, logits)
        tokens = torch.zeros(batch, config.num_tokens, dtype=torch.long)
        unknown, noise = tokens == 0, torch.Generator()
        shape = (*tokens.shape, config.codebook_size)
        steps = decode_steps(lambda *_: torch.empty(shape), tokens, unknown, settings, noise)
        # Not the third: after the last one the logits' values are looked at.
        sampling = _peak(lambda: list(islice(steps, 2)))
    return max(network + batch * logits, sampling)


def _drawing_in_turn(params: Params, data: DataSize, batch: int) -> int:
    """The keys and values of the baseline's samples, beside which all else is little."""
    config = transformer_config(params, data.classes)
    image = cache_bytes(costs.on_meta(lambda: AutoregressiveTransformer(config)))
    return image * min(batch, max(1, CACHE_BYTES // image))


def _likelihood(params: Params, data: DataSize) -> int:
    """A look at a batch of validation tokens."""
    config = replace(transformer_config(params, data.classes), layers=1)
    model = costs.on_meta(lambda: MaskGitTransformer(config)).eval()

    def look(count: int) -> int:
        tokens = torch.empty(count, config.num_tokens, dtype=torch.long, device="meta")
        return _peak(lambda: model.predict(tokens, tokens.bool(), tokens[:, 0]).log_softmax(-1))

    return _in_parts(look, min(masking.BATCH, data.val), config.image_bytes, given=0)


def _classifying(params: Params, data: DataSize) -> int:
    """A look at a batch of validation images."""
    model = costs.on_meta(lambda: costs.classifier_of(params, data.classes)).eval()

    def look(count: int) -> int:
        images = costs.image_batch(params, count)
        return _peak(lambda: model(images))

    row = model.image_bytes(params.data.image_size)
    return _in_parts(look, min(classifier.BATCH, data.val), row, given=0)


def _scoring(params: Params, data: DataSize, extractors: frozenset[str]) -> tuple[int, int]:
    """The weights of extractors, and a batch of features of the one that needs most."""

    def looking(of: Reader) -> int:
        images = torch.empty(BATCH, of.channels, of.side, of.side, device="meta")
        return _peak(lambda: of.network(images))

    readers = [reader(name, params, data) for name in extractors]
    weights = sum(4 * costs.parameter_count(each.network) for each in readers)
    return weights, max(map(looking, readers))


def _distances(params: Params, batch: int) -> int:
    """Perceptual distances of a batch."""
    pair = pair_bytes(params.data.image_size)
    if params.tokenizer.perceptual == "classifier":
        pair = pair * params.classifier.width // VGG_WIDTH
    return PREDICTING * min(batch * pair, TENSOR_BYTES)
