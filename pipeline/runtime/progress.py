"""How far work has come: a bar on a terminal, sparse lines in a log; and how many of a stage's
trainings are done."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 10.0  # seconds; for loops of which a run has many, so that short ones show nothing


@contextmanager
def progress(
    name: str, start: int, total: int, *, enabled: bool = True, pause: float = 0.0
) -> Iterator[Callable[..., None]]:
    """Show the progress of a loop. Yields a function `update(done, text="")`, which the loop calls
    with the amount done so far, out of `total`, and a short text to show beside it.

    On a terminal this is a bar, which appears after `pause` seconds. In a log it is a line for each
    fifth of the work at most, `pause` seconds or more after the line before (or the start).

    Args:
        start: amount done before, where a run goes on.
        enabled: False shows nothing.
    """
    from tqdm import tqdm

    lines = enabled and not sys.stderr.isatty()
    next_line, said = start, time.monotonic()
    hidden = lines or not enabled
    with tqdm(desc=name, initial=start, total=total, delay=pause, disable=hidden) as bar:

        def update(done: int, text: str = "") -> None:
            nonlocal next_line, said
            bar.update(done - bar.n)
            bar.set_postfix_str(text[:100], refresh=False)
            now = time.monotonic()
            due = done >= next_line or done == total
            if lines and due and now - said >= pause:
                print(f"{name} {done}/{total}  {text}".rstrip(), flush=True)
                next_line, said = done + total // 5, now

        yield update


class Countdown:
    """Print how many trainings of a stage are done, and how long the others will take at this pace.

    Args:
        what: the trainings, as in "21 trials".
        pending: how many of `total` are still to be done.
    """

    def __init__(self, stage: str, what: str, total: int, pending: int):
        self.stage, self.total, self.pending = stage, total, pending
        self._here, self._started = 0, time.monotonic()
        print(f"{stage}: {total} {what}, {total - pending} finished before", flush=True)

    def done(self, name: str) -> None:
        """Count the training of that name."""
        self.pending, self._here = self.pending - 1, self._here + 1
        left = (time.monotonic() - self._started) / self._here * self.pending
        text = f", about {duration(left)} left" if self.pending else ""
        count = f"{self.total - self.pending} of {self.total}"
        print(f"{self.stage}: {name} done, {count}{text}", flush=True)


def duration(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "3 h 20 min", "2 days 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
