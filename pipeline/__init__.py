"""A pipeline that reproduces MaskGIT: the paper's networks, decoding and experiments.

`MaskGIT` is a trained model for sampling and editing. The class is imported on first use, so that
stages and `--help` start fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

__all__ = ["MaskGIT"]


def __getattr__(name: str) -> Any:
    if name == "MaskGIT":
        from pipeline.api.model import MaskGIT

        return MaskGIT
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
