"""Fixtures that several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.config.params import Params
from pipeline.runtime.files import read_yaml
from tests.project import Project
from tests.synthetic_results import analyse, write_results, write_source

ROOT = Path(__file__).parents[1]

torch.set_num_threads(1)  # the tensors of tests are small: threads would only wait for each other


@pytest.fixture
def make_params() -> Callable[..., Params]:
    """The default preset's parameters, with changes given as section={key: value}."""

    def make(**sections) -> Params:
        values = read_yaml(ROOT / "presets" / "mnist5k.yaml")
        for name, changes in sections.items():
            if isinstance(changes, dict):
                values[name] |= changes
            else:
                values[name] = changes
        return Params(**values)

    return make


@pytest.fixture
def results(tmp_path) -> Path:
    """Synthetic results, for tests that change them."""
    return write_results(tmp_path / "results")


@pytest.fixture
def params(make_params) -> Params:
    """The default preset's, with pictures that are quickly drawn."""
    return make_params(analysis={"dpi": 40})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Everything the analysis makes of the synthetic results, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("analysis")
    values = read_yaml(ROOT / "presets/mnist5k.yaml")
    values["analysis"]["dpi"] = 40
    results = write_results(folder / "results")
    write_source(results, "prepare")
    write_source(results, "evaluate", run_id="run-of-evaluate")
    analyse(results, folder / "out", Params(**values))
    return folder / "out"


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Project:
    """A clone in which `dvc repro` ran once with the smoke preset, and what it printed (`log`) and
    read (`params_read`: a file for each stage). Tests copy it to change it."""
    folder = tmp_path_factory.mktemp("smoke")
    project = Project.clone(folder / "project")
    project.run("python", "-m", "pipeline", "preset", "smoke")
    project.params_read = folder / "params_read"
    project.record_params(project.params_read)
    project.log = project.run("dvc", "repro")
    return project
