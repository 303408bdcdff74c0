"""What a worker's device holds in each stage, at most: its networks' weights, and the tensors that
are alive at once as the stage's own code makes them, which is run under torch's FakeTensorMode,
where no tensor has content.

All that predicts is counted in float32; in bfloat16 it needs less.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.autoregressive import CACHE_BYTES, AutoregressiveTransformer, cache_bytes
from pipeline.config.params import Params
from pipeline.config.trainings import workers_per_classifier, workers_per_trial
from pipeline.decoding import generate_steps
from pipeline.evaluation.images import BATCH
from pipeline.perceptual import pair_bytes
from pipeline.runtime.parts import TENSOR_BYTES
from pipeline.tokenizer import Tokenizer
from pipeline.tools.plan import costs
from pipeline.tools.plan.allocations import Allocations
from pipeline.tools.plan.measured import Reader, judges, reader
from pipeline.tools.plan.networks import DataSize, Network, plan_networks
from pipeline.transformer import MaskGitTransformer
from pipeline.weights.configs import tokenizer_config, transformer_config

PREDICTING = 6  # largest tensors that are alive at once in a network that predicts in parts
VGG_WIDTH = 64  # channels of VGG's first stage, which `pair_bytes` is of


def stage_memory(params: Params, data: DataSize, networks: list[Network]) -> dict[str, int]:
    """Bytes, for each stage that computes with networks.

    Args:
        networks: the run's, as `plan_networks` has them.
    """
    weights = {network.name: 4 * network.parameters for network in networks}
    trained = {network.name: network.memory for network in networks if network.steps}
    coding, decoding = _coding(params)
    drawing, in_turn = _drawing(params, data), _drawing_in_turn(params, data)
    main = judges(params)
    scoring, scored = _scoring(params, data, main)
    looking, looked = _scoring(params, data, main | {params.evaluation.second_extractor})
    both = weights["transformer"] + weights["tokenizer"]
    sampling = both + scoring + max(drawing, decoding, scored)
    tokenizer = trained.get("tokenizer", 0) + trained.get("discriminator", 0)
    return {
        "train_classifier": trained["classifier"],
        "train_tokenizer": tokenizer or weights["tokenizer"] + max(coding, decoding),
        "cache_tokens": weights["tokenizer"] + coding,
        "train_transformer": trained.get("transformer", both + max(drawing, decoding)),
        "train_autoregressive": trained["autoregressive"],
        "sweep": max(sampling, _of_a_trial(params, data, networks)),
        "evaluate": both
        + weights["autoregressive"]
        + looking
        + max(drawing, in_turn, decoding, looked),
        "cas": _training(params, data, networks, "classifier", workers_per_classifier(params)),
        "temperature": sampling,
        "edit": max(sampling, both + scoring + _distances(params)),
        "reconstruct": both + max(drawing, decoding, _distances(params)),
    }


def _of_a_trial(params: Params, data: DataSize, networks: list[Network]) -> int:
    if params.transformer.pretrained:
        return 0
    return _training(params, data, networks, "transformer", workers_per_trial(params))


def _training(
    params: Params, data: DataSize, networks: list[Network], name: str, workers: int
) -> int:
    """The training of a network by so many workers."""
    if workers != params.ray.num_workers:
        ray = params.ray.model_copy(update={"num_workers": workers})
        networks = plan_networks(params.model_copy(update={"ray": ray}), data)
    return next(network.memory for network in networks if network.name == name)


def _peak(run: Callable[[], object]) -> int:
    """Bytes of the tensors that a function makes and that are alive at once."""
    with torch.no_grad(), Allocations() as seen:
        run()
    return seen.peak


def _coding(params: Params) -> tuple[int, int]:
    """The encoding of a batch of the token cache, and the decoding of one of samples."""
    tokenizer = costs.on_meta(lambda: Tokenizer(tokenizer_config(params)))
    images = costs.image_batch(params, params.tokens.batch_size)
    shape = (params.decoding.batch_size, params.grid, params.grid)
    tokens = torch.empty(shape, dtype=torch.long, device="meta")
    return _peak(lambda: tokenizer.encode(images)), _peak(lambda: tokenizer.decode(tokens))


def _drawing(params: Params, data: DataSize) -> int:
    """Two iterations of MaskGIT's decoding: the second still has the first one's logits. All of a
    network's layers need what one needs."""
    config = replace(transformer_config(params, data.classes), layers=1)
    settings = replace(params.decoding_settings(iterations=3), bf16=False)
    model = costs.on_meta(lambda: MaskGitTransformer(config)).eval()
    # Noise is drawn by a CPU's generator, which a meta device does not know.
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        labels = torch.zeros(params.decoding.batch_size, dtype=torch.long)
        # Not the third: after the last one the logits' values are looked at.
        return _peak(lambda: list(islice(generate_steps(model, labels, settings, seed=0), 2)))


def _drawing_in_turn(params: Params, data: DataSize) -> int:
    """The keys and values of the baseline's samples, beside which all else is little."""
    config = transformer_config(params, data.classes)
    image = cache_bytes(costs.on_meta(lambda: AutoregressiveTransformer(config)))
    return image * min(params.decoding.batch_size, max(1, CACHE_BYTES // image))


def _scoring(params: Params, data: DataSize, extractors: frozenset[str]) -> tuple[int, int]:
    """The weights of extractors, and a batch of features of the one that needs most."""

    def looking(of: Reader) -> int:
        images = torch.empty(BATCH, of.channels, of.side, of.side, device="meta")
        return _peak(lambda: of.network(images))

    readers = [reader(name, params, data) for name in extractors]
    weights = sum(4 * costs.parameter_count(each.network) for each in readers)
    return weights, max(map(looking, readers))


def _distances(params: Params) -> int:
    """Perceptual distances of a batch."""
    pair = pair_bytes(params.data.image_size)
    if params.tokenizer.perceptual == "classifier":
        pair = pair * params.classifier.width // VGG_WIDTH
    return PREDICTING * min(params.decoding.batch_size * pair, TENSOR_BYTES)
