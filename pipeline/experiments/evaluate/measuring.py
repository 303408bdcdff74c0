"""Table 1: samples of every replicate of MaskGIT and the baseline, reconstructions (what the
tokenizer alone loses) and held-out real images, all measured in the same way."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.replicates import Replicate, label_smoothing
from pipeline.data.images.samples import are_written, draw_samples, publish_samples
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.fid import fid
from pipeline.evaluation.images import CenterCrops, SampleImages
from pipeline.evaluation.metrics import require_enough, unless_few
from pipeline.evaluation.reconstruction import BATCH, Reconstruction
from pipeline.evaluation.samplers import sampler_of
from pipeline.evaluation.seen import Row, Seen, keep_row
from pipeline.experiments.evaluate.neighbours import neighbour_distances
from pipeline.runtime.batches import Alone, Maker, make_tensors
from pipeline.runtime.files import read_json
from pipeline.sampling import Sampler, sample_batches
from pipeline.training.likelihood import held_out_nll
from pipeline.weights.published import load_model

IDENTITY = ("images", "label_smoothing", "seed")
ENCODED = "samples"  # of a main replicate, as shards in its run folder


def evaluate_all(
    params: Params, folders: Mapping[Replicate, Path], images_folder: Path, workers: Alone
) -> list[Row]:
    """A row of metrics for the samples of every replicate, for "reconstruction" and for "real". The
    samples of main replicates are published.

    Args:
        folders: of each replicate; keeps its samples and its row if the run is killed.
        images_folder: keeps the row of the reconstructions likewise.

    Raises:
        UserError: the samples will be too few for a metric, which params cannot tell of features
            whose dimensions a torchvision network decides.
    """
    evaluator, rows = Evaluator(params, workers), []
    evaluation, reference = params.evaluation, evaluator.reference
    size = (len(reference.features), reference.features.shape[1])
    require_enough("evaluation.samples", evaluation.samples, size, evaluation)
    real = CenterCrops(IMAGES, "val", params.data)
    for replicate, folder in folders.items():
        rows.append(_replicate_row(replicate, folder, evaluator, real.view.images.class_names))
        print(
            f"evaluate: {replicate.network}/{replicate.name} measured on "
            f"{params.evaluation.samples} samples",
            flush=True,
        )
    rows.append(_reconstruction_row(real, images_folder, evaluator))
    rows.append({"images": "real"} | evaluator.measure(real, real.labels))
    return rows


def _replicate_row(
    replicate: Replicate, folder: Path, evaluator: Evaluator, class_names: list[str]
) -> Row:
    """Sample and measure a replicate, unless its folder has it already; publish its samples."""
    params, finished, sampler = evaluator.params, folder / "row.json", sampler_of(replicate)
    if replicate.main:
        _draw(replicate, sampler, evaluator, class_names, folder)
    keep_row(finished, partial(_measured, replicate, sampler, evaluator, folder))
    if replicate.main:
        publish_samples(folder / ENCODED, replicate.samples, copy=params.evaluation.keep_samples)
    own = {"label_smoothing": label_smoothing(params, replicate), "seed": replicate.seed}
    return {"images": replicate.network} | own | read_json(finished)


def _measured(
    replicate: Replicate, sampler: Maker, evaluator: Evaluator, folder: Path, path: Path
) -> Row:
    """The metrics of a replicate: of its samples in the folder, or of such as are drawn for it.

    Args:
        path: of what is seen in those.
    """
    params = evaluator.params
    if replicate.main:
        images = SampleImages(folder / ENCODED, params.data, params.evaluation.samples)
        row: Row = evaluator.measure(images, images.labels)
    else:
        labels, batches, name = _drawing(replicate, sampler, evaluator)
        shown = evaluator.shown(sampler, second=True)
        seen = make_tensors(path, evaluator.workers, shown, batches, name)
        row = evaluator.metrics_of(Seen.of(seen), labels)
    networks = sampler.open(evaluator.workers.device)
    row |= _network_metrics(replicate, networks, evaluator, folder)
    if replicate.main and replicate.network == "transformer":
        row |= neighbour_distances(evaluator, images)
    return row


def drop_samples(folders: Mapping[Replicate, Path]) -> None:
    """Delete what run folders have of the published samples. For the end of a stage: one that is
    killed before goes on with them, and one that runs again after this draws them anew."""
    for replicate, folder in folders.items():
        if replicate.main:
            shutil.rmtree(folder / ENCODED, ignore_errors=True)


def mean_metrics(rows: list[Row], params: Params) -> dict[str, dict[str, float | None]]:
    """Each set's metrics: means over the main replicates. One that a replicate lacks is None."""
    main = params.training.label_smoothing
    sets: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("label_smoothing", main) == main:
            sets.setdefault(row["images"], []).append(row)
    means: dict[str, dict[str, float | None]] = {}
    for name, members in sets.items():
        keys = [k for k in members[0] if k not in IDENTITY and not k.endswith("_std")]
        means[name] = {k: _mean([row[k] for row in members]) for k in keys}
    return means


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return known[0] if len(set(known)) == 1 else float(np.mean(known))


def _draw(
    replicate: Replicate, sampler: Maker, evaluator: Evaluator, names: list[str], folder: Path
) -> None:
    """Draw a main replicate's samples, unless its folder has them all.

    Args:
        names: of the classes.
    """
    if are_written(folder / ENCODED):
        return
    params = evaluator.params
    labels, batches, name = _drawing(replicate, sampler, evaluator)
    draw_samples(
        batches,
        labels.tolist(),
        names,
        workers=evaluator.workers,
        maker=sampler,
        batch_size=params.decoding.batch_size,
        shard_size=params.data.shard_size,
        folder=folder / ENCODED,
        name=name,
    )


def _drawing(
    replicate: Replicate, sampler: Maker, evaluator: Evaluator
) -> tuple[Tensor, list[tuple], str]:
    """Labels (M,) of a replicate's samples, the batches to draw, and their name in messages. CAS,
    too, is trained on those of a main one."""
    params = evaluator.params
    count = params.evaluation.samples
    if replicate.main:
        count = max(count, params.cas.samples)
    labels = evaluator.labels(count)
    batches = sample_batches(
        params.decoding_settings(autoregressive=replicate.network == "autoregressive"),
        labels,
        batch_size=params.decoding.batch_size,
        seed=replicate.seed,
    )
    return labels, batches, f"evaluate: samples of {replicate.network}/{replicate.name}"


def _network_metrics(
    replicate: Replicate, sampler: Sampler, evaluator: Evaluator, folder: Path
) -> Row:
    """What is measured of the network itself.

    Args:
        folder: as for `held_out_nll`.
    """
    params, network = evaluator.params, replicate.network
    given = (network, replicate.folder, params, replicate.seed)
    return {
        "nll": held_out_nll(*given, folder, evaluator.workers),
        "parameters": sum(
            p.numel() for m in (sampler.model, sampler.tokenizer) for p in m.parameters()
        ),
        # Forward passes of the network per image.
        "steps": params.num_tokens if network == "autoregressive" else params.decoding.iterations,
    }


class Rebuilder:
    """The tokenizer, and the validation images that it rebuilds."""

    def __init__(self, params: Params, device: torch.device):
        self.real = CenterCrops(IMAGES, "val", params.data)
        tokenizer = load_model(TOKENIZER, "tokenizer", device)
        self.reconstruction = Reconstruction(tokenizer, device)

    def __call__(self, start: int, stop: int) -> Tensor:
        """Reconstructions (B, C, H, W) uint8 of the images from `start` to before `stop`."""
        return self.reconstruction(self.real.read(start, stop))


def _reconstruction_row(real: CenterCrops, folder: Path, evaluator: Evaluator) -> Row:
    """Rebuild and measure the validation images, unless the folder has their row already."""
    finished, count = folder / "reconstruction.json", len(real)
    shown = evaluator.shown(Maker(Rebuilder, evaluator.params), second=True)
    batches = [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]

    def measure(path: Path) -> Row:
        name = "evaluate: reconstructions"
        seen = Seen.of(make_tensors(path, evaluator.workers, shown, batches, name))
        return evaluator.metrics_of(seen, real.labels) | _rfid(evaluator, seen, real)

    keep_row(finished, measure)
    return {"images": "reconstruction"} | read_json(finished)


def _rfid(evaluator: Evaluator, rebuilt: Seen, real: CenterCrops) -> Row:
    """rFID: the FID of the reconstructed validation images against the validation images. Where
    they are too few it is None, and a line says so."""
    rfid = None
    with unless_few():
        rfid = fid(rebuilt.samples.features, evaluator.features(real).features)
    return {f"rfid_{evaluator.extractor.name}": rfid}
