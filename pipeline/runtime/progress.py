"""Shows progress: a bar on a terminal, a few lines in a log."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PAUSE = 10.0  # seconds; a `pause` with which short loops print nothing


@contextmanager
def progress(
    name: str, start: int, total: int, *, enabled: bool = True, pause: float = 0.0
) -> Iterator[Callable[..., None]]:
    """Show the progress of a loop. Yields a function `update(done, text="")`, which the loop calls
    with the amount done so far, out of `total`, and a short text. A terminal shows a bar after
    `pause` seconds. A log gets a line per fifth of the work, at least `pause` seconds apart."""
    from tqdm import tqdm

    lines = enabled and not sys.stderr.isatty()
    next_line, said = start, time.monotonic()
    hidden = lines or not enabled
    with tqdm(desc=name, initial=start, total=total, delay=pause, disable=hidden) as bar:

        def update(done: int, text: str = "") -> None:
            nonlocal next_line, said
            bar.update(done - bar.n)
            bar.set_postfix_str(text, refresh=False)
            now = time.monotonic()
            if lines and (done >= next_line or done == total) and now - said >= pause:
                print(f"{name} {done}/{total}  {text}".rstrip(), flush=True)
                next_line, said = done + total // 5, now

        yield update


class Countdown:
    """Prints how many of a stage's training runs are done, and the estimated time left."""

    def __init__(self, stage: str, what: str, total: int, pending: int):
        self.stage, self.total, self.pending = stage, total, pending
        self._here, self._started = 0, time.monotonic()
        print(f"{stage}: {total} {what}, {total - pending} already finished", flush=True)

    def done(self, name: str) -> None:
        """Count the training run `name` as done, and print the progress."""
        self.pending, self._here = self.pending - 1, self._here + 1
        minutes = math.ceil((time.monotonic() - self._started) / self._here * self.pending / 60)
        left = f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
        count = f"{self.total - self.pending} of {self.total}"
        text = f"{self.stage}: {name} done, {count}"
        print(f"{text}, about {left} left" if self.pending else text, flush=True)
