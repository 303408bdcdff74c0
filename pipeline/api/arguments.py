"""Arguments that callers pass: whole numbers, and folders to save to."""

import operator
import os
from pathlib import Path
from typing import Any

from pipeline.config.paths import OUTPUTS
from pipeline.runtime.dag import DVC_FILE
from pipeline.runtime.errors import ArgumentError, UserError
from pipeline.runtime.files import require_new
from pipeline.runtime.project import lies_in


def whole(name: str, given: Any) -> int:
    """A whole number, of Python, NumPy or PyTorch, as Python's.

    Raises:
        ArgumentError: it is not one.
    """
    try:
        if isinstance(given, bool):
            raise TypeError
        return operator.index(given)
    except (TypeError, RuntimeError):  # RuntimeError: of a tensor that is not one number
        raise ArgumentError(name, f"{given} is not a whole number", "give one") from None


def require_free(folder: Path) -> None:
    """Raises: UserError: something lies at the place of a folder that is to be written, or it is
    in what a stage makes, which DVC deletes before the stage runs again."""
    for root in Path(os.path.abspath(folder)).parents:
        made = [path for path in OUTPUTS if lies_in(folder, root / path)]
        if made and (root / DVC_FILE).exists():
            reason = f"it lies in {made[0]}, which a stage makes and DVC deletes"
            raise UserError(str(folder), reason, "name another")
    require_new(folder)
