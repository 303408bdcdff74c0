"""Fixtures that several test files share."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch
from filelock import FileLock

from analysis.exhibits import drawing
from analysis.exhibits.base import Table
from analysis.exhibits.results import Results, read_results
from analysis.report.build import build, contents
from pipeline.config.params import Params
from tests.analysis.synthetic import write_results, write_source
from tests.params import make_params
from tests.project import FAIR, ROOT, Project
from tests.tiny_project import make_project, with_params
from tests.transformer_task import random_tokens, tiny_params

if TYPE_CHECKING:
    from pipeline import MaskGIT

torch.set_num_threads(1)  # tensors of tests are small: threads would only wait for each other
os.environ |= FAIR

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.hookimpl(trylast=True)  # after pytest removed the tests that -m excludes
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests for several processes, each of which starts with its own part. The first one
    makes `finished`, which takes minutes, and runs the longest test, while the others run tests
    without it. Quick tests follow, so that no other process takes over the longest one."""
    need, others = [], []
    for item in items:
        (need if "finished" in item.fixturenames else others).append(item)
    order = ("bytes[transformer]", "test_dvc_params.py")
    need.sort(key=lambda item: [name not in item.nodeid for name in order])
    first = len(items) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    items[:] = need[:first] + others + need[first:]


@pytest.fixture(scope="module")
def browser():
    """Playwright's headless browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser on PATH: {', '.join(BROWSERS)}")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def tiny_project(tmp_path_factory) -> Path:
    """A project folder as after a run, with tiny untrained networks."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    (folder / "params.yaml").write_text(json.dumps(with_params().model_dump()))
    return folder


@pytest.fixture(scope="module")
def project(tiny_project) -> Path:
    return tiny_project


@pytest.fixture(scope="module")
def model(project) -> "MaskGIT":
    """The first MaskGIT model of `tiny_project`."""
    from pipeline import MaskGIT

    return MaskGIT.from_pretrained(project, device="cpu")


@pytest.fixture
def saved(project, tmp_path) -> Path:
    """The second model of `tiny_project`, saved."""
    from pipeline import MaskGIT

    return MaskGIT.from_pretrained(project, seed=1, device="cpu").save_pretrained(tmp_path / "m")


@pytest.fixture(name="make_params")
def params_factory() -> Callable[..., Params]:
    return make_params


@pytest.fixture
def results(tmp_path) -> Path:
    """A copy of the synthetic results, for tests that change them."""
    return write_results(tmp_path / "results")


@pytest.fixture
def params(monkeypatch) -> Params:
    """The default preset's params, with pictures that are quick to draw."""
    monkeypatch.setattr(drawing, "DPI", 40)
    return make_params()


@pytest.fixture(scope="session")
def found(tmp_path_factory) -> Results:
    """The synthetic results, loaded."""
    return read_results(write_results(tmp_path_factory.mktemp("found") / "results"))


@pytest.fixture
def make_tables(found, params, tmp_path) -> Callable[..., Path]:
    """Return a function that makes the tables of changed results and returns their folder."""

    def make(**fields) -> Path:
        for section in contents(replace(found, **fields), params)[1]:
            for exhibit in section.exhibits:
                if isinstance(exhibit, Table):
                    exhibit.write(tmp_path / "tables")
        return tmp_path / "tables"

    return make


@pytest.fixture
def in_bfloat16(monkeypatch) -> None:
    """Use bfloat16 where params ask for it, even if this CPU is slow at it."""
    monkeypatch.setenv("MASKGIT_PRECISION", "products in bfloat16; convolutions in bfloat16")


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Make every figure one pixel: drawing takes most of the time and texts do not need it."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save(figure: Figure, path: Path, **how: object) -> None:
        Image.new("RGB", (1, 1)).save(path, format="png")

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture(scope="session")
def outputs(tmp_path_factory) -> Path:
    """All outputs of the analysis of the synthetic results, for tests that only read them."""
    folder = tmp_path_factory.mktemp("analysis")
    results = write_results(folder / "results")
    write_source(results, "evaluate", seconds=5400.0, gpus=["H100", "H100"])
    write_source(results, "sweep", seconds=5400.0, dirty=True, gpus=["H100", "H100"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "DPI", 40)
        build(results, folder / "out", make_params())
    return folder / "out"


@pytest.fixture
def report(outputs) -> Path:
    """The report's page."""
    return outputs / "report.html"


@pytest.fixture
def tables(outputs) -> Path:
    """The folder of the report's tables."""
    return outputs / "tables"


@pytest.fixture
def tiny(make_params) -> Callable[..., Params]:
    """Return a function that makes params of a tiny transformer, with changes to `training`."""
    return lambda **changes: tiny_params(make_params, **changes)


@pytest.fixture
def tokens_dir(tmp_path) -> Path:
    """A cache of random tokens on which tests train a tiny transformer."""
    return random_tokens(tmp_path / "tokens")


@pytest.fixture
def in_tiny_project(tiny_project, monkeypatch) -> Path:
    """`tiny_project` as the working directory."""
    monkeypatch.chdir(tiny_project)
    return tiny_project


@pytest.fixture
def own_project(tiny_project, tmp_path, monkeypatch) -> Path:
    """A copy of `tiny_project` as the working directory, for tests that change it."""
    monkeypatch.chdir(shutil.copytree(tiny_project, tmp_path / "project"))
    return tmp_path / "project"


@pytest.fixture(scope="session")
def finished(tmp_path_factory, worker_id) -> Project:
    """A clone in which `dvc repro` ran once with the smoke preset, with its output (`log`) and the
    params that each stage read (`params_read`, a file per stage). The folder's name has a space and
    an accent, and it holds an environment as `make` makes it. If several processes run the tests,
    the first that needs the clone makes it, and each process has its own copy."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "smoke"
    with FileLock(f"{shared}.lock"):
        made, log = Project(shared / "a b é"), shared / "log"
        if not log.exists():
            Project.clone(made.folder)
            made.run("python", "-m", "pipeline", "preset", "smoke")
            made.record_params(shared / "params_read")
            (venv := made.folder / ".venv").symlink_to(Path(sys.executable).parents[1])
            log.write_text(made.run("dvc", "repro", PATH=f"{venv}/bin:{os.environ['PATH']}"))
            venv.unlink()
    project = made.copy(tmp_path_factory.mktemp("finished") / "project")
    project.log, project.params_read = log.read_text(), shared / "params_read"
    return project


@pytest.fixture
def smoke(finished, tmp_path) -> Project:
    """A copy of `finished`, for tests that change it."""
    return finished.copy(tmp_path / "project")


@pytest.fixture(scope="module")
def ray() -> Iterator[ModuleType]:
    """A local Ray, whose workers find the tests."""
    import ray

    from pipeline.runtime.ray_cluster import join_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        join_ray()
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory) -> Path:
    """An empty MLflow database, made once because that takes seconds."""
    from mlflow import MlflowClient

    file = tmp_path_factory.mktemp("fresh") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file
