"""Table 1: samples of every replicate of MaskGIT and the baseline, reconstructions (the loss by the
tokenizer alone) and held-out real images, all measured in the same way."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.paths import IMAGES, TOKENIZER
from pipeline.config.replicates import Replicate, label_smoothing
from pipeline.data.images.samples import draw_samples, publish_samples
from pipeline.evaluation.evaluator import Evaluator, Outputs, kept_of_each, of_rows
from pipeline.evaluation.fid import fid
from pipeline.evaluation.image_sets import CenterCrops, SampleImages
from pipeline.evaluation.metrics import disjoint, unless_few
from pipeline.evaluation.reconstruction import BATCH, rebuild
from pipeline.evaluation.samplers import open_sampler
from pipeline.experiments.rows import Row, measured_row
from pipeline.runtime.batches import BatchWorkers, Maker
from pipeline.runtime.files import read_json, write_json
from pipeline.sampling import sample_batches
from pipeline.training.likelihood import held_out_nll
from pipeline.weights.published import load_model

IDENTITY = ("images", "label_smoothing", "seed")
ENCODED = "samples"  # of a main replicate, as shards in its run directory
REAL = "real"  # the folder of the networks' outputs for the validation images
# Images that are compared at once, and training images that are on the device meanwhile.
BLOCK, REFERENCE = 1000, 10_000


def evaluate_all(
    params: Params, folders: Mapping[Replicate, Path], images_folder: Path, workers: BatchWorkers
) -> list[Row]:
    """A row of metrics for the samples of every replicate, for "reconstruction" and for "real". The
    samples of main replicates are published.

    Args:
        folders: the run directory of each replicate, for its samples and its row.
        images_folder: the same for the reconstructions and the validation images.
    """
    evaluator, rows = Evaluator(params, workers, second=True), []
    real = CenterCrops(IMAGES, "val", params.data)
    held_out, names = evaluator.outputs(real, images_folder / REAL), real.view.images.class_names
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
    """Sample and measure a replicate, unless its folder already has the row. Publish the samples of
    a main replicate.

    Args:
        real: features (R, F) of the validation images.
    """
    params, network, file = evaluator.params, replicate.network, folder / "row.json"
    count, workers = params.evaluation.samples, evaluator.workers
    sampler = Maker(open_sampler, replicate)
    # CAS, too, is trained on the samples of a main replicate.
    labels = evaluator.labels(max(count, params.cas.samples) if replicate.main else count)
    settings = params.decoding_settings(autoregressive=network == "autoregressive")
    size = params.decoding.batch_size
    batches = sample_batches(settings, labels, batch_size=size, seed=replicate.seed)
    name = f"evaluate: samples of {network}/{replicate.name}"

    def measure(outputs: Outputs) -> Row:
        """The metrics of the samples, and what is measured of the network itself."""
        opened, seed = sampler.open(workers.device), replicate.seed
        networks = (opened.model, opened.tokenizer)
        return evaluator.metrics(outputs, labels[:count]) | {
            "nll": held_out_nll(network, replicate.folder, params, seed, folder, workers),
            "parameters": sum(p.numel() for n in networks for p in n.parameters()),
            # Forward passes of the network per image.
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
            images = SampleImages(samples, params.data, count)
            outputs = evaluator.outputs(images, folder / "outputs")
            row = measure(outputs)
            if network == "transformer":
                row |= neighbour_distances(evaluator, outputs["features"], real)
            write_json(file, row)
        publish_samples(samples, replicate.samples)
        row = read_json(file)
    else:
        shown = evaluator.on_the_fly(sampler)
        row = measured_row(file, workers, shown, batches, name, measure)
    own = {"label_smoothing": label_smoothing(params, replicate), "seed": replicate.seed}
    return {"images": network} | own | row


def drop_samples(folders: Mapping[Replicate, Path]) -> None:
    """Delete the published samples from the run directories at the end of a stage. A stage that is
    killed earlier resumes from them; one that runs again later draws them again."""
    for replicate, folder in folders.items():
        if replicate.main:
            shutil.rmtree(folder / ENCODED, ignore_errors=True)


def mean_metrics(rows: list[Row], params: Params) -> dict[str, dict[str, float | None]]:
    """The metrics of each set: means over the main replicates, or None if a replicate lacks the
    metric."""
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


def _reconstruction_row(
    real: CenterCrops, folder: Path, evaluator: Evaluator, features: Tensor
) -> Row:
    """Reconstruct and measure the validation images, unless the folder already has their row.

    Args:
        features: (R, F), of the validation images.
    """
    count = len(real)
    shown = evaluator.on_the_fly(Maker(_open_rebuilder, real))
    batches = [(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]

    def measure(found: dict[str, Tensor]) -> Row:
        rfid = unless_few(fid, found["features"], features)  # against the validation images
        values = evaluator.metrics(found, real.labels)
        return values | {f"rfid_{evaluator.extractor}": rfid}

    file, name = folder / "reconstruction.json", "evaluate: reconstructions"
    row = measured_row(file, evaluator.workers, shown, batches, name, measure)
    return {"images": "reconstruction"} | row


def _open_rebuilder(real: CenterCrops, device: torch.device) -> Callable[[int, int], Tensor]:
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    # Of the images from start to before stop.
    return lambda start, stop: rebuild(tokenizer, real.read(start, stop), device)[0]


def real_rows(params: Params, workers: BatchWorkers, folder: Path) -> list[Row]:
    """The scores of disjoint sets of real validation images, as many as there are of each size.
    They show the FID and IS of such small sets without any generation.

    Args:
        folder: has the networks' outputs for the validation images, if `evaluate_all` ran.
    """
    evaluator = Evaluator(params, workers, second=True)
    images = CenterCrops(IMAGES, "val", params.data)
    outputs, rows = evaluator.outputs(images, folder / REAL), []
    # The sizes of other stages' sets; of the candidates, rejection keeps these shares.
    candidates = evaluator.labels(max(params.evaluation.samples, params.cas.samples))
    sizes = {int(kept_of_each(candidates, a).sum()) for a in params.rejection.acceptance}
    sizes |= {params.sweep.samples, params.temperature.samples, params.editing.images}
    for size in sorted(sizes | {params.evaluation.samples}):
        for number, chosen in enumerate(disjoint(images.labels, size, seed=params.seed)):
            scores = evaluator.scores(of_rows(outputs, chosen), images.labels[chosen])
            rows.append({"samples": size, "subset": number} | scores)
    return rows


def real_columns(params: Params) -> list[str]:
    """The columns of `real_rows`, for the case that there are too few validation images for any
    row."""
    name = params.evaluation.extractor
    return ["samples", "subset", f"fid_{name}", f"is_{name}", "class_accuracy"]


def neighbour_distances(evaluator: Evaluator, samples: Tensor, real: Tensor) -> dict[str, float]:
    """Mean distance to the nearest training image, in the extractor's features, of samples (M, F)
    and of held-out real images (R, F)."""
    name = evaluator.extractor
    values = {}
    for suffix, features in (("", samples), ("_real", real)):
        distance, _ = nearest(features, evaluator.reference, 1, evaluator.workers.device)
        values[f"nearest_distance_{name}{suffix}"] = distance.mean().item()
    return values


def nearest(
    features: Tensor, reference: Tensor, count: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Distances and indices (M, count), on the CPU, of the rows of a reference (R, F) that are
    nearest to features (M, F).

    Args:
        device: where they are compared; a core takes two hours for ImageNet's.
    """
    found = []
    for block in features.to(device).split(BLOCK):
        others = reference.split(REFERENCE)
        distances = torch.cat([torch.cdist(block, part.to(device)) for part in others], dim=1)
        found.append(distances.topk(min(count, len(reference)), dim=1, largest=False))
    values, indices = (torch.cat(each).cpu() for each in zip(*found, strict=True))
    return values, indices
