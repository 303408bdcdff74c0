"""Sensitivity of samples to the choice temperature, which the paper does not give (section 3.2)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config.params import Params
from pipeline.config.paths import TOKENIZER, TRANSFORMER
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import make_images
from pipeline.runtime.files import read_json, write_json
from pipeline.runtime.seeds import mix
from pipeline.sampling import balanced_labels, sample_images, sampler
from pipeline.weights.published import load_model


def temperature_rows(
    params: Params, run_folder: Path, device: torch.device
) -> list[dict[str, Any]]:
    """A row for every temperature and seed: the scores of the main model's samples. A seed gives
    the same random numbers at every temperature.

    Args:
        run_folder: keeps the rows that are finished, `<value>-seed<seed>.json`.
    """
    model = load_model(TRANSFORMER, "transformer", device)
    tokenizer = load_model(TOKENIZER, "tokenizer", device)
    evaluator = Evaluator(params, device)
    labels = balanced_labels(params.temperature.samples, model.config.num_classes)
    rows = []
    for value in params.temperature.values:
        settings = replace(params.decoding_settings(), choice_temperature=value)
        for seed in params.temperature.seeds:
            cell = run_folder / f"{value}-seed{seed}.json"
            if not cell.exists():
                batches = sample_images(
                    sampler(model, settings),
                    tokenizer,
                    labels,
                    batch_size=params.decoding.batch_size,
                    seed=mix(seed, "temperature"),
                )
                path = cell.with_suffix(".npy")
                images = make_images(path, batches, f"temperature: {value:g} seed {seed}")
                write_json(cell, evaluator.scores(images, labels))
                path.unlink()
            row = {"choice_temperature": value, "seed": seed, "samples": len(labels)}
            rows.append(row | read_json(cell))
            recognised = rows[-1]["class_accuracy"]
            print(f"temperature: {value:g} seed {seed}: {recognised:.1%} recognised", flush=True)
    return rows
