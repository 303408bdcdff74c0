"""How a `UserError` gets out of a Ray worker: as one line in a file in the job's folder.

Ray would wrap the error and log it at length.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text


@dataclass(frozen=True)
class Failure:
    """The file in which a job that fails leaves its error.

    Args:
        folder: the job's folder; absolute, and on a disk that worker and driver share.
    """

    folder: str

    @property
    def _path(self) -> Path:
        return Path(self.folder) / "error.txt"

    def clear(self) -> None:
        """Forget the error of an earlier attempt."""
        self._path.unlink(missing_ok=True)

    def read(self) -> str | None:
        """The error, if the job left one."""
        return self._path.read_text() if self._path.exists() else None

    @contextmanager
    def noted(self, pass_on: Callable[[UserError], bool] = lambda error: False) -> Iterator[None]:
        """Write a `UserError` of the block to the file.

        Args:
            pass_on: decides whether it is raised as well, so that Ray ends the workers that wait
                for this one.
        """
        try:
            yield
        except UserError as error:
            try:
                write_text(self._path, str(error))
            except UserError:  # a full disk has no room for the line either: Ray passes it on
                raise error from None
            if pass_on(error):
                raise
