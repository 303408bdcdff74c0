"""Arguments that callers pass: whole numbers, and places of outputs."""

import operator
import os
import re
from pathlib import Path
from typing import Any

from pipeline.runtime.dag import DVC_FILE, read_stages, stage_outputs
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


def require_apart(key: str, path: Path) -> None:
    """Raises: UserError: an output lies in what a stage makes, which DVC deletes before the stage
    runs again."""
    around = {Path.cwd(), *Path(os.path.abspath(path)).parents, *path.resolve().parents}
    own = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # may write its own outputs
    for root in (folder for folder in around if (folder / DVC_FILE).exists()):
        for stage in read_stages(root).keys() - {own}:
            for output in stage_outputs(stage, root):
                if lies_in(path, root / output):
                    reason = f"{path} lies in {output}, which a stage makes and DVC deletes"
                    raise UserError(key, reason, "name another")


def require_name(key: str, path: Path) -> None:
    """Raises: UserError: an output is the address of a server, or begins with a `~` that no shell
    has replaced (as in `--output=~/file`)."""
    if re.match("[a-z][a-z0-9+.-]+:", str(path), re.IGNORECASE):
        raise UserError(key, f"{path} is an address, not a path", "name a file or folder here")
    if str(path).startswith("~"):
        raise UserError(key, f"{path} begins with ~, which no shell has replaced", "write it out")


def require_free(folder: Path, key: str = "folder") -> None:
    """Look whether a model may be saved there.

    Args:
        key: what the folder is called, for messages.

    Raises:
        UserError: something lies there, or a stage makes what does.
    """
    require_apart(key, folder)
    require_name(key, folder)
    require_new(folder)
