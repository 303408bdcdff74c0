"""Training all replicates of a network: what is trained, kept, published and logged. A loop stands
for Ray; `test_ray_train.py` tests Ray itself."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest

from pipeline.config.replicates import replicates
from pipeline.data.ranks import ALONE
from pipeline.runtime import stage as stage_module
from pipeline.runtime.files import read_json
from pipeline.runtime.run_log import RunLog, read_rows
from pipeline.training import networks
from pipeline.training.autoregressive import AutoregressiveTask
from pipeline.training.loop import run as loop_run
from pipeline.training.loop.checkpoints import RunDirCheckpoints
from pipeline.training.loop.training import Workers, train
from pipeline.training.transformer import TransformerTask, TransformerTraining
from pipeline.weights.published import load_model
from stages import train_autoregressive
from tests.interruption import weight_bytes
from tests.tiny_project import CHANGES, CPU, with_params, write_tokens

TASKS = {"transformer": TransformerTask, "autoregressive": AutoregressiveTask}
TRAINING = {"steps": 4, "batch_size": 6, "checkpoint_every": 2, "bf16": False}


def params_with(seeds=(0, 1), smoothing=0.1, others=(0.2,)):
    return with_params(
        training=TRAINING | {"label_smoothing": smoothing, "other_label_smoothings": list(others)},
        evaluation=CHANGES["evaluation"] | {"seeds": list(seeds)},
    )


@pytest.fixture
def train_stage(own_project, monkeypatch):
    """Run a network's stage in the test's own project; return what it trained and its metrics."""
    for network in TASKS:
        shutil.rmtree(f"models/{network}")
    write_tokens()
    listed = {"params": ["transformer", "training", "evaluation"], "deps": ["data/tokens"]}
    stages = {f"train_{network}": listed for network in TASKS}
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    monkeypatch.setattr(loop_run, "join_with", lambda *_: None)
    monkeypatch.setattr(stage_module, "Sync", Mock(**{"return_value.close.return_value": ""}))
    trained = []

    def run_trials(function, trials, needs, *, stage, on_done):
        for trial in trials:
            value = function(trial)
            trained.append(trial.name)
            on_done(trial, value)

    monkeypatch.setattr(loop_run, "run_trials", run_trials)

    def run(params, network="transformer"):
        trained.clear()
        Path("params.yaml").write_text(json.dumps(params.model_dump()))
        metrics = networks.train_network(params, TASKS[network])
        return list(trained), metrics

    return run


def published(params, network="transformer") -> dict[str, bytes]:
    return {
        r.name: weight_bytes(load_model(r.folder, network)) for r in replicates(params, network)
    }


def single(params, network: str, seed: int, folder: Path) -> tuple[bytes, list[dict]]:
    """Return the averaged weights and history of one training, without a stage."""
    training = TransformerTraining(
        name=network,
        params=params,
        task_type=TASKS[network],
        seed=seed,
        folder=folder,
        workers=Workers.of(params.ray, 1),
    )
    task = training.task(ALONE, CPU)
    history = train(training, task, RunDirCheckpoints(folder))["history"]
    return weight_bytes(task.average.module), history


@pytest.mark.parametrize("network", TASKS)
def test_a_replicate_is_a_single_training_with_its_seed(train_stage, tmp_path, network):
    params = params_with()
    trained, metrics = train_stage(params, network)
    names = [r.name for r in replicates(params, network)]
    assert trained == [f"{network}/{name}" for name in names] and len(names) == 4
    models = published(params, network)
    assert len(set(models.values())) == 4
    histories = []
    for seed in (0, 1):
        plain, history = single(params, network, seed, tmp_path / f"{network}{seed}")
        assert models[f"main/seed{seed}"] == plain
        histories.append(history)
    smoother = params_with(smoothing=0.2, others=())
    plain, _ = single(smoother, network, 1, tmp_path / "smoother")
    assert models["smoothing_0.2/seed1"] == plain
    curve = pd.read_csv(f"results/{network}/history.csv")
    assert list(curve)[:2] == ["step", "loss"] and curve["step"].tolist() == [2, 4]
    assert curve["loss"].tolist() == pytest.approx([row["loss"] for row in histories[0]])
    last = [history[-1]["val_nll"] for history in histories]
    assert metrics["val_nll"] == pytest.approx(sum(last) / 2)


def test_one_more_seed_and_one_more_smoothing_train_themselves_alone(train_stage):
    train_stage(params_with(seeds=[1], others=[]))
    first = published(params_with(seeds=[1], others=[]))
    more = params_with(seeds=[0, 1], others=[0.0])
    trained, _ = train_stage(more)
    new = ["main/seed0", "smoothing_0.0/seed0", "smoothing_0.0/seed1"]
    assert trained == [f"transformer/{name}" for name in new]
    models = published(more)
    assert models["main/seed1"] == first["main/seed1"]
    swapped = params_with(seeds=[1, 0], smoothing=0.0, others=[0.1])
    assert train_stage(swapped)[0] == []
    assert published(swapped)["smoothing_0.1/seed1"] == first["main/seed1"]
    fewer = params_with(seeds=[0], others=[])
    assert train_stage(fewer)[0] == []
    assert sorted(p.as_posix() for p in Path("models/transformer").glob("*/*")) == [
        "models/transformer/main/seed0"
    ]


def test_killed_trainings_go_on_and_end_with_the_same_bytes(train_stage, monkeypatch, capsys):
    params = params_with()
    train_stage(params)
    straight = published(params)
    for folder in ("models/transformer", "runs/train_transformer"):
        shutil.rmtree(folder)
    log, rows = RunLog.log_training, []

    def dies(self, row):
        rows.append(row)
        if len(rows) == 6:  # of the second training, before its checkpoint: 2 × 2 are the first's
            raise KeyboardInterrupt
        log(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "log_training", dies)
        with pytest.raises(KeyboardInterrupt):
            train_stage(params)
    assert not Path("models/transformer").exists()
    capsys.readouterr()
    trained, _ = train_stage(params)
    said = capsys.readouterr().out
    assert "train_transformer: 4 training runs, 1 already finished" in said
    assert "transformer/main/seed1: resuming from step 2 of 4" in said
    assert "main/seed0: resuming" not in said and len(trained) == 3
    assert published(params) == straight


def rows_of(log: Path) -> list[tuple[int, dict[str, float]]]:
    return [(row["step"], row["metrics"]) for _, row in read_rows(log / "metrics.jsonl")]


def test_every_training_is_logged_as_a_child_of_the_stage(train_stage):
    params = params_with(others=[])
    _, metrics = train_stage(params)
    (first,) = Path("runs/train_transformer").glob("*/log")
    train_stage(params_with(seeds=[0, 1, 2], others=[]))  # two are finished before
    (second,) = set(Path("runs/train_transformer").glob("*/log")) - {first}
    assert read_json(first / "run.json")["tags"]["workers"].partition(" (")[2].startswith("cpu")
    assert (0, {f"transformer/{k}": v for k, v in metrics.items()}) in rows_of(first)
    for stage, seeds in ((first, 2), (second, 3)):
        children = sorted((stage / "runs").iterdir())
        assert [child.name for child in children] == [f"main-seed{seed}" for seed in range(seeds)]
        for child in children:
            assert [step for step, _ in rows_of(child)] == [2, 4]
            assert read_json(child / "run.json")["status"] == "FINISHED"
            pictures = sorted((child / "artifacts/images").glob("*.png"))
            assert [path.name.split("+")[2] for path in pictures] == ["2", "4"]
    assert rows_of(first / "runs/main-seed0") == rows_of(second / "runs/main-seed0")


def test_the_baseline_trains_for_steps_of_its_own(monkeypatch):
    train_network = Mock(return_value={"val_nll": 1.0})
    monkeypatch.setattr(train_autoregressive, "train_network", train_network)
    train_autoregressive.main(with_params(training=TRAINING, autoregressive={"steps": 9}))
    params, *rest = train_network.call_args.args
    assert [params.training.steps, *rest] == [9, AutoregressiveTask]
