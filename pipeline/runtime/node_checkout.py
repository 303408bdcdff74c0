"""The project as a worker sees it: the driver's folder, or a checkout of this node."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checkout:
    """Where the project lies; made by the driver, and sent to its workers."""

    folder: str

    def enter(self) -> None:
        """Let this worker work there."""
        os.chdir(self.folder)


def checkout() -> Checkout:
    """The project of this process."""
    return Checkout(str(Path.cwd()))
