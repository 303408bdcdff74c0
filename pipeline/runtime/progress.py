"""How far long work has come: a bar on a terminal, sparse lines in a log."""

import sys
import time
from collections.abc import Callable

PAUSE = 10.0  # seconds: work of which there is much shows no bar or line where it is small


class progress:
    """A context that yields what is called with how much is done, and a text about it.

    In a log a line comes at most every fifth of the work, and not sooner than `pause` seconds after
    the one before (or the start); a bar, too, waits that long to appear.
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
