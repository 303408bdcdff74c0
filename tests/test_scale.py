"""`python -m pipeline scale`: what is trained and measured, and what is not done again."""

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.__main__ import main
from pipeline.config.paths import CURVES, TOKENIZER, TOKENS
from pipeline.decoding import DecodingSettings
from pipeline.evaluation.evaluator import Evaluator
from pipeline.evaluation.images import ArrayImages
from pipeline.runtime.errors import UserError
from pipeline.runtime.seeds import mix
from pipeline.sampling import Sampler, balanced_labels, sample_batches
from pipeline.schedules import curve_csv
from pipeline.tools.scale import BASELINE, Grid, measuring
from pipeline.tools.scale.grid import OWN, Decoding, Training
from pipeline.tools.scale.rows import CELL, RUN, Rows, rows_of
from pipeline.tools.scale.training import networks_at
from pipeline.training.loop import RunDirSession, train
from pipeline.training.transformer import TransformerTask
from pipeline.weights.published import load_model
from tests.images import write_token_cache
from tests.project import ROOT
from tests.tiny_project import ALONE, CLASSES, CODES, CPU, GRID, make_project, with_params

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
    history = train(task, name="", steps=steps, every=steps, seed=3, session=session)
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
    wanted = Evaluator(params, ALONE, keep=False).measure(images, labels) | {"nll": nll}
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


def test_grid_without_options_is_the_sweeps_and_the_baseline():
    params = tiny_params()
    grid = Grid.of(params, {}, None)
    assert grid.networks == [*params.sweep.schedules, BASELINE]
    assert (grid.seeds, grid.steps) == (params.sweep.seeds, [params.sweep.steps])
    assert grid.samples == params.evaluation.samples
    (training, *_), baseline = grid.trainings(), Training(BASELINE, 0.1, 0)
    assert training == Training("exponential", params.training.label_smoothing, 0)
    temperature = params.decoding.choice_temperature
    assert list(grid.decodings(training)) == [Decoding("exponential", 2, temperature)]
    assert list(grid.decodings(baseline)) == [None]
    assert grid.decode_schedules == [OWN]


def test_a_file_that_ends_within_its_header_is_begun_anew(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("network,tok")
    assert Rows(path).columns == [] and path.read_text() == ""
    with pytest.raises(UserError, match="holds no rows"):
        path.write_text("network,tokens\n")
        Rows(path)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none/rows.csv", Path("/proc/rows.csv")):
        with pytest.raises(UserError, match="name another"), rows_of(path):
            pass


def test_a_file_of_something_else_stays_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    for content in (b"mine\nwithout a last line end", b"mine", b"\x89PNG"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="holds no rows"):
            Rows(path)
        assert path.read_bytes() == content


def test_a_second_process_and_another_extractor_are_told_before_anything_is_trained(tmp_path):
    path = tmp_path / "rows.csv"
    with rows_of(path) as rows:
        rows.append(dict.fromkeys((*CELL, RUN), 1) | {"fid_classifier": 2.0})
        with pytest.raises(UserError, match="another process adds to"), rows_of(path):
            pass
    with rows_of(path) as rows, pytest.raises(UserError, match="has no fid_inception: its cells"):
        rows.require("fid_inception")
    assert path.read_text().count("network") == 1
