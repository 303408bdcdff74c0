"""What the sweep measures of a trial: Table 3, Figure 8 and the crossing stand on these rows."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config.params import Params
from pipeline.config.paths import TOKENIZER, TOKENS
from pipeline.config.replicates import main_replicates
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.decoding import DecodingSettings, generate
from pipeline.experiments.ablation.grid import trial_workers
from pipeline.experiments.ablation.measuring import _workers, measure_trial
from pipeline.experiments.ablation.trial import Cell, Trial
from pipeline.masking import masked_nll
from pipeline.runtime.batches import Alone
from pipeline.runtime.files import write_json
from pipeline.sampling import balanced_labels
from pipeline.tokenizer import tokens_to_images
from pipeline.weights.published import load_model
from tests.images import write_token_cache
from tests.tiny_project import CLASSES, CODES, GRID, VAL, check_scores, with_params

SEED, COUNT, CELLS = 3, 23, [("square", 1), ("square", 3), ("linear", 3)]


@pytest.fixture
def root(tiny_project, tmp_path, monkeypatch) -> Path:
    """A copy of the tiny project with a token cache of noise, as the working directory."""
    folder = shutil.copytree(tiny_project, tmp_path / "project")
    monkeypatch.chdir(folder)
    shutil.rmtree(TOKENS, ignore_errors=True)
    draw, labels, splits = np.random.default_rng(0), np.arange(VAL) % CLASSES, ("train", "val")
    noise = {split: [draw.integers(0, CODES, (VAL, 1, GRID**2))] for split in splits}
    write_token_cache(TOKENS, noise, dict.fromkeys(splits, labels), CODES)
    return folder


def trial_of(root: Path, params: Params) -> Trial:
    """Decoded with its own schedule in one step and in three, and with another's in three."""
    (model, *_) = main_replicates(params, "transformer")
    write_json(root / "training.json", {"seconds": 1.0})
    trained = root / "training.json"
    training = SimpleNamespace(model=root / model.folder, trained=trained, folders=[])
    cells = [Cell(name, steps, str(root / "cells" / name)) for name, steps in CELLS]
    given = params.model_dump()
    folders = {"folder": str(root / "cells"), "root": str(root), "features": str(root / "features")}
    made = {"training": training, "workers": trial_workers(params), "params": given}
    return Trial(SEED, cells[:2], cells[2:], **made, **folders)


def test_every_cell_is_of_its_own_schedule_and_steps(root):
    params = with_params(
        training={"mask_schedule": "square", "other_label_smoothings": []}, sweep={"samples": COUNT}
    )
    trial = trial_of(root, params)
    measure_trial(trial)
    assert list((root / "features").glob("*.safetensors"))  # those of the training images
    rows = [*trial.rows(), *trial.crossing()]
    model = load_model(trial.training.model, "transformer")
    tokenizer, labels = load_model(TOKENIZER, "tokenizer"), balanced_labels(COUNT, CLASSES)
    held_out = TokenCache(TOKENS, "val").everything()
    nll = masked_nll(model, *held_out, schedule="square", seed=SEED)
    for row, (schedule, iterations) in zip(rows, CELLS, strict=True):
        settings = DecodingSettings(iterations, schedule, params.decoding.choice_temperature)
        images = [
            tokens_to_images(
                tokenizer,
                generate(model, chunk, settings, seed=mix(mix(SEED, "sweep"), "batch", number))[
                    -1
                ].sampled,
            )
            for number, chunk in enumerate(labels.split(params.decoding.batch_size))
        ]
        check_scores(row, torch.cat(images).numpy(), labels)
        assert (row["schedule"], row["iterations"]) == ("square", iterations)
        assert row["nll"] == pytest.approx(nll, rel=1e-6) and row["samples"] == COUNT
    assert rows[-1]["decoding_schedule"] == "linear"
    assert len({row["fid_classifier"] for row in rows}) == 3


@pytest.mark.parametrize(("each", "decode"), [(1, 1), (2, 1), (4, 3), (16, 15)])
def test_a_trials_cells_are_decoded_by_its_workers_but_for_one(make_params, each, decode):
    """That one measures."""
    params = make_params(
        training={"batch_size": 16},
        sweep={"workers_per_trial": each},
        ray={"num_workers": 16},
        tokenizer={"batch_size": 16},
        classifier={"batch_size": 48},
    )
    workers = _workers(SimpleNamespace(workers=trial_workers(params)), params)
    assert (type(workers) is Alone) == (decode == 1)
    assert decode == 1 or workers._ray.num_workers == decode
