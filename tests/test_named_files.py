"""A file that a param names and that is not there is refused before the hours of work before it."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.named_files import check_files
from pipeline.config.params import Params
from pipeline.evaluation.fid import load_statistics
from pipeline.runtime.dag import FILE_PARAMS
from pipeline.runtime.errors import UserError
from stages import running
from tests.project import ROOT
from tests.test_few_samples import kept
from tests.tiny_project import with_params

# What makes each of them one that is read.
USED = {
    "evaluation.inception_weights": {"extractor": "inception"},
    "evaluation.vgg_weights": {"second_extractor": "vgg"},
}


def checked(params: Params, stage: str | None = None) -> None:
    Path("params.yaml").write_text(json.dumps(params.model_dump()))
    check_files(stage)


def naming(key: str, path: str = "no.bin") -> Params:
    section, name = key.split(".")
    values = {name: path} | USED.get(key, {})
    samples = {"samples": 3000, "manifold_images": 3000}  # enough for Inception's features
    if section == "evaluation":
        return with_params(evaluation=values | samples, sweep={"samples": 3000})
    return with_params(**{section: values})


@pytest.fixture(autouse=True)
def in_checkout(monkeypatch, tmp_path):
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("key", FILE_PARAMS)
def test_it_is_refused_by_prepare_and_by_the_stage_that_reads_it(key, tmp_path):
    for stage in ("prepare", "evaluate", None):
        if stage != "evaluate" or key.startswith("evaluation."):
            with pytest.raises(UserError, match=rf"^{key}: no.bin does not exist; give the path"):
                checked(naming(key), stage)
    (tmp_path / "no.bin").touch()
    checked(naming(key))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match=r"^tokenizer.pretrained: .* a folder, not a regular"):
        checked(naming("tokenizer.pretrained", str(tmp_path)))


@pytest.mark.parametrize(
    ("key", "stage"),
    [
        ("tokenizer.pretrained", "train_transformer"),
        ("evaluation.reference_statistics", "cas"),
        ("evaluation.vgg_weights", "edit"),
    ],
)
def test_a_stage_from_which_no_reader_follows_can_do_without(key, stage):
    checked(naming(key), stage)


def test_weights_of_an_extractor_that_is_not_asked_for_may_be_missing():
    checked(with_params(evaluation={"vgg_weights": "no.pth", "inception_weights": "no.pth"}))


def test_a_stage_looks_before_it_begins(monkeypatch):
    params = naming("evaluation.reference_statistics")
    Path("params.yaml").write_text(json.dumps(params.model_dump()))
    monkeypatch.setattr("sys.argv", ["stages/prepare.py"])
    with pytest.raises(SystemExit, match=r"^error: evaluation.reference_statistics: no.bin does"):
        running.run_stage(lambda params: pytest.fail("it began"))


def test_the_sweep_refuses_statistics_of_other_features_before_it_trains(
    tiny_project, monkeypatch, tmp_path
):
    monkeypatch.chdir(tiny_project)
    path = tmp_path / "adm.npz"
    np.savez(path, mu=np.zeros(10), sigma=np.eye(10))
    assert len(load_statistics(path).mu) == 10
    with pytest.raises(UserError, match="are of 10-dimensional features and"):
        kept(30, reference_statistics=str(path))
