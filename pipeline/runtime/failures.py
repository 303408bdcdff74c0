"""How an error that a user must read leaves a Ray worker: as one line in a file beside its work.

Ray wraps what a worker raises and logs it at length, and a worker that is lost raises nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import UserError


@dataclass(frozen=True)
class Failure:
    """The line that a job leaves where it fails.

    Args:
        folder: the job's own, absolute, seen by worker and driver.
    """

    folder: str

    @property
    def _path(self) -> Path:
        return Path(self.folder) / "error.txt"

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)

    def read(self) -> str | None:
        """The line, if the job left one."""
        return self._path.read_text() if self._path.exists() else None

    @contextmanager
    def noted(self, pass_on: Callable[[UserError], bool] = lambda error: False) -> Iterator[None]:
        """Leave a `UserError` of the block as the line.

        Args:
            pass_on: whether to raise it too, so that Ray ends the workers that wait for this one.
        """
        try:
            yield
        except UserError as error:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(error))
            if pass_on(error):
                raise
