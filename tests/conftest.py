"""Fixtures that several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.config.params import Params
from tests.params import make_params
from tests.project import Project
from tests.synthetic_results import analyse, write_results, write_source

torch.set_num_threads(1)  # the tensors of tests are small: threads would only wait for each other


@pytest.fixture(name="make_params")
def params_factory() -> Callable[..., Params]:
    return make_params


@pytest.fixture
def results(tmp_path) -> Path:
    """Synthetic results, for tests that change them."""
    return write_results(tmp_path / "results")


@pytest.fixture
def params() -> Params:
    """The default preset's, with pictures that are quickly drawn."""
    return make_params(analysis={"dpi": 40})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    """Everything the analysis makes of the synthetic results, for tests that only look at it."""
    folder = tmp_path_factory.mktemp("analysis")
    results = write_results(folder / "results")
    write_source(results, "prepare")
    write_source(results, "evaluate", run_id="run-of-evaluate")
    analyse(results, folder / "out", make_params(analysis={"dpi": 40}))
    return folder / "out"


@pytest.fixture(scope="module")
def tiny_project(tmp_path_factory) -> Path:
    """A project of tiny models, as `tests.tiny_project` makes it."""
    from tests.tiny_project import make_project

    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def in_tiny_project(tiny_project, monkeypatch) -> Path:
    """The same, as the working directory."""
    monkeypatch.chdir(tiny_project)
    return tiny_project


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
