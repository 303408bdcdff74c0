"""`python -m pipeline measure` prints the metrics of an image set, or an error of one line."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.paths import SAMPLES
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.image_sets import ArrayImages
from pipeline.tools.export import export_npz
from tests.command_line import maskgit
from tests.images import samples_in
from tests.tiny_project import ALONE, SIDE, with_params

COUNT = 80
pytestmark = pytest.mark.usefixtures("in_tiny_project")


@pytest.fixture
def error_of(capsys):
    """A function that measures a bad image set, and returns the error message of one line."""

    def run(path: Path) -> str:
        done = maskgit("measure", str(path), capsys=capsys)
        assert done.code == 1 and done.err.startswith("error: ") and done.err.count("\n") == 1
        return done.err

    return run


def wanted_of(array: np.ndarray, folder: Path, labels=None, **changes) -> dict:
    """Return the metrics that `Evaluator` computes for the images."""
    evaluator = Evaluator(with_params(**changes), ALONE, second=True)
    return evaluator.metrics(evaluator.outputs(ArrayImages(array), folder), labels)


def samples(count: int = COUNT) -> np.ndarray:
    return samples_in(SAMPLES / "transformer/seed0")[0][:count]


@pytest.mark.parametrize("labels", [None, torch.arange(COUNT) % 3])
def test_metrics_are_the_evaluators(tmp_path, capsys, labels):
    """Labels balance random subsets over the classes, and are needed for `class_accuracy`."""
    export_npz(ArrayImages(samples()), labels, tmp_path / "set.npz")
    wanted = wanted_of(samples(), tmp_path / "wanted", labels)
    found = maskgit("measure", f"{tmp_path}/set.npz", capsys=capsys).out
    rows = dict(re.findall(r"^(\w+) +(\S+)", found, flags=re.MULTILINE))
    assert rows.keys() == {name for name in wanted if not name.endswith("_std")}
    assert {"fid_classifier", "kid_classifier", "precision_random", "samples"} <= set(rows)
    assert ("class_accuracy" in rows) == (labels is not None)
    for name, text in rows.items():
        assert float(text) == pytest.approx(wanted[name], rel=1e-3), name
    spreads = dict(re.findall(r"^(\w+) .*std (\S+)$", found, flags=re.MULTILINE))
    assert spreads.keys() == {name for name in rows if f"{name}_std" in wanted}


def test_labels_of_other_classes_are_refused(tmp_path, error_of):
    export_npz(ArrayImages(samples()), torch.arange(COUNT) % 4, tmp_path / "set.npz")
    said = "labels go from 0 to 3, but the data set has the classes 0 to 2"
    assert said in error_of(tmp_path / "set.npz")


def test_a_handful_of_images_is_measured_as_far_as_that_goes(tmp_path):
    """Halves of six images, as of a small validation split, have no three nearest neighbours."""
    of_6, of_3 = (wanted_of(samples(n), tmp_path / str(n)) for n in (6, 3))
    for name in ("precision_classifier", "coverage_random"):
        assert (of_6[name] is None, of_6[f"{name}_std"]) == (False, None)
        assert of_3[name] is of_3[f"{name}_std"] is None
    assert of_3["is_classifier"] >= 1


def test_images_of_another_size_or_channels_name_both(tmp_path, error_of):
    large = ArrayImages(np.zeros((20, 3, 9, 12), np.uint8))
    export_npz(large, None, tmp_path / "large.npz")
    line = error_of(tmp_path / "large.npz")
    assert "large.npz" in line and "12×9 grey" in line and f"{SIDE}×{SIDE} grey" in line
    assert "data.image_size" in line and "data.channels" in line
    colour = np.repeat(samples(), 3, axis=1)
    colour[30, 0] += 1
    export_npz(ArrayImages(colour), None, tmp_path / "colour.npz")
    line = error_of(tmp_path / "colour.npz")
    assert "colour.npz" in line and "data.channels" in line


def test_too_few_images_and_a_missing_set_or_project_are_named(tmp_path, error_of, monkeypatch):
    export_npz(ArrayImages(samples(12)), None, tmp_path / "few.npz")
    line = error_of(tmp_path / "few.npz")
    assert "12 images" in line and "16-dimensional" in line and "at least 17" in line
    assert "nowhere: cannot be read" in error_of(tmp_path / "nowhere")
    (tmp_path / "params.yaml").write_text(Path("params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert "run `dvc repro`" in error_of(Path("few.npz"))


def test_fid_is_against_the_statistics_that_params_name(tmp_path):
    size = with_params().feature_dimensions
    np.savez(tmp_path / "reference.npz", mu=np.full(size, 3.0), sigma=np.eye(size))
    given = with_params(evaluation={"reference_statistics": str(tmp_path / "reference.npz")})
    evaluator = Evaluator(given, ALONE)
    outputs = evaluator.outputs(ArrayImages(samples()), tmp_path / "outputs")
    found = evaluator.scores(outputs, torch.zeros(COUNT))["fid_classifier"]
    features = outputs["features"].double().numpy()
    covariance = np.cov(features.T)  # its product with the identity is unchanged
    root = np.sqrt(np.linalg.eigvalsh(covariance).clip(0)).sum()
    wanted = ((features.mean(0) - 3) ** 2).sum() + np.trace(covariance) + size - 2 * root
    assert found == pytest.approx(wanted, rel=1e-4)
