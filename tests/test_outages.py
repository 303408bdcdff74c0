"""Outages during stages lose nothing: a few quick tests, and every kind of outage in every kind of
stage as a soak test."""

import os
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.mlflow_server import mlflow_server
from tests.outages import OF_SERVER, OUTAGES, Trial

# `test_kills` kills stages, `test_ray_train` and `test_trials` workers; the tests of `mlflow_sync`
# have servers that refuse or lose a request, and a database that is deleted.
CHOSEN = [("evaluate", "never answers")]
CELLS = [(stage, outage) for outage, stages in OUTAGES.items() for stage in stages]


@pytest.fixture(scope="module")
def port(tmp_path_factory) -> Iterator[int]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as port:
        yield port


@pytest.fixture(scope="module")
def undisturbed(finished, tmp_path_factory) -> Callable[..., tuple[float, dict, dict]]:
    """Return the seconds that a stage takes, its outputs and its metrics."""

    @cache
    def run(stage: str, port: int | None) -> tuple[float, dict, dict]:
        trial = Trial(finished, stage, tmp_path_factory.mktemp("plain"), port)
        trial.end(trial.start())
        return trial.took, trial.outputs(), trial.logged()

    return run


@pytest.mark.parametrize(
    ("stage", "outage"),
    [
        pytest.param(
            *c, marks=pytest.mark.slow if c in CHOSEN else pytest.mark.soak, id=": ".join(c)
        )
        for c in CELLS
    ],
)
def test_an_outage_costs_neither_bytes_nor_rows(
    finished, undisturbed, port, tmp_path, stage, outage
):
    server = port if outage in OF_SERVER else None
    plain, outputs, logged = undisturbed(stage, server)
    trial = Trial(finished, stage, tmp_path, server, plain)
    trial.through(outage)
    assert trial.project.all_ended()
    trial.sync()
    assert trial.outputs() == outputs and trial.logged() == logged
    assert trial.count() > 0 or stage == "analysis"  # which logs no metric here
    trial.check_left()
    # Beside other tests, times themselves differ by half.
    longer = 3 if "PYTEST_XDIST_WORKER" in os.environ else 1.15
    assert trial.took < longer * trial.plain + 3
