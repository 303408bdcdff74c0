"""What runs again after a change, and what does not: real `dvc repro` at smoke size."""

import math
import os
import re
import shutil

import pandas as pd
import pytest

from pipeline.runtime.files import read_yaml, tree_hash
from tests.project import ROOT, trained

STAGES = read_yaml(ROOT / "dvc.yaml")["stages"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"mlflow__experiment": "other"}, set()),  # and nothing is left to run
        # Which the report lists.
        ({"evaluation__keep_samples": False}, {"analysis"}),
        # Real images are measured in sets as large as those that rejection keeps.
        ({"rejection__acceptance": [0.9]}, {"evaluate", "reject", "analysis"}),
        (
            {"autoregressive__steps": 21, "sweep__seeds": [1]},
            {"train_autoregressive", "sweep", "analysis"},
        ),
    ],
)
def test_a_changed_param_runs_only_what_lists_it(smoke, change, expected):
    """DVC's dry run names the stages that depend on the change."""
    smoke.set(**change)
    dry = smoke.run("dvc", "repro", "--dry")
    assert set(re.findall(r"Running stage '(\w+)'", dry)) == expected


@pytest.mark.soak
def test_results_are_told_from_those_of_other_params_and_come_back(smoke):
    """A refused run keeps results too, although DVC deletes a stage's results before it runs."""
    kept = {path: tree_hash(smoke.folder / path) for path in ("data/images", "results/prepare")}
    report = smoke.folder / "analysis/report.html"
    before = report.read_bytes()
    smoke.run("python", "-m", "pipeline", "preset", "mnist5k")  # and not run
    for command in ("pipeline summary", "analysis", "pipeline export transformer x.npz"):
        said = smoke.run("python", "-m", *command.split(), ok=False)
        assert "params" in said and "run `dvc repro" in said and said.count("\n") == 1
    assert report.read_bytes() == before
    smoke.run("python", "-m", "pipeline", "preset", "smoke")
    smoke.set(temperature__values=[0.0, 3.0])
    assert smoke.repro("temperature")[0] == ["temperature"]
    assert "Left out" not in smoke.run("python", "-m", "pipeline", "summary")
    smoke.set(temperature__values=[0.0, 2.0])
    said = smoke.run("python", "-m", "pipeline", "summary")
    assert "temperature.values: [0.0, 3.0], now [0.0, 2.0]" in said
    smoke.run("python", "-m", "analysis")
    text = report.read_text()
    assert "temperature ran with other params" in text and 'id="temperature-table"' not in text
    smoke.run("make", "clean")
    smoke.set(data__source="folder:/nowhere")
    smoke.run("dvc", "repro", ok=False)
    smoke.run("python", "-m", "pipeline", "preset", "smoke")
    assert smoke.repro()[0] == []  # what DVC keeps of the smoke run is there
    assert {path: tree_hash(smoke.folder / path) for path in kept} == kept


@pytest.mark.slow
def test_what_was_computed_once_comes_back_from_the_run_cache(smoke, tmp_path):
    """As when going back to a preset, but without lock file, results and run directories."""
    made = ("results", "data/images", "data/tokens", "data/samples", "data/schedules", "models")
    kept = {path: tree_hash(smoke.folder / path) for path in made[1:]}
    table = (smoke.folder / "analysis/tables/table1.md").read_bytes()
    for path in ("runs", *made, "analysis/tables", "analysis/figures"):
        shutil.rmtree(smoke.folder / path)
    for path in ("analysis/report.html", "dvc.lock"):
        (smoke.folder / path).unlink()
    smoke.run("git", "checkout", "--", ".")  # of the folders above, what git holds
    smoke.record_params(tmp_path / "params_read")
    smoke.run("python", "-m", "pipeline", "preset", "smoke")

    ran, log = smoke.repro()

    assert ran == [] and log.count("is cached - skipping run") == len(STAGES)
    assert {path: tree_hash(smoke.folder / path) for path in kept} == kept
    assert (smoke.folder / "analysis/tables/table1.md").read_bytes() == table


@pytest.mark.soak
def test_a_new_metric_is_measured_everywhere_and_trains_nothing(smoke, finished):
    """Follows the recipe for a metric. A change of the sweep's measuring code trains nothing
    either, nor does another choice of the samples' classes."""
    smoke.set(evaluation__labels="uniform")
    with open(smoke.folder / "pipeline/experiments/ablation.py", "a") as code:
        code.write("# edited\n")
    metrics = "pipeline/evaluation/metrics.py"
    smoke.edit(metrics, '"coverage")  #', '"coverage", "twice_precision")  #')
    twice = '        "twice_precision": 2 * precise / len(samples),\n'
    smoke.edit(metrics, '        "density": hits', f'{twice}        "density": hits')
    kid, name = '    "kid": "KID",\n', '    "twice_precision": "twice precision",\n'
    smoke.edit("analysis/exhibits/results.py", kid, name + kid)
    ran, log = smoke.repro()
    assert set(ran) == {"sweep", "evaluate", "temperature", "edit", "reject", "analysis"}
    assert trained(log) == set()
    samples = "data/samples"
    assert tree_hash(smoke.folder / samples) == tree_hash(finished.folder / samples)
    rows = pd.read_csv(smoke.folder / "results/sweep/rows.csv")
    assert rows["twice_precision_classifier"].tolist() == pytest.approx(
        (2 * rows["precision_classifier"]).tolist()
    )
    table1 = (smoke.folder / "analysis/tables/table1.md").read_text()
    assert "twice precision (classifier)" in table1


@pytest.mark.slow
def test_a_new_schedule_a_changed_one_and_one_more_T_run_what_is_new(smoke):
    """Follows the recipe for a schedule: one line, and its name in `sweep.schedules`."""
    linear = '    "linear": lambda r, n: 1 - r,\n'
    quartic = '    "quartic": lambda r, n: 1 - r**4,\n'
    smoke.edit("pipeline/schedules.py", linear, linear + quartic)
    smoke.edit("pipeline/schedules.py", "1 - r.sqrt()", "1 - r**0.4")  # square_root
    smoke.set(sweep__schedules=["cosine", "linear", "square_root", "quartic"])
    smoke.set(sweep__iterations=[2, 3, 4])
    # Paths hold the copy's own folder, the key does not: trials are found where they were.
    cells = (smoke.folder / "runs/sweep").rglob("cells/*.json")
    before = {path: path.stat().st_mtime_ns for path in cells}
    known = {*(smoke.folder / "runs/oracle").rglob("*.safetensors")}
    assert len(before) == 3 * 2 + 2 + 3 * 2  # schedules by T, two crossed, samplers by T

    ran, log = smoke.repro()

    assert ran == ["schedules", "sweep", "oracle", "analysis"]
    assert {*(smoke.folder / "runs/oracle").rglob("*.safetensors")} == known  # it uses no new curve
    assert trained(log) == {"quartic/seed0", "square_root/seed0"}  # the main model's is cosine
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(pd.read_csv(smoke.folder / "results/sweep/rows.csv")) == 4 * 3
    assert "quartic" in (smoke.folder / "analysis/tables/table3.md").read_text()


@pytest.mark.soak
def test_sweep_of_distributed_trials_does_not_starve(smoke):
    smoke.set(
        ray__num_workers=min(8, 2 ** int(math.log2(os.cpu_count()))),  # all, or nearly
        sweep__schedules=["cosine", "cubic"],
        sweep__crossed=["cosine", "cubic"],
        sweep__workers_per_trial=2,
    )
    smoke.stage("schedules")
    smoke.stage("sweep", timeout=400)
    assert len(pd.read_csv(smoke.folder / "results/sweep/rows.csv")) == 2 * 2
