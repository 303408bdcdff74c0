"""Batches of this process and of Ray actors have the same bytes, even if actors are killed."""

import os
import platform
import shutil
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.config.params import Params
from pipeline.config.replicates import NETWORKS, replicates
from pipeline.evaluation.evaluator import Evaluator
from pipeline.experiments.edit import edit_rows
from pipeline.experiments.evaluate.measuring import evaluate_all
from pipeline.experiments.reconstruct import reconstruct_hidden
from pipeline.experiments.temperature import temperature_rows
from pipeline.runtime import batches, trials
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_json
from pipeline.training.tokens import cache_tokens
from tests.errors import refused
from tests.tiny_project import ALONE, CPU, folders_of, make_project, with_params

BATCHES = [(start, min(start + 4, 22)) for start in range(0, 22, 4)]


class Squares:
    """Computes the squares of a range, and records each call in the folder `notes`. `dies` maps the
    start of a range to the number of calls that kill their process."""

    def __init__(self, notes: Path, dies: dict[int, int], device: torch.device):
        assert device == CPU
        self.notes, self.dies = notes, dies
        self._note("opened")

    def _note(self, what: object) -> None:
        with open(self.notes / f"{what}", "a") as file:
            file.write(f"{os.getpid()}\n")

    def __call__(self, start: int, stop: int) -> dict[str, Tensor]:
        self._note(start)
        if len(noted(self.notes / f"{start}")) <= self.dies.get(start, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if start > 90:
            raise UserError("start", f"{start} is too large", "use a smaller one")
        return {"squares": torch.arange(start, stop) ** 2}


def noted(file: Path) -> list[str]:
    """Return the process id of each call that `Squares` recorded in a file."""
    return file.read_text().split()


def squares(folder: Path, workers: batches.BatchWorkers, given=BATCHES, **dies: int) -> Path:
    """Write squares to a file in `folder`. `_8=1` kills the first process that is given start 8."""
    folder.mkdir(exist_ok=True)
    maker = batches.Maker(Squares, folder, {int(start[1:]): often for start, often in dies.items()})
    batches.write_files(
        {folder / "set.safetensors": given}, workers, maker, "squares", batches.save_tensors
    )
    return folder / "set.safetensors"


@pytest.fixture(scope="module")
def workers(ray):
    pool = batches.workers_of(with_params(ray={"num_workers": 2, "max_failures": 2}).ray)
    yield pool
    pool.end()


def test_a_killed_run_goes_on_after_its_last_batch(tmp_path, capsys):
    straight = squares(tmp_path / "straight", ALONE)
    assert batches.load_tensors(straight)["squares"].tolist() == [n**2 for n in range(22)]
    with pytest.raises(UserError):
        squares(tmp_path / "stopped", ALONE, [*BATCHES[:2], (99, 100), *BATCHES[3:]])
    path = squares(tmp_path / "stopped", ALONE)
    assert "squares: resuming with 2 of 6 batches done" in capsys.readouterr().out
    assert path.read_bytes() == straight.read_bytes()
    assert not batches.parts_folder(path).exists()
    before = path.stat()
    assert squares(tmp_path / "stopped", ALONE).stat() == before
    assert len(noted(tmp_path / "stopped/0")) == 1


def test_named_tensors_of_other_weights_are_made_anew(tmp_path):
    weights, made = tmp_path / "weights", []

    def double(number: int) -> dict[str, Tensor]:
        made.append(number)
        if len(made) == 3:
            raise KeyboardInterrupt
        return {"twice": torch.tensor([2 * number])}

    def run() -> list[int]:
        maker, numbers = batches.Maker(object, here=double), [(n,) for n in range(4)]
        found = batches.tensors_of(weights, tmp_path / "run", ALONE, maker, numbers, "set")
        return found["twice"].tolist()

    weights.write_text("first")
    with pytest.raises(KeyboardInterrupt):
        run()
    weights.write_text("second")
    assert run() == [0, 2, 4, 6] and made == [0, 1, 2, 0, 1, 2, 3]


@pytest.mark.slow
def test_workers_make_the_bytes_of_one_process_and_stay(tmp_path, workers, monkeypatch):
    monkeypatch.setattr(trials, "_machines", [])
    wanted = squares(tmp_path / "alone", ALONE).read_bytes()
    for name in ("first", "second"):
        assert squares(tmp_path / name, workers).read_bytes() == wanted
    assert squares(tmp_path / "killed", workers, _8=1).read_bytes() == wanted
    first, second = (sorted(noted(tmp_path / name / "opened")) for name in ("first", "second"))
    assert first == second and len(set(first)) == 2
    assert len(noted(tmp_path / "killed/8")) == 2
    (machine,) = trials.machines()
    assert machine["host"] == platform.node() and machine["device"].startswith("cpu")


@pytest.mark.slow
def test_an_error_of_the_maker_is_the_users_and_its_batches_are_kept(tmp_path, workers):
    with refused("start", way_out="use a smaller one"):
        squares(tmp_path / "set", workers, [*BATCHES[:5], (99, 100)])
    kept = len(list(batches.parts_folder(tmp_path / "set/set.safetensors").glob("*.safetensors")))
    assert kept >= 3
    squares(tmp_path / "set", workers)
    made = sum(len(noted(tmp_path / f"set/{start}")) for start, _ in BATCHES)
    assert made <= 2 * len(BATCHES) - kept


@pytest.mark.slow
def test_a_batch_that_kills_every_worker_is_one_line(tmp_path, workers):
    workers.end()  # the new pool needs its CPUs
    pool = batches.workers_of(with_params(ray={"num_workers": 2, "max_failures": 1}).ray)
    with refused("a worker was lost", "max_failures: 1", "run again to resume"):
        squares(tmp_path / "set", pool, _12=9)
    assert len(noted(tmp_path / "set/12")) == 2
    assert batches.parts_folder(tmp_path / "set/set.safetensors").exists()


def made(folder: Path, params: Params, workers: batches.BatchWorkers) -> dict[str, bytes]:
    """Write all results that stages compute in batches to `folder`, and return them by name."""
    (tokens := folder / "tokens").mkdir(parents=True)
    crops = {"train": 2, "val": 0}
    shards = {s: cache_tokens(s, n, params, tokens, workers) for s, n in crops.items()}
    write_json(tokens / "manifest.json", {"classes": 3, "shards": shards})
    shutil.copytree(tokens, "data/tokens", dirs_exist_ok=True)
    shutil.rmtree("runs", ignore_errors=True)
    every = [r for network in NETWORKS for r in replicates(params, network)]
    own = {r: folder / r.network / r.name for r in every}
    rows = evaluate_all(params, own, folder, Evaluator(params, workers, second=True))
    edits = folders_of(folder / "edit", params)
    rows += edit_rows(params, edits, folder / "nearest", workers)
    heated = {r: folder / "temperature" / r.network / r.name for r in every if r.main}
    rows += temperature_rows(params, heated, workers)
    more, pictures = reconstruct_hidden(params, folders_of(folder / "rebuilt", params), workers)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*.*")}
    content = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    return content | {"rows": repr(rows + more).encode(), "pictures": pictures["samples"].tobytes()}


@pytest.mark.slow
def test_stages_make_the_same_bytes_with_two_workers(workers, tmp_path, monkeypatch):
    workers.end()  # new actors start in the new working directory
    monkeypatch.chdir(make_project(tmp_path))
    params = with_params(
        evaluation={"samples": 80, "seeds": [0, 1]},
        cas={"samples": 80},
        tokens={"batch_size": 16},
        training={"batch_size": 64, "other_label_smoothings": []},
        ray={"num_workers": 2},
    )
    here = made(tmp_path / "alone", params, ALONE)
    there = made(tmp_path / "several", params, workers)
    assert sorted(there) == sorted(here)
    assert [name for name in here if here[name] != there[name]] == []
