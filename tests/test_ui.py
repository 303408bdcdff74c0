"""`make ui`: what it prints opens what it says, in a real browser."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from pipeline.runtime.errors import UserError
from pipeline.tools.ui import links
from tests.errors import one_line


class Store:
    """Stands for MLflow's client."""

    def __init__(self, *sweeps: str, known: bool = True):
        self.sweeps, self.known = sweeps, known

    def __call__(self, uri):
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.known else None

    def search_runs(self, experiments, query, order_by, max_results):
        assert (experiments, query) == (["7"], "attributes.run_name = 'sweep'")
        return [SimpleNamespace(info=SimpleNamespace(run_id=name)) for name in self.sweeps]


def test_an_experiment_without_a_sweep_has_a_link_to_its_runs(monkeypatch):
    monkeypatch.setattr("mlflow.MlflowClient", Store())
    found = links("http://store", "http://127.0.0.1:5000", "maskgit", 0)
    place = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert found == {"all runs": place}


def test_no_experiment_yet_is_one_line(monkeypatch):
    monkeypatch.setattr("mlflow.MlflowClient", Store(known=False))
    for uri in ("http://store", "sqlite:///nowhere/mlflow.db"):
        with pytest.raises(UserError, match="no experiment 'maskgit' yet; `dvc repro`") as error:
            links(uri, "http://127.0.0.1:5000", "maskgit", 0)
        one_line(error)


def test_a_server_that_does_not_answer_is_one_line():
    with pytest.raises(UserError, match=r"9 does not answer .*start it, or unset MLFLOW_TRACKING"):
        links("http://127.0.0.1:9", "http://127.0.0.1:9", "maskgit", 0)


@pytest.fixture
def printed(finished, tmp_path):
    """What `make ui` prints, its server running."""
    log = tmp_path / "ui.log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            ("python", "-m", "pipeline", "ui"),
            cwd=finished.folder,
            env=finished.env,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    yield wait_for(log, process)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    process.wait(timeout=10)
    said = log.read_text()
    assert "Traceback" not in said and "Warning" not in said, said
    assert not [each for each in psutil.process_iter() if _is_of(each, finished.folder)]


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """Whether a process works in a folder, as those that a server leaves behind would."""
    with suppress(psutil.Error):
        return process.cwd() == str(folder)
    return False


def wait_for(log: Path, process: subprocess.Popen) -> dict[str, str]:
    for _ in range(240):
        time.sleep(0.5)
        assert process.poll() is None, log.read_text()
        found = dict(re.findall(r"(?m)^(all runs|Figure 8): +(\S+)$", log.read_text()))
        if len(found) == 2:
            try:
                urllib.request.urlopen(found["all runs"].partition("#")[0], timeout=5).close()
                return found
            except OSError:
                continue
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_the_links_open_the_runs_and_the_charts_of_the_sweep(browser, printed):
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(printed["all runs"])
    # One run for the whole of `dvc repro`, and all others folded below it.
    page.get_by_role("link", name=re.compile(r"^smoke-\w{6}$")).first.wait_for(timeout=60000)
    assert page.get_by_role("link", name="sweep", exact=True).count() == 0
    page.close()
    # In a window of its own: MLflow keeps the groups of charts of what a window showed before.
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(printed["Figure 8"])
    for trial in ("cosine/seed0", "linear/seed0", "square_root/seed0"):
        page.get_by_role("link", name=trial).first.wait_for(timeout=60000)
    # Of the first group, which is drawn without scrolling: FID against T.
    page.locator("text=samples/fid_classifier >> visible=true").first.wait_for(timeout=60000)
    page.locator(".js-plotly-plot").first.wait_for(timeout=60000)
    assert page.get_by_text("3 matching runs").count() == 1
    page.close()
