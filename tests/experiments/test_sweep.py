"""What the sweep measures of a trial: Table 3, Figure 8 and the crossing stand on these rows."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.config.replicates import main_replicates
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.decoding import DecodingSettings, generate
from pipeline.experiments.ablation import grid
from pipeline.experiments.ablation.measuring import decoders, measure_trial
from pipeline.masking import masked_nll
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.files import write_json, write_text
from pipeline.sampling import balanced_labels
from pipeline.schedules import SCHEDULES, curve_csv
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


def trial_of(root: Path, params: Params) -> grid.Trial:
    """Decoded with its own schedule in one step and in three, and with another's in three."""
    (model, *_) = main_replicates(params, "transformer")
    write_json(root / "training.json", {"seconds": 1.0})
    plain, trained = params.decoding_settings(), root / "training.json"
    settings = [replace(plain, schedule=name, iterations=steps) for name, steps in CELLS]
    cells = [grid.Cell(s, ("iterations",), root / f"{n}.json") for n, s in enumerate(settings)]
    return grid.Trial(
        seed=SEED,
        cells=cells[:2],
        crossed=cells[2:],
        training=SimpleNamespace(model=root / model.folder, trained=trained, folders=[]),
        workers=grid.trial_workers(params),
        params=params,
        root=root,
        folder=root / "cells",
    )


def test_every_cell_is_of_its_own_schedule_and_steps(root):
    params = with_params(
        training={"mask_schedule": "square", "other_label_smoothings": []}, sweep={"samples": COUNT}
    )
    trial = trial_of(root, params)
    measure_trial(trial)
    rows = [*grid.measured(trial.cells), *trial.crossing()]
    model = load_model(trial.training.model, "transformer")
    tokenizer, labels = load_model(TOKENIZER, "tokenizer"), balanced_labels(COUNT, CLASSES)
    held_out = TokenCache(TOKENS, "val").everything()
    nll = masked_nll(model, *held_out, schedule="square", seed=SEED)
    for row, (schedule, iterations) in zip(rows, CELLS, strict=True):
        settings = DecodingSettings(iterations, schedule, params.decoding.choice_temperature)
        images = []
        for number, chunk in enumerate(labels.split(params.decoding.batch_size)):
            seed = mix(mix(SEED, "sweep"), "batch", number)
            tokens = generate(model, chunk, settings, seed=seed)[-1].sampled
            images.append(tokens_to_images(tokenizer, tokens))
        check_scores(row, torch.cat(images).numpy(), labels)
        assert (row["schedule"], row["iterations"]) == ("square", iterations)
        assert row["nll"] == pytest.approx(nll, rel=1e-6) and row["samples"] == COUNT
    assert rows[-1]["decoding_schedule"] == "linear"
    assert len({row["fid_classifier"] for row in rows}) == 3


def stage_in(folder: Path) -> SimpleNamespace:
    """A stage whose run directories are named by what tells them apart."""

    def named(*ignore: str, **own: object) -> Path:
        return folder / "-".join(map(str, own.values()))

    return SimpleNamespace(folder=named)


def test_any_field_of_the_decoding_settings_is_an_axis(root, monkeypatch):
    """A list in the section `sweep` is all that it takes."""

    class Sweep(type(with_params().sweep)):
        guidance_scale: list[float]

    def trials(sweep) -> list[grid.Trial]:
        return grid.trials(params.model_copy(update={"sweep": sweep}), stage_in(root))

    for schedule in SCHEDULES:
        write_text(CURVES / f"{schedule}.csv", curve_csv(schedule, GRID**2))
    monkeypatch.setattr(grid, "training_key", lambda params: {})
    monkeypatch.setattr(grid, "training_job", lambda *_: SimpleNamespace(folders=[]))
    given = {"iterations": [3, 1], "schedules": ["cosine", "square"], "crossed": ["cosine"]}
    params = with_params(sweep=given | {"seeds": [4]})
    plain = trials(params.sweep)
    assert [(t.schedule, t.seed) for t in plain] == [("cosine", 4), ("square", 4)]
    assert [c.settings.iterations for c in plain[0].cells] == [1, 3]
    assert plain[0].crossed == plain[0].cells[1:] and plain[1].crossed == []  # one decoding, once
    wide = trials(Sweep(**params.sweep.model_dump(), guidance_scale=[2.0, 0.0]))
    found = [(c.settings.iterations, c.settings.guidance_scale) for c in wide[0].cells]
    assert found == [(1, 0.0), (1, 2.0), (3, 0.0), (3, 2.0)]
    paths = [c.path for t in wide for c in t.cells]
    assert len(set(paths)) == 8 and {c.path for t in plain for c in t.cells} < set(paths)


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
    trial = SimpleNamespace(workers=grid.trial_workers(params), params=params)
    workers = decoders(trial)
    assert (type(workers) is BatchWorkers) == (decode == 1)
    assert decode == 1 or workers._ray.num_workers == decode
