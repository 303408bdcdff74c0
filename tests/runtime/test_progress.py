"""What a log says of work that goes on."""

import time

import pytest

from pipeline.runtime.progress import Countdown, progress


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time, in a list that a test may change."""
    value = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: value[0])
    return value


def test_a_log_has_a_line_for_each_fifth_of_the_work(now, capsys):
    with progress("sample", 0, 100) as update:
        for done in range(1, 101):
            update(done, "loss 1")
    with progress("silent", 0, 100, enabled=False) as update:
        update(100)
    with progress("slow", 0, 4, pause=10) as update:
        for done in range(1, 5):
            now[0] += 6
            update(done)
    lines = [f"sample {done}/100  loss 1" for done in (1, 21, 41, 61, 81, 100)]
    assert capsys.readouterr().out.splitlines() == [*lines, "slow 2/4", "slow 4/4"]


def test_a_countdown_counts_all_and_reckons_with_those_of_this_run(now, capsys):
    count = Countdown("sweep", "trials", total=21, pending=3)
    now[0] += 60
    count.done("cosine/seed0")
    now[0] += 240
    count.done("linear/seed0")
    count.done("cubic/seed0")
    count = Countdown("cas", "classifiers", total=3, pending=3)
    now[0] += 3690
    count.done("real")
    assert capsys.readouterr().out.splitlines() == [
        "sweep: 21 trials, 18 finished before",
        "sweep: cosine/seed0 done, 19 of 21, about 2 min left",
        "sweep: linear/seed0 done, 20 of 21, about 2 min left",  # 300 s for two
        "sweep: cubic/seed0 done, 21 of 21",
        "cas: 3 classifiers, 0 finished before",
        "cas: real done, 1 of 3, about 2 h 3 min left",
    ]
