"""What the suffix of an output says; looked at before any model is opened."""

from pathlib import Path

from pipeline.api.numbers import a_path
from pipeline.runtime.errors import UserError

SAMPLES = (".png", ".gif", ".npz", "")


def sample_format(path: Path) -> str:
    """The suffix of an output of samples.

    Raises:
        UserError: it stands for no format, or the path is none that there may be.
    """
    suffix = a_path("--output", path).suffix.lower()
    if suffix not in SAMPLES:
        raise UserError(
            f"--output: {path} has a suffix that is not written; use .png (a grid), .gif (the "
            f"canvas as it fills), .npz (as the ADM suite reads), or none (a folder of PNGs)"
        )
    return suffix


def require_png(path: Path) -> None:
    if a_path("--output", path).suffix.lower() != ".png":
        raise UserError(f"--output: {path} is no .png, which is all that is written; name it so")
