"""Copies of a training's state, for a thread that writes them while training continues."""

from typing import Any

from torch import Tensor


def snapshot(state: Any) -> Any:
    """A copy of a state in the processor's memory, which the next step does not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return state
