"""The rows that the sweep measures in a trial, for Table 3, Figure 8 and the crossing. If there are
too few samples for a metric, the sweep must refuse before it trains a network."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from pipeline.config.params import Params
from pipeline.config.paths import CURVES, TOKENS
from pipeline.config.replicates import main_replicates
from pipeline.data.seeds import mix
from pipeline.data.tokens import TokenCache
from pipeline.decoding.settings import DecodingSettings
from pipeline.evaluation.features import reference_statistics
from pipeline.experiments.ablation import Trial, decoders, measure_trial, trials
from pipeline.masking import masked_nll
from pipeline.runtime.batches import BatchWorkers
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.sampling import balanced_labels
from pipeline.schedules import SCHEDULES, curve_csv
from pipeline.training.loop.training import Workers
from pipeline.weights.published import load_model
from stages import prepare
from tests.tiny_project import CLASSES, GRID, check_scores, drawn_in_tens, with_params, write_tokens

SEED, COUNT, DECODED = 3, 23, [("square", 1), ("square", 3), ("linear", 3)]


@pytest.fixture
def root(tiny_project, tmp_path, monkeypatch) -> Path:
    """A copy of the tiny project with a token cache of noise, as the working directory."""
    folder = shutil.copytree(tiny_project, tmp_path / "project")
    monkeypatch.chdir(folder)
    write_tokens()
    return folder


def trial_of(root: Path, params: Params) -> Trial:
    """A trial that decodes in 1 and 3 iterations with its own schedule, and in 3 iterations with
    another schedule and with another sampler."""
    (model, *_) = main_replicates(params, "transformer")
    plain = params.decoding_settings()
    settings = [replace(plain, schedule=name, iterations=steps) for name, steps in DECODED]
    settings += [replace(settings[1], sampler="random")]
    files = {root / f"{number}.json": each for number, each in enumerate(settings)}
    return Trial(
        name="trial",
        seed=SEED,
        decodings=dict(list(files.items())[:2]),
        crossed=dict(list(files.items())[2:3]),
        designs=dict(list(files.items())[3:]),
        training=SimpleNamespace(model=root / model.folder, folders=[]),
        workers=Workers.of(params.ray, 1),
        params=params,
        folder=root / "cells",
        log=SimpleNamespace(),
    )


def test_every_decoding_is_of_its_own_schedule_and_steps(root):
    training = {"mask_schedule": "square", "other_label_smoothings": []}
    designs = [{"schedule": "square", "sampler": "random", "iterations": 3}]
    params = with_params(training=training, sweep={"samples": COUNT, "designs": designs})
    trial = trial_of(root, params)
    measure_trial(trial)
    ((other, designed),) = trial.design_rows().items()
    rows = [*trial.rows(), *trial.crossing(), *designed]
    model, labels = load_model(trial.training.model, "transformer"), balanced_labels(COUNT, CLASSES)
    held_out = TokenCache(TOKENS, "val").everything()
    nll = masked_nll(model, *held_out, schedule="square", seed=SEED)
    for row, (schedule, iterations) in zip(rows, [*DECODED, DECODED[1]], strict=True):
        settings = DecodingSettings(iterations, schedule, params.decoding.choice_temperature)
        settings = replace(settings, sampler=row.get("sampler", "confidence"))
        check_scores(row, drawn_in_tens(model, settings, labels, mix(SEED, "sweep")), labels)
        assert (row["schedule"], row["iterations"], row["seed"]) == ("square", iterations, SEED)
        assert row["nll"] == pytest.approx(nll, rel=1e-6) and row["samples"] == COUNT
    assert rows[2]["decoding_schedule"] == "linear" and trial.finished
    assert other == (("sampler", "random"),) and rows[3]["passes"] == 3
    assert len({row["fid_classifier"] for row in rows}) == 4


def test_what_names_the_files_of_trials_and_any_decoding_setting_is_an_axis(root, make_params):
    def folder(*ignore: str, **own: object) -> Path:
        return root / "-".join(map(str, own.values()))

    def found(params: Params) -> list[Trial]:
        Path("params.yaml").write_text(json.dumps(params.model_dump()))
        return trials(params, SimpleNamespace(folder=folder, hash="", run=Mock()))

    def trained(params: Params) -> set[Path]:
        return {trial.training.folder for trial in found(params)}

    for schedule in SCHEDULES:
        write_text(CURVES / f"{schedule}.csv", curve_csv(schedule, GRID**2))
    stage = {"params": ["training", "evaluation.seeds"], "deps": [str(CURVES)]}
    Path("dvc.yaml").write_text(json.dumps({"stages": {"train_transformer": stage}}))
    given = {"iterations": [3, 1], "schedules": ["cosine", "square"], "crossed": ["cosine"]}
    given |= {"seeds": [4], "steps": 7, "designs": []}
    params = with_params(sweep=given)
    plain = found(params)
    assert [t.name for t in plain] == ["cosine/seed4", "square/seed4"]
    assert [s.iterations for s in plain[0].decodings.values()] == [1, 3]
    assert {s.schedule for s in plain[1].decodings.values()} == {"square"}
    own = list(plain[0].decodings.items())
    assert list(plain[0].crossed.items()) == own[1:]  # at the main model's T, and measured once
    assert plain[1].crossed == {}
    assert [t.params.training.steps for t in plain] == [7, 7] and plain[1].training.seed == 4
    designs = [{"top_p": [1.0, 0.9], "iterations": [3, 2]}, {"schedule": "square", "top_k": 4}]
    wide = found(with_params(sweep=given | {"designs": designs}))
    varied = [(s.iterations, s.top_p) for s in wide[0].designs.values()]
    assert varied == [(3, 1.0), (2, 1.0), (3, 0.9), (2, 0.9)]  # the main model's schedule is cosine
    (other,) = wide[1].designs.values()
    assert (other.schedule, other.top_k, other.iterations) == ("square", 4, 3)
    assert [t.decodings for t in wide] == [t.decodings for t in plain]
    assert set(wide[0].designs) & set(wide[0].decodings) == {own[1][0]}  # measured once

    longer = {"schedule": "square", "steps": [7, 9], "iterations": [1, 2]}
    *same, more = found(with_params(sweep=given | {"designs": [longer]}))
    assert [t.decodings for t in same] == [t.decodings for t in plain]
    assert (more.name, more.params.training.steps, more.decodings) == ("square/steps9/seed4", 9, {})
    assert [s.iterations for s in more.designs.values()] == [1, 2]
    assert not set(more.designs) & set(same[1].designs)  # the same settings, another model
    assert {t.training.folder for t in same} == {t.training.folder for t in plain}

    before = trained(params)
    same = [{"evaluation": {"seeds": [7]}}, {"training": {"mask_schedule": "cubic", "steps": 9}}]
    assert all(trained(with_params(sweep=given, **changes)) == before for changes in same)
    assert not trained(with_params(sweep=given, training={"lr": 0.5})) & before
    assert not trained(with_params(sweep=given | {"steps": 8})) & before
    assert len(trained(with_params(sweep=given | {"seeds": [4, 5]})) - before) == 2
    write_text(CURVES / "square.csv", "r,gamma\n")
    assert len(trained(params) & before) == 1  # of the other schedule


@pytest.mark.parametrize(("each", "decode"), [(1, 1), (2, 1), (4, 3)])
def test_a_trials_samples_are_decoded_by_its_workers_but_for_one(make_params, each, decode):
    """The remaining worker measures them."""
    params = make_params(ray={"num_workers": 4}, classifier={"batch_size": 48})
    workers = decoders(SimpleNamespace(workers=Workers.of(params.ray, each), params=params))
    assert (type(workers) is BatchWorkers) == (decode == 1)
    assert decode == 1 or workers._ray.num_workers == decode


def test_statistics_of_other_features_are_refused(in_tiny_project, tmp_path):
    path = tmp_path / "adm.npz"
    np.savez(path, mu=np.zeros(10), sigma=np.eye(10))
    params = with_params(evaluation={"reference_statistics": str(path)})
    with pytest.raises(UserError, match="has 10 dimensions, but"):
        reference_statistics(params)


def test_images_too_few_for_a_metric_are_refused_before_any_is_written(monkeypatch):
    assert with_params().least_images() == (17, "FID of 16 features")
    fewer = with_params(evaluation={"kid_subset_size": 50, "neighbors": 50})
    assert fewer.least_images(covariance=False) == (51, "evaluation.neighbors")
    monkeypatch.setattr(prepare, "Stage", lambda *_: nullcontext(None))
    monkeypatch.setattr(prepare, "open_source", lambda *_: None)
    monkeypatch.setattr(prepare, "stratified_split", lambda *_: {"train": [0, 1], "val": [2]})
    monkeypatch.setattr(prepare, "write_shards", lambda *_: pytest.fail("shards are written"))
    with pytest.raises(UserError, match="2 training images are too few"):
        prepare.main(with_params())
