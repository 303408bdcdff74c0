"""Workers of Ray itself make what one process makes, to the last byte, though one is killed."""

import os
import platform
import shutil
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, replicates
from pipeline.experiments.edit import edit_rows
from pipeline.experiments.evaluate.measuring import evaluate_all
from pipeline.experiments.reconstruct import reconstruct_hidden
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime.batches import Alone, workers_of
from pipeline.runtime.cluster import join_ray
from pipeline.runtime.trials import machines_of
from pipeline.training.tokens import cache_tokens, write_manifest
from tests.project import ROOT
from tests.tiny_project import ALONE, folders_of, make_project, with_params

pytestmark = pytest.mark.slow


@pytest.fixture
def ray(monkeypatch):
    import ray

    monkeypatch.chdir(ROOT)  # where workers find the tests, too
    join_ray()
    yield ray
    ray.shutdown()


def params_of(workers: int) -> Params:
    return with_params(
        evaluation={"samples": 80, "seeds": [0, 1]},
        cas={"samples": 80},
        tokens={"batch_size": 16},
        training={"batch_size": 64, "other_label_smoothings": []},
        ray={"num_workers": workers},
    )


def made(folder: Path, params: Params, workers: Alone) -> dict[str, bytes]:
    """Everything that the stages make, as files of the folder."""
    tokens = folder / "tokens"
    tokens.mkdir(parents=True)
    crops = {"train": 2, "val": 0}
    shards = {s: cache_tokens(s, n, params, tokens, workers) for s, n in crops.items()}
    write_manifest(tokens, params, "of the tokenizer", shards, classes=3)
    shutil.copytree(tokens, "data/tokens", dirs_exist_ok=True)
    shutil.rmtree("runs", ignore_errors=True)
    every = [r for network in NETWORKS for r in replicates(params, network)]
    own = {r: folder / r.network / r.name for r in every}
    rows = evaluate_all(params, own, folder, workers)
    edits = folders_of(folder / "edit", params)
    rows += edit_rows(params, edits, folder / "nearest", workers)
    rows += temperature_rows(params, folders_of(folder / "temperature", params), workers)
    more, pictures = reconstruct_hidden(params, folders_of(folder / "rebuilt", params), workers)
    features = {f"features/{path.name}": path for path in Path("runs/features").glob("*.s*")}
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*.*")} | features
    content = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    return content | {"rows": repr(rows + more).encode(), "pictures": pictures["samples"].tobytes()}


def test_two_workers_make_the_bytes_of_one_though_one_is_killed(ray, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(make_project(tmp_path))
    here = made(tmp_path / "alone", params_of(1), ALONE)
    params = params_of(2)
    workers = workers_of(params.ray)
    answered, answers = workers._answered, []

    def killing(answer: Any, *of: Any) -> bool:
        """The twentieth answer kills a worker."""
        answers.append(answer)
        if len(answers) == 20:
            os.kill(_pid(), signal.SIGKILL)
        return answered(answer, *of)

    monkeypatch.setattr(workers, "_answered", killing)
    there = made(tmp_path / "several", params, workers)
    assert sorted(there) == sorted(here)
    assert [name for name in here if here[name] != there[name]] == []
    assert "a worker was lost, another takes its place" in capfd.readouterr().out
    (machine,) = machines_of([])
    assert machine["host"] == platform.node() and machine["device"] == "cpu"


def _pid() -> int:
    found = [p for p in psutil.Process().children(True) if "ray::_Worker" in p.name()]
    return found[0].pid
