"""`python -m pipeline scale`: what is trained and measured, and what is not done again."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.__main__ import main
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.data.seeds import mix
from pipeline.decoding import DecodingSettings
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages
from pipeline.evaluation.statistics import ReferenceStatistics, save_statistics
from pipeline.runtime.files import write_csv
from pipeline.sampling import Sampler, balanced_labels, sample_batches
from pipeline.schedules import curve_csv
from pipeline.tools.scale import BASELINE, Training, measuring
from pipeline.tools.scale.training import networks_at
from pipeline.training.loop import RunDirSession, train
from pipeline.training.transformer import TransformerTask
from pipeline.weights.published import load_model
from tests.images import write_token_cache
from tests.project import ROOT
from tests.tiny_project import (
    ALONE,
    CLASSES,
    CODES,
    CPU,
    GRID,
    make_project,
    save_resnet,
    with_params,
)

TRAINING = {"batch_size": 8, "warmup_steps": 3, "bf16": False, "checkpoint_every": 2}
COUNTS = [2, 5]


def tiny_params(**training):
    return with_params(training=TRAINING | training)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """A project with a token cache of noise, and all that names its trainings."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    noise = np.random.default_rng(0)
    grids = {"train": [noise.integers(0, CODES, (20, 2, GRID**2))]}
    grids["val"] = [noise.integers(0, CODES, (6, 1, GRID**2))]
    labels = {"train": np.arange(20) % CLASSES, "val": np.arange(6) % CLASSES}
    write_token_cache(folder / TOKENS, grids, labels, CODES)
    (folder / CURVES).mkdir()
    for name in ("cosine", "linear"):
        (folder / CURVES / f"{name}.csv").write_text(curve_csv(name, GRID**2))
    (folder / "params.yaml").write_text(json.dumps(tiny_params().model_dump()))
    for name in ("dvc.yaml", "pipeline", "stages"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture
def project(template, tmp_path, monkeypatch) -> Path:
    """A copy of it, as the working directory."""
    folder = shutil.copytree(template, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def scale(project, monkeypatch, capsys):
    """Runs the command and returns the rows of its file; `scale.trained` has every step taken."""
    trained: list[int] = []
    step = TransformerTask.step

    def counted(self, number):
        trained.append(number)
        return step(self, number)

    def run(*options: str) -> list[dict[str, str]]:
        argv = ["pipeline", "scale", "rows.csv", "--seeds", "0", "--iterations", "2"]
        argv += ["--steps", "2,5", "--samples", "20", "--networks", "cosine,autoregressive"]
        monkeypatch.setattr(sys, "argv", [*argv, *options])
        main()
        run.said = capsys.readouterr().out
        return read("rows.csv")

    monkeypatch.setattr(TransformerTask, "step", counted)
    run.trained = trained
    return run


def read(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def named(rows: list[dict[str, str]], *columns: str) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in columns) for row in rows]


def trained_alone(steps: int, **training):
    """The averaged network of a training that ends at that step count."""
    task = TransformerTask(tiny_params(**training), TOKENS, CLASSES, seed=3, device=CPU)
    session = RunDirSession(Path("alone") / str(steps))
    history = train(task, name="", run="", steps=steps, every=steps, seed=3, session=session)
    return task.average.module, history[-1]["val_nll"]


def test_one_training_serves_every_step_count(project):
    wanted = Training("linear", 0.05, seed=3)
    found = networks_at(wanted, [5, 2], tiny_params(), CPU)
    for count, (steps, network, nll) in zip(COUNTS, found, strict=True):
        alone, alone_nll = trained_alone(count, mask_schedule="linear", label_smoothing=0.05)
        assert (steps, nll) == (count, alone_nll)
        for name, weights in alone.state_dict().items():
            assert torch.equal(weights, network.state_dict()[name]), name


def test_every_cell_has_a_row_and_the_baseline_one_a_step_count(scale):
    rows = scale("--iterations", "2,3", "--choice-temperatures", "0,9")
    cells = named(rows, "network", "steps", "iterations", "choice_temperature")
    assert cells == [
        *[("cosine", s, t, c) for s in ("2", "5") for t in ("2", "3") for c in ("0", "9")],
        (BASELINE, "2", str(GRID**2), ""),
        (BASELINE, "5", str(GRID**2), ""),
    ]
    assert {(r["tokens"], r["views"], r["samples"]) for r in rows} == {("16", "2", "20")}
    assert scale.trained == [0, 1, 2, 3, 4] * 2
    assert "10 rows added" in scale.said


def test_a_row_holds_the_metrics_of_the_networks_samples(scale):
    row = scale("--decode-schedules", "linear", "--networks", "cosine", "--seeds", "3")[-1]
    network, nll = trained_alone(5, mask_schedule="cosine")
    labels = balanced_labels(20, CLASSES)
    params, settings = tiny_params(), DecodingSettings(2, "linear", 4.5)
    draw = Sampler(network, load_model(TOKENIZER, "tokenizer"))
    batches = sample_batches(settings, labels, batch_size=10, seed=mix(3, "scale"))
    images = ArrayImages(torch.cat([draw(*batch) for batch in batches]).numpy())
    wanted = Evaluator(params, ALONE).measure(images, labels) | {"nll": nll}
    metrics = [name for name in row if name in wanted and name != "samples"]
    assert len(metrics) == 9
    for name in metrics:
        if not name.startswith("kid"):  # its subsets are drawn by the seed
            assert float(row[name]) == pytest.approx(wanted[name], rel=1e-6, abs=1e-9), name


def test_what_the_file_has_is_not_done_again(scale):
    before = scale()
    del scale.trained[:]
    assert scale() == before and scale.trained == [] and "0 rows added" in scale.said
    more = scale("--iterations", "2,4", "--seeds", "0,1")
    assert more[: len(before)] == before
    assert named(more[len(before) :], "network", "seed", "steps", "iterations") == [
        ("cosine", "0", "2", "4"),  # of the kept checkpoints
        ("cosine", "0", "5", "4"),
        *[("cosine", "1", s, t) for s in ("2", "5") for t in ("2", "4")],
        (BASELINE, "1", "2", "16"),
        (BASELINE, "1", "5", "16"),
    ]
    assert scale.trained == [0, 1, 2, 3, 4] * 2  # of seed 1


def test_a_count_between_two_goes_on_from_the_one_before(scale):
    scale("--networks", "cosine")
    del scale.trained[:]
    between = scale("--networks", "cosine", "--steps", "4")[-1]
    assert scale.trained == [2, 3]
    Path("rows.csv").unlink()
    shutil.rmtree("runs")
    assert scale("--networks", "cosine", "--steps", "4") == [between]


def test_killed_run_goes_on_and_ends_with_the_same_rows(scale, monkeypatch):
    straight = scale()
    text = Path("rows.csv").read_text()
    shutil.rmtree("runs")
    Path("rows.csv").unlink()
    measure, calls = measuring._measure, iter(range(2))

    def dies(*arguments):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(measuring, "_measure", dies)
    with pytest.raises(SystemExit, match="130"):
        scale()
    assert read("rows.csv") == straight[:2]
    with open("rows.csv", "a") as handle:
        handle.write(",".join(straight[2].values())[:-30])  # killed as it wrote
    monkeypatch.setattr(measuring, "_measure", measure)
    del scale.trained[:]
    assert scale() == straight and Path("rows.csv").read_text() == text
    assert scale.trained == [2, 3, 4]  # the baseline's segment that was cut


def test_cells_of_another_training_are_refused(scale, project):
    scale("--networks", "cosine")
    (project / "params.yaml").write_text(json.dumps(tiny_params(lr=1e-3).model_dump()))
    with pytest.raises(SystemExit, match=r"error: rows\.csv holds .*cosine.* another file"):
        scale("--networks", "cosine")
    for section, key, value in (
        ("decoding", "rounding", "ceil"),
        ("evaluation", "neighbors", 2),
    ):
        changed = with_params(training=TRAINING, **{section: {key: value}})
        (project / "params.yaml").write_text(json.dumps(changed.model_dump()))
        with pytest.raises(SystemExit, match="trained or measured otherwise"):
            scale("--networks", "cosine")
    Path("rows.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match=r"error: rows\.csv holds no rows of"):
        scale()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--networks", "cosin"), "--networks: 'cosin'"),
        (("--decode-schedules", "own,x"), "--decode-schedules: 'x'"),
        (("--seeds", "0,one"), "--seeds: '0,one'"),
        (("--seeds", "-1"), "--seeds"),
        (("--steps", "0,5"), "--steps"),
        (("--samples", "0"), "--samples"),
        (("--samples", "1"), "--samples: 1 samples give no covariance of the"),
        (("--iterations", "2,17"), "--iterations: 17 are more than the 16 tokens"),
        (("--label-smoothings", "1"), "--label-smoothings"),
        (("--choice-temperatures", "-1"), "--choice-temperatures"),
        (("--choice-temperatures", "inf"), "--choice-temperatures: must be a finite number"),
        (("--label-smoothings", "nan"), "--label-smoothings: must be a finite number"),
        (("--steps", "99999999999999"), "--steps: must be 1000000000 or less"),
        (("--seeds", "9223372036854775808"), "--seeds"),
        (("--seeds", "٢"), "--seeds: '٢' is no list of numbers"),
        (("--seeds", ""), "--seeds: what is given is empty"),
    ],
)
def test_impossible_values_are_one_line_that_names_the_option(scale, options, named):
    with pytest.raises(SystemExit) as stop:
        scale(*options)
    assert stop.value.code.startswith(f"error: {named}") and "\n" not in stop.value.code
    assert not Path("rows.csv").exists() and scale.trained == []


def test_a_curve_of_other_code_is_refused_before_anything_is_trained(scale):
    """Networks are trained and decoded with the code's schedules, and rows named by the curves."""
    (CURVES / "linear.csv").write_text(curve_csv("square", GRID**2))
    scale("--networks", "cosine", "--steps", "2")  # of curves that it does not use none is asked
    del scale.trained[:]
    for options in (("--networks", "cosine,linear"), ("--decode-schedules", "own,linear")):
        with pytest.raises(SystemExit, match=r"^error: .*linear\.csv is not what the code says"):
            scale(*options)
    (CURVES / "linear.csv").unlink()
    with pytest.raises(SystemExit, match=r"linear\.csv .* run `dvc repro schedules` first"):
        scale("--networks", "linear")
    assert scale.trained == []
    assert len(scale("--networks", BASELINE, "--steps", "2")) == 2


def test_samples_too_few_for_what_params_cannot_count_are_refused(scale, project):
    """Features of a torchvision network, and the 60 training images."""

    def refused(said: str, samples: int, **evaluation) -> None:
        sizes = {"temperature": {"samples": samples}, "editing": {"images": samples}}
        params = with_params(
            classifier={"architecture": "torchvision:resnet18"}, evaluation=evaluation, **sizes
        )
        (project / "params.yaml").write_text(json.dumps(params.model_dump()))
        with pytest.raises(SystemExit, match=f"^error: {said}"):
            scale("--samples", str(samples))
        assert scale.trained == []

    save_resnet()
    save_statistics(ReferenceStatistics(torch.zeros(512), torch.eye(512)), Path("known.npz"))
    known = {"reference_statistics": "known.npz"}
    refused("--samples: 512 samples give no covariance of the 512-dim", 512, **known)
    refused("evaluation.kid_subset_size: subsets of 61", 513, **known, kid_subset_size=61)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row | {"note": "mine"}, "has a column 'note', which `scale` does not measure"),
        (lambda row: {k: row[k] for k in row if k != "nll"}, "has no nll: its cells"),
    ],
    ids=["one more", "one less"],
)
def test_a_file_of_other_columns_is_refused_before_anything_is_trained(scale, change, said):
    rows = scale("--steps", "2", "--networks", "cosine")
    write_csv("rows.csv", [change(row) for row in rows])
    before = Path("rows.csv").read_bytes()
    del scale.trained[:]
    with pytest.raises(SystemExit, match=rf"^error: rows\.csv {said}.*name another file$"):
        scale()
    assert scale.trained == [] and Path("rows.csv").read_bytes() == before
