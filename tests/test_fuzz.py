"""Several hundred hostile inputs: each is refused in a line, or does no harm; none is a traceback,
a hang, or a wrong thing that was accepted without a word."""

from collections import Counter

import pytest

from tests.fuzzing import KINDS, Outcome, cases, outcomes

SEED = 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_do_no_harm(kind, capsys):
    found = outcomes(kind, SEED)
    with capsys.disabled():
        print(f"\n{_row(kind, found)}")
    assert [outcome for outcome in found if not outcome.well] == []
    assert len(found) == len(cases(kind, SEED))


def _row(kind: str, found: list[Outcome]) -> str:
    """A line of the table: how many were tried, had to be refused, were refused and accepted."""
    got = Counter(outcome.got for outcome in found)
    must = sum(outcome.must == "refuse" for outcome in found)
    silent = sum(outcome.must == "refuse" and outcome.got == "accepted" for outcome in found)
    other = len(found) - got["refused"] - got["accepted"]
    return (
        f"fuzz {kind:11} {len(found):4} inputs, {must:4} to refuse: {got['refused']:4} refused, "
        f"{got['accepted']:3} accepted ({silent} of them wrongly), {other} tracebacks or hangs"
    )


@pytest.mark.parametrize(
    ("run", "must", "got"),
    [
        ("lambda folder: 1 / 0", "refuse", "traceback: ZeroDivisionError"),
        ("lambda folder: None", "refuse", "accepted"),
        ("lambda folder: bytearray(5 * 2**30)", "either", "took more than 4 GB"),
        ("lambda folder: time.sleep(5)", "accept", "took more than 1 s"),
    ],
)
def test_what_must_not_happen_is_seen(monkeypatch, run, must, got):
    import resource
    import signal
    import time

    from tests import fuzzing

    before = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setattr(fuzzing, "SECONDS", 1)
    signal.signal(signal.SIGALRM, fuzzing._late)
    resource.setrlimit(resource.RLIMIT_AS, (fuzzing._used() + fuzzing.BYTES, before[1]))
    try:
        outcome = fuzzing._try(fuzzing.Case("bad", must, eval(run, {"time": time})))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert outcome.got == got and not outcome.well
