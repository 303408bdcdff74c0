"""How far long work has come: a bar on a terminal, sparse lines in a log; and how many of the
trainings of a stage are done."""

import sys
import time
from collections.abc import Callable

PAUSE = 10.0  # seconds; for loops of which a run has many, so that short ones show nothing


class progress:
    """Show the progress of a loop. The context yields a function `update(done, text="")`, which the
    loop calls with the amount done so far, out of `total`, and a short text to show beside it.

    On a terminal this is a bar, which appears after `pause` seconds. In a log it is a line for each
    fifth of the work at most, `pause` seconds or more after the line before (or the start).

    Args:
        start: amount done before, where a run goes on.
        enabled: False shows nothing.
    """

    def __init__(
        self, name: str, start: int, total: int, *, enabled: bool = True, pause: float = 0.0
    ):
        self.name, self.start, self.total = name, start, total
        self.enabled, self.pause = enabled, pause

    def __enter__(self) -> Callable[..., None]:
        from tqdm import tqdm

        show_bar = self.enabled and sys.stderr.isatty()
        self.bar = tqdm(
            desc=self.name,
            initial=self.start,
            total=self.total,
            delay=self.pause,
            disable=not show_bar,
        )
        self._next_line, self._said = self.start, time.monotonic()
        return self._update

    def _update(self, done: int, text: str = "") -> None:
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(text[:100], refresh=False)
        now = time.monotonic()
        due = done >= self._next_line or done == self.total
        if due and self.enabled and self.bar.disable and now - self._said >= self.pause:
            print(f"{self.name} {done}/{self.total}  {text}".rstrip(), flush=True)
            self._next_line, self._said = done + self.total // 5, now

    def __exit__(self, *exc) -> None:
        self.bar.close()


class Countdown:
    """Lines that say how many trainings of a stage are done, and how long the others will take at
    this pace.

    Args:
        what: they are, as in "21 trials".
        pending: how many of `total` are still to be done.
    """

    def __init__(self, stage: str, what: str, total: int, pending: int):
        self.stage, self.total, self.pending = stage, total, pending
        self._here, self._started = 0, time.monotonic()
        print(f"{stage}: {total} {what}, {total - pending} finished before", flush=True)

    def done(self, name: str) -> None:
        """One more is done, the one of that name."""
        self.pending, self._here = self.pending - 1, self._here + 1
        left = (time.monotonic() - self._started) / self._here * self.pending
        text = f", about {duration(left)} left" if self.pending else ""
        count = f"{self.total - self.pending} of {self.total}"
        print(f"{self.stage}: {name} done, {count}{text}", flush=True)


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3 h 20 min", "2 days 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"
