"""Numbers and paths that callers give: NumPy's numbers are the same as Python's, and what is none
is said to be."""

import contextlib
import operator
import os
import re
import unicodedata
from collections.abc import Mapping, Sized
from itertools import islice
from numbers import Real
from pathlib import Path
from typing import Any

from pipeline.config.paths import CODE
from pipeline.runtime.dag import DVC_FILE, read_stages, stage_outputs
from pipeline.runtime.errors import ArgumentError, UserError, one_line
from pipeline.runtime.limits import BATCH, IMAGES
from pipeline.runtime.project import lies_in

PROJECT = "train_transformer"  # a stage by which this project's dvc.yaml is known
SHOWN = 80  # characters of a value that a message has


def shown(given: Any) -> str:
    """A value as a message has it: Python shows no number of thousands of digits."""
    try:
        return f"{given}"[:SHOWN]
    except Exception:  # of whatever it says of itself
        return f"a value of {type(given).__name__}"


def elements(name: str, given: Any, ordered: bool = True) -> list[Any]:
    """What a list, an array or the like holds.

    Args:
        ordered: whether its order matters.

    Raises:
        ArgumentError: it cannot be gone through, as an array without axes; or has no order.
    """
    if ordered and isinstance(given, set | frozenset):  # other processes have another order
        raise ArgumentError(f"{name}: a set, which has no order; give a list")
    if isinstance(given, bytes | bytearray | memoryview | Mapping):  # Python goes through them too
        raise ArgumentError(f"{name}: {type(given).__name__}; give a list")
    try:
        # The length first: of an array that repeats one number in memory it may be any.
        count, most = (len(given), IMAGES) if isinstance(given, Sized) else (0, BATCH)
        found = list(islice(given, most + 1)) if count <= most else []
    except TypeError:
        raise ArgumentError(f"{name}: {type(given).__name__} without axes; give a list") from None
    except (OverflowError, ValueError) as error:  # as of a range without measure
        raise ArgumentError(f"{name}: {one_line(str(error))}; give a list") from None
    if max(count, len(found)) > most:
        raise ArgumentError(f"{name}: more than {most:,}, or without an end; give fewer")
    return found


def whole(name: str, given: Any) -> int:
    """A whole number as Python's, by which draws are named.

    Raises:
        ArgumentError: it is none.
    """
    try:
        number = operator.index(given)
        if str(getattr(given, "dtype", type(given).__name__)).endswith("bool"):
            raise TypeError("of truth")
    except (TypeError, RuntimeError):  # RuntimeError: torch's, of a tensor that has no number
        raise ArgumentError(f"{name}: {shown(given)} is no whole number; give one") from None
    if abs(number) >= 2**64:  # Python does not even show one of thousands of digits
        raise ArgumentError(f"{name}: a whole number of more than 64 bits; give a smaller one")
    return number


def is_plain(text: str) -> bool:
    """Whether it is a whole number as people write one: Python reads ٢, 0_1 or " 1" as numbers
    too."""
    return re.fullmatch("-?[0-9]+", text) is not None


def digits(text: str) -> int:
    """The number that a plain text is. Raises: ValueError: it is none."""
    if not is_plain(text):
        raise ValueError(f"{text} is no whole number")
    return int(text)


def truth(name: str, given: Any) -> bool:
    """Raises: ArgumentError: it is neither True nor False."""
    if not isinstance(given, bool):
        raise ArgumentError(f"{name}: {shown(given)} is neither true nor false; give one")
    return given


def real(name: str, given: Any) -> float:
    """Raises: ArgumentError: it is no number."""
    try:
        if isinstance(given, Real) and not isinstance(given, bool):
            return float(given)
    except OverflowError:  # an integer of hundreds of digits
        raise ArgumentError(f"{name}: a number that is too large; give a smaller one") from None
    raise ArgumentError(f"{name}: {shown(given)} is no number; give one")


def a_path(name: str, given: Any) -> Path:
    """A path that there is, or may be.

    Raises:
        ArgumentError: it is none.
    """
    try:
        if isinstance(given, str) and not given:
            raise ValueError("it is empty")  # which Python reads as the current folder
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.stat(Path(given))
        return Path(given)
    except (TypeError, ValueError, OSError) as error:  # as of NUL in it, or of a name too long
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(f"{name}: {shown(given)} is no path ({reason}); give one") from None


def require_apart(key: str, path: Path) -> None:
    """Refuse an output that lies where DVC deletes what a stage made, among the files of git and
    DVC, or among this project's code, which DVC hashes.

    Raises:
        UserError: it lies there.
    """
    around = (Path.cwd(), *Path(os.path.abspath(path)).parents, *path.resolve().parents)
    own = os.environ.get("DVC_STAGE", "").rpartition(":")[2]  # may write its own outputs
    for root in (folder for folder in around if (folder / DVC_FILE).exists()):
        stages = read_stages(root)
        made = [output for s in stages if s != own for output in stage_outputs(s, root)]
        code = CODE if PROJECT in stages else ()  # another project's folders may have these names
        others = (*code, Path(".git"), Path(".dvc"))
        folder = next((f for f in (*made, *others) if lies_in(path, root / f)), None)
        if folder in made:
            raise UserError(
                f"{key}: {path} lies in {folder}, which a stage makes and DVC deletes; name another"
            )
        if folder:
            raise UserError(f"{key}: {path} lies in {folder}, which is the project's; name another")


def require_name(key: str, path: Path) -> None:
    """Raises: UserError: an output has no name of its own, or is no path on this machine."""
    if str(path) == "-":
        raise UserError(f"{key}: -: nothing is written to the terminal; name a file or a folder")
    if re.fullmatch("[a-z][a-z0-9+.-]+:", path.parts[0] if path.parts else "", re.IGNORECASE):
        raise UserError(f"{key}: {path} is no path but an address; name a file or folder here")
    require_expanded(key, path)
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in str(path)):
        # A line break, or bytes that are not UTF-8, of which safetensors makes no file.
        raise UserError(f"{key}: {path} has characters that are no text; name another")
    if path.name in ("", ".."):  # the current folder, or one around it
        raise UserError(f"{key}: {path} is a folder that is there; name a new file or folder")


def require_expanded(key: str, path: Path) -> None:
    """Raises: UserError: an output's path begins with a `~` or `~name` that a shell replaces."""
    if path.parts and path.parts[0].startswith("~"):
        raise UserError(f"{key}: {path} begins with ~, which no shell has replaced; write it out")
