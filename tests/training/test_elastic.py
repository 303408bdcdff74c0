"""Training that may resume with another number of workers (`ray.elastic`)."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline.config.params import Params
from pipeline.config.paths import CURVES
from pipeline.config.replicates import NETWORKS
from pipeline.experiments.ablation import trials
from pipeline.runtime.files import read_yaml, write_text
from pipeline.runtime.stage import Stage
from pipeline.schedules import SCHEDULES, curve_csv
from pipeline.tools.plan import CAS_SETS
from stages import cas
from tests.project import ROOT
from tests.tiny_project import GRID, with_params, write_tokens


def runs_of(params: Params) -> set[str]:
    """Return the MLflow runs and run directories of the training stages, of the sweep's trials and
    of CAS's classifiers, in the working directory's project."""
    Path("params.yaml").write_text(json.dumps(params.model_dump()))
    names = [f"train_{name}" for name in ("classifier", "tokenizer", *NETWORKS)]
    stages = {name: Stage(name, params) for name in (*names, "sweep", "cas")}
    stages["sweep"].run = Mock()
    found = {part for stage in stages.values() for part in (stage.hash, stage.folder())}
    grid, jobs = trials(params, stages["sweep"]), cas.trainings(params, stages["cas"])
    assert (len(grid), len(jobs)) == (21, CAS_SETS * len(params.evaluation.seeds))
    for trial in grid:
        found |= {trial.training.folder, *trial.decodings, *trial.crossed}
    return set(map(str, found | {job.folder for job in jobs}))


CHANGES = {
    "ray": {"num_workers": 2, "cpus_per_worker": 3},
    "sweep": {"workers_per_trial": None},
    "cas": {"workers_per_classifier": 2},
    "training": {"accumulate": 4},
}


@pytest.mark.usefixtures("own_project")
def test_no_training_is_named_by_who_trains_where_others_may_go_on():
    for name in SCHEDULES:
        write_text(CURVES / f"{name}.csv", curve_csv(name, GRID**2))
    write_tokens()
    stages = read_yaml(ROOT / "dvc.yaml")["stages"]
    for stage in stages.values():
        stage["deps"] = [dep for dep in stage["deps"] if Path(dep).exists()]
    Path("dvc.yaml").write_text(json.dumps({"stages": stages}))
    for elastic in (True, False):
        one = with_params(ray={"elastic": elastic})
        other = one.model_copy(
            update={k: getattr(one, k).model_copy(update=v) for k, v in CHANGES.items()}
        )
        before, after = runs_of(one), runs_of(other)
        assert (before == after) == elastic and len(before) == len(after) > 10
        assert elastic or not before & after
