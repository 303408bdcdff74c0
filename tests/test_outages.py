"""Outages during stages, each of which costs nothing: a choice of them, and every kind in every
kind of stage as a soak test."""

import os
from collections.abc import Iterator

import pytest

from tests.mlflow_server import mlflow_server
from tests.outages import OUTAGES, Bench

# Those that differ most: a server and a whole stage. `test_ray_train` and `test_trials` kill
# workers; the tests of `mlflow_sync` have servers that refuse or lose a request, and a database
# that is deleted.
CHOSEN = [("evaluate", "never answers"), ("train_classifier", "stage killed")]
CELLS = [(stage, outage) for outage, stages in OUTAGES.items() for stage in stages]


@pytest.fixture(scope="module")
def bench(finished, tmp_path_factory) -> Iterator[Bench]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as port:
        yield Bench(finished, tmp_path_factory.mktemp("outages"), port)


@pytest.mark.parametrize(
    ("stage", "outage"),
    [
        pytest.param(
            *c, marks=pytest.mark.slow if c in CHOSEN else pytest.mark.soak, id=": ".join(c)
        )
        for c in CELLS
    ],
)
def test_an_outage_costs_neither_bytes_nor_rows(bench, stage, outage):
    trial, points = bench.attempt(stage, outage)
    assert points > 0 or stage == "analysis"  # which logs no metric here
    # Beside other tests, times themselves differ by half.
    longer = 3 if "PYTEST_XDIST_WORKER" in os.environ else 1.15
    assert trial.took < longer * trial.plain + 3
