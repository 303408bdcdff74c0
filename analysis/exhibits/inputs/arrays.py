"""Reading an .npz file of pictures and numbers."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.runtime.errors import UserError
from pipeline.runtime.tables import DAMAGED, MISSING

Arrays = dict[str, np.ndarray]


def read_arrays(path: Path, names: Iterable[str]) -> Arrays:
    """Read the named arrays of an .npz file.

    Raises:
        UserError: the file is missing, no .npz, or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except FileNotFoundError as error:
        raise UserError(str(path), "missing", MISSING) from error
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        raise UserError(str(path), "damaged", DAMAGED) from error
