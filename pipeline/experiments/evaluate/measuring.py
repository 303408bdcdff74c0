"""Computes the metrics of Table 1 for the samples of every training run, real validation images,
and their reconstructions by the tokenizer, whose quality limits the quality of samples."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.replicates import Replicate, label_smoothing
from pipeline.data.images.samples import draw_samples
from pipeline.data.images.shards import SAMPLES, ImageShards, View
from pipeline.evaluation.evaluator import Evaluator, Outputs, kept_of_each, of_rows
from pipeline.evaluation.fid import fid
from pipeline.evaluation.metrics import disjoint, unless_few
from pipeline.evaluation.reconstruction import BATCH, rebuild
from pipeline.experiments.rows import Row, measured_row, open_sampler
from pipeline.runtime.batches import Maker
from pipeline.runtime.files import publish_folder, read_json, write_json
from pipeline.sampling import sample_batches
from pipeline.training.likelihood import held_out_nll
from pipeline.weights.published import load_model

IDENTITY = ("images", "label_smoothing", "seed")
ENCODED = "samples"  # folder with shards of samples, in a main replicate's run directory
REAL = "real"  # folder with the measuring networks' outputs for the validation images
# `nearest` compares blocks of BLOCK images with blocks of REFERENCE training images.
BLOCK, REFERENCE = 1000, 10_000


def evaluate_all(
    params: Params, folders: Mapping[Replicate, Path], images_folder: Path, evaluator: Evaluator
) -> list[Row]:
    """Compute a row of metrics for the samples of each replicate (training run), a row for the
    reconstructed validation images, and a row for the original ones. Also write the samples of
    replicates that were trained with `training.label_smoothing` to `data/samples/`.

    Args:
        folders: run directory of each replicate.
        images_folder: run directory for the rows of reconstructed and real images.
    """
    rows, real = [], View(ImageShards(IMAGES, "val"), params.data)
    held_out, names = evaluator.outputs(real, images_folder / REAL), real.images.class_names
    for replicate, folder in folders.items():
        rows.append(_replicate_row(replicate, folder, evaluator, names, held_out["features"]))
        name = f"{replicate.network}/{replicate.name}"
        print(f"evaluate: {name} measured on {params.evaluation.samples} samples", flush=True)
    rows.append(_reconstruction_row(real, images_folder, evaluator, held_out["features"]))
    rows.append({"images": "real"} | evaluator.metrics(held_out, real.labels))
    return rows


def _replicate_row(
    replicate: Replicate, folder: Path, evaluator: Evaluator, class_names: list[str], real: Tensor
) -> Row:
    """Read the row of metrics of a replicate (training run) from `folder`, or compute the row from
    new samples. If it was trained with `training.label_smoothing`, write its samples to
    `data/samples/`. `real` (R, F) are the features of the validation images."""
    params, network, file = evaluator.params, replicate.network, folder / "row.json"
    count, workers = params.evaluation.samples, evaluator.workers
    sampler = Maker(open_sampler, replicate)
    # CAS trains its classifiers on the samples of main replicates.
    labels = evaluator.labels(max(count, params.cas.samples) if replicate.main else count)
    settings = params.decoding_settings(autoregressive=network == "autoregressive")
    size = params.decoding.batch_size
    batches = sample_batches(settings, labels, batch_size=size, seed=replicate.seed)
    name = f"evaluate: samples of {network}/{replicate.name}"

    def measure(outputs: Outputs) -> Row:
        opened, seed = sampler.open(workers.device), replicate.seed
        networks = (opened.model, opened.tokenizer)
        return evaluator.metrics(outputs, labels[:count]) | {
            "nll": held_out_nll(network, replicate.folder, params, seed, folder, workers),
            "parameters": sum(p.numel() for n in networks for p in n.parameters()),
            # Forward passes per image.
            "steps": params.num_tokens if network == "autoregressive" else settings.iterations,
        }

    if replicate.main:
        samples = folder / ENCODED
        draw_samples(
            *(batches, labels.tolist(), class_names),
            workers=workers,
            maker=sampler,
            batch_size=size,
            shard_size=params.data.shard_size,
            folder=samples,
            name=name,
        )
        if not file.exists():
            images = View(ImageShards(samples, SAMPLES), params.data, count=count)
            outputs = evaluator.outputs(images, folder / "outputs")
            row = measure(outputs)
            if network == "transformer":
                row |= neighbour_distances(evaluator, outputs["features"], real)
            write_json(file, row)
        publish_folder(samples, replicate.samples, keep=True)
        row = read_json(file)
    else:
        sampling = evaluator.on_the_fly(sampler)
        row = measured_row(file, workers, sampling, batches, name, measure)
    own = {"label_smoothing": label_smoothing(params, replicate), "seed": replicate.seed}
    return {"images": network} | own | row


def drop_samples(folders: Mapping[Replicate, Path]) -> None:
    """Delete the samples in the run directories, but not those in `data/samples/`. Call this
    function at the end of a stage, because a killed run needs the samples to resume."""
    for replicate, folder in folders.items():
        if replicate.main:
            shutil.rmtree(folder / ENCODED, ignore_errors=True)


def mean_metrics(rows: list[Row], params: Params) -> dict[str, dict[str, float | None]]:
    """Average the metrics of each image set over the seeds. Leave out training runs whose label
    smoothing is not `training.label_smoothing`. A mean is None if a seed's value is None."""
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


def _reconstruction_row(real: View, folder: Path, evaluator: Evaluator, features: Tensor) -> Row:
    """Read the row of metrics of the reconstructed validation images from `folder`, or compute it.
    `features` (R, F) are the features of the original validation images."""
    count = len(real)
    rebuilding = evaluator.on_the_fly(Maker(_open_rebuilder, real))
    batches = [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]

    def measure(found: dict[str, Tensor]) -> Row:
        rfid = unless_few(fid, found["features"], features)  # reference: the validation images
        values = evaluator.metrics(found, real.labels)
        return values | {f"rfid_{evaluator.extractor}": rfid}

    file, name = folder / "reconstruction.json", "evaluate: reconstructions"
    row = measured_row(file, evaluator.workers, rebuilding, batches, name, measure)
    return {"images": "reconstruction"} | row


def _open_rebuilder(real: View, device: torch.device) -> Callable[[int, int], Tensor]:
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    # (start, stop) -> reconstructions of the images in range(start, stop)
    return lambda start, stop: rebuild(tokenizer, real.read(start, stop), device)[0]


def real_rows(params: Params, evaluator: Evaluator, folder: Path) -> list[Row]:
    """Compute FID, IS and class accuracy of subsets of the validation images: the scores that
    perfect samples would get. For every number of samples that a stage measures, the images are
    split into as many disjoint subsets of this size as possible, with one row per subset. The
    extractors' outputs for the validation images are stored in the run directory `folder`."""
    images = View(ImageShards(IMAGES, "val"), params.data)
    outputs, rows = evaluator.outputs(images, folder / REAL), []
    # Numbers of samples in other stages. Rejection keeps these shares of the candidates.
    candidates = evaluator.labels(max(params.evaluation.samples, params.cas.samples))
    sizes = {int(kept_of_each(candidates, a).sum()) for a in params.rejection.acceptance}
    sizes |= {params.sweep.samples, params.temperature.samples, params.editing.images}
    for size in sorted(sizes | {params.evaluation.samples}):
        for number, chosen in enumerate(disjoint(images.labels, size, seed=params.seed)):
            scores = evaluator.scores(of_rows(outputs, chosen), images.labels[chosen])
            rows.append({"samples": size, "subset": number} | scores)
    return rows


def real_columns(params: Params) -> list[str]:
    """The CSV columns of `real_rows`. An empty table needs them, too: `real_rows` returns no rows
    if there are fewer validation images than the smallest subset needs."""
    name = params.evaluation.extractor
    return ["samples", "subset", f"fid_{name}", f"is_{name}", "class_accuracy"]


def neighbour_distances(evaluator: Evaluator, samples: Tensor, real: Tensor) -> dict[str, float]:
    """Mean distances in feature space from samples (M, F), and from validation images (R, F), to
    the nearest training image."""
    name = evaluator.extractor
    values = {}
    for suffix, features in (("", samples), ("_real", real)):
        distance, _ = nearest(features, evaluator.reference, 1, evaluator.workers.device)
        values[f"nearest_distance_{name}{suffix}"] = distance.mean().item()
    return values


def nearest(
    features: Tensor, reference: Tensor, count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Find the `count` rows of a reference (R, F) that are nearest to each row of features (M, F).
    Returns a tuple (distances, indices) of tensors (M, count) on the CPU. The
    distances are computed on `device`. For ImageNet, this takes two hours on one CPU core."""
    found = []
    for block in features.to(device).split(BLOCK):
        others = reference.split(REFERENCE)
        distances = torch.cat([torch.cdist(block, part.to(device)) for part in others], dim=1)
        found.append(distances.topk(min(count, len(reference)), dim=1, largest=False))
    values, indices = (torch.cat(each).cpu() for each in zip(*found, strict=True))
    return values, indices
