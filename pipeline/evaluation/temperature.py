"""Sensitivity to the choice temperature, which the paper's section 3.2 leaves open."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages
from pipeline.evaluation.writing import write_images
from pipeline.layout import TOKENIZER, TRANSFORMER
from pipeline.models import load_model
from pipeline.params import Params
from pipeline.runtime.files import read_json, write_json
from pipeline.sampling import balanced_labels, sample_images, sampler
from pipeline.seeds import mix


def temperature_rows(
    params: Params, run_folder: Path, device: torch.device
) -> list[dict[str, Any]]:
    """A row for every value and seed: the scores of the main model's samples. A seed draws the same
    random numbers for every value.

    Args:
        run_folder: keeps the rows that are finished, `<value>-seed<seed>.json`.
    """
    model = load_model(TRANSFORMER, "transformer", device)
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    evaluator = Evaluator(params, device)
    labels = balanced_labels(params.temperature.samples, model.config.num_classes)
    side = params.data.image_size
    shape = (len(labels), params.data.channels, side, side)
    rows = []
    for value in params.temperature.values:
        decoding = params.decoding.model_copy(update={"choice_temperature": value})
        draw = sampler(model, params.model_copy(update={"decoding": decoding}))
        for seed in params.temperature.seeds:
            cell = run_folder / f"{value}-seed{seed}.json"
            if not cell.exists():
                batches = sample_images(
                    draw,
                    tokenizer,
                    labels,
                    batch_size=decoding.batch_size,
                    seed=mix(seed, "temperature"),
                )
                samples = cell.with_suffix(".npy")
                write_images(samples, batches, shape, f"temperature: {value:g} seed {seed}")
                images = ArrayImages(np.load(samples, mmap_mode="r"))
                values = evaluator.scores(
                    evaluator.features(images), evaluator.recognised(images), labels
                )
                write_json(cell, values)
                samples.unlink()
            row = {"choice_temperature": value, "seed": seed, "samples": len(labels)}
            rows.append(row | read_json(cell))
            recognised = rows[-1]["class_accuracy"]
            print(f"temperature: {value:g} seed {seed}: {recognised:.1%} recognised", flush=True)
    return rows
