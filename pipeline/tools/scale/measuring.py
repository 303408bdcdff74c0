"""Training, sampling and measuring every cell of a grid that its file of rows does not have."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config.curves import check_curves
from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.decoding import DecodingSettings
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.metrics import require_enough, sample_metric_names
from pipeline.evaluation.seen import Seen
from pipeline.runtime.batches import Alone, joined
from pipeline.runtime.dag import stage_key
from pipeline.runtime.device import pick_device
from pipeline.runtime.files import tree_hash, value_hash
from pipeline.sampling import Network, Sampler, sample_batches
from pipeline.tokenizer import Tokenizer
from pipeline.tools.scale.grid import Decoding, Grid, Training
from pipeline.tools.scale.rows import CELL, RUN, Rows, rows_of
from pipeline.tools.scale.training import networks_at, training_dir
from pipeline.weights.published import load_model

# What a cell here does not share with the stage that measures the networks: values of its own, the
# networks, and what that stage does besides.
NOT_SHARED = (
    "decoding.iterations",
    "decoding.choice_temperature",
    "evaluation.seeds",
    "evaluation.samples",
    "evaluation.halves",
    "evaluation.second_extractor",
    "evaluation.vgg_weights",
    "training",
    "cas",
    "sweep",
    "temperature",
    "editing",
    "rejection",
    "ray",
    CURVES.as_posix(),
    "models/transformer",
    "models/autoregressive",
    "stages",
    "pipeline/experiments",
)


def scale(params: Params, grid: Grid, path: Path) -> str:
    """Add a row to the CSV file for every cell of the grid that it lacks.

    Networks are trained on the token cache, and their samples measured against the training images,
    of the project in the working directory, whose tokenizer and classifier are used as they are.

    Raises:
        UserError: the project has no token cache, tokenizer or classifier yet, or curves of other
            code; the samples are too few; the file has other columns or holds cells of another
            training, or another process adds to it.
    """
    check_curves(grid.schedules, params)
    metrics = [*sample_metric_names(params.evaluation.extractor), "class_accuracy"]
    with rows_of(path) as rows:
        rows.require([*CELL, RUN, "nll", *metrics])
        return f"{_add(params, grid, rows)} rows added to {path}"


def _add(params: Params, grid: Grid, rows: Rows) -> int:
    device, added, measured = pick_device(), 0, stage_key("evaluate", NOT_SHARED)
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    evaluator = Evaluator(params, Alone(device))
    count, dimensions = evaluator.reference.features.shape
    require_enough("--samples", grid.samples, (count, dimensions), params.evaluation)
    views = TokenCache(TOKENS, "train").views
    for training in grid.trainings():
        key = partial(_key, training_dir(training, params).name, measured)
        cells = {
            steps: [
                (decoding, cell)
                for decoding in grid.decodings(training)
                if (cell := _cell(training, steps, decoding, views, grid, params) | key(decoding))
                not in rows
            ]
            for steps in grid.steps
        }
        missing = [steps for steps, found in cells.items() if found]
        for steps, network, nll in networks_at(training, missing, params, device):
            for decoding, cell in cells[steps]:
                values = _measure(network, decoding, cell, tokenizer, evaluator)
                rows.append(cell | {"nll": nll} | values)
                added += 1
            print(f"scale: {training.name}, {steps} steps measured", flush=True)
    return added


def _cell(
    training: Training,
    steps: int,
    decoding: Decoding | None,
    views: int,
    grid: Grid,
    params: Params,
) -> dict[str, Any]:
    """The columns that name a cell; those of decoding are empty for the baseline, but for its
    iterations, of which it needs one for each token."""
    return {
        "network": training.network,
        "tokens": params.num_tokens,
        "views": views,
        "label_smoothing": float(training.label_smoothing),
        "seed": training.seed,
        "steps": steps,
        "decode_schedule": decoding.schedule if decoding else None,
        "iterations": decoding.iterations if decoding else params.num_tokens,
        "choice_temperature": float(decoding.choice_temperature) if decoding else None,
        "samples": grid.samples,
    }


def _key(trained: str, measured: dict[str, Any], decoding: Decoding | None) -> dict[str, str]:
    """The column that tells what a cell depends on besides.

    Args:
        trained: name of its training's folder, a hash.
        measured: what the measuring depends on.
    """
    curve = tree_hash(CURVES / f"{decoding.schedule}.csv") if decoding else None
    return {RUN: value_hash([trained, measured, curve])[:12]}


def _measure(
    network: Network,
    decoding: Decoding | None,
    cell: dict[str, Any],
    tokenizer: Tokenizer,
    evaluator: Evaluator,
) -> dict[str, float | None]:
    """Metrics of samples of the network, drawn with the training's seed."""
    params, seed = evaluator.params, cell["seed"]
    labels = evaluator.labels(cell["samples"])
    draw, settings = Sampler(network, tokenizer), _settings(decoding, params)
    size = params.decoding.batch_size
    batches = sample_batches(settings, labels, batch_size=size, seed=mix(seed, "scale"))
    networks = evaluator.networks()
    seen = [networks(draw(*batch)) for batch in batches]
    return evaluator.sampled(Seen.of(joined(seen)), labels, seed)


def _settings(decoding: Decoding | None, params: Params) -> DecodingSettings:
    if decoding is None:
        return params.decoding_settings(autoregressive=True)
    return replace(
        params.decoding_settings(iterations=decoding.iterations),
        schedule=decoding.schedule,
        choice_temperature=decoding.choice_temperature,
    )
