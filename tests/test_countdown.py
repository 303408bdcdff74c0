"""How many trainings of a stage are done, and the time that is left, as people say it."""

import time

import pytest

from pipeline.runtime.progress import Countdown, duration


def test_it_counts_all_and_reckons_with_those_of_this_run(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    count = Countdown("sweep", "trials", total=21, pending=3)
    now[0] += 60
    count.done("cosine/seed0")
    now[0] += 240
    count.done("linear/seed0")
    count.done("cubic/seed0")
    assert capsys.readouterr().out.splitlines() == [
        "sweep: 21 trials, 18 finished before",
        "sweep: cosine/seed0 done, 19 of 21, about 2 min left",
        "sweep: linear/seed0 done, 20 of 21, about 2 min left",  # 300 s for two
        "sweep: cubic/seed0 done, 21 of 21",
    ]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (48 * 3600, "2 days 0 h"),
        (100 * 3600, "4 days 4 h"),
    ],
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
