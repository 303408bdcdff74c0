"""Stopping a training at the step whose loss is not finite."""

import math

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UserError

WAIT = 10  # steps between looks at losses on a GPU, since a look waits for the device


class Diverged(UserError):
    """A loss is not finite, or spikes do not end. All workers know, and raise this together."""


class DivergedElsewhere(Diverged):
    """It is another worker's, which says more of it."""


class FiniteLosses:
    """Looks at the losses of every step, on a CPU at once and on a GPU some steps later.

    Args:
        session: with `average`, by which the workers tell one another.
        name: of the training, in messages.
    """

    def __init__(self, session, name: str):
        self.session, self.name = session, name
        self._waiting: dict[int, dict[str, Tensor]] = {}

    def note(self, step: int, losses: dict[str, Tensor], kept: int) -> None:
        """Note the losses of a step, counted from 0; none if it was left out.

        Args:
            kept: the step of the last checkpoint.

        Raises:
            Diverged: a loss of this step, or of one that waited, is not finite on any worker.
        """
        if losses:
            self._waiting[step] = {key: value.detach() for key, value in losses.items()}
        on_cpu = all(value.device.type == "cpu" for value in losses.values())
        if on_cpu or len(self._waiting) >= WAIT:
            self.check(kept)

    def check(self, kept: int) -> None:
        """Look at what waits.

        Raises:
            Diverged: as `note`.
        """
        if not self._waiting:
            return
        named = [(s, key) for s, losses in self._waiting.items() for key in losses]
        tensors = [value.float() for losses in self._waiting.values() for value in losses.values()]
        looked_at = torch.stack(tensors).cpu().tolist()  # the one wait for the device
        values = dict(zip(named, looked_at, strict=True))
        bad = {at: value for at, value in values.items() if not math.isfinite(value)}
        shares = {str(s): float(any(at[0] == s for at in bad)) for s in self._waiting}
        found = [int(s) for s, share in self.session.average(shares).items() if share != 0]
        self._waiting = {}
        if found:
            step = min(found)
            mine = [(key, value) for (s, key), value in bad.items() if s == step]
            if not mine:
                raise DivergedElsewhere(f"{self.name}: another worker's loss, in step {step + 1}")
            raise Diverged(
                f"{self.name}: {mine[0][0]} became {mine[0][1]} in step {step + 1}; the "
                f"checkpoint at step {kept} is kept. Lower the learning rate (or turn bf16 off) "
                f"and run again"
            )


def require_losses(losses: dict[str, Tensor], name: str, since: int, step: int) -> None:
    """Look whether any step since the last checkpoint has losses.

    Raises:
        Diverged: all were left out, on all workers.
    """
    if not losses:
        raise Diverged(
            f"{name}: the losses of all steps from {since + 1} to {step} were not finite; the "
            f"checkpoint at step {since} is kept. Lower the learning rate (or turn bf16 off) and "
            f"run again"
        )


def require_finite(task: object, row: dict[str, float], name: str, step: int, kept: int) -> None:
    """Look at what was measured after a step, and at the weights: the last update may have broken
    them, and the share that a classifier recognises is a number all the same.

    Raises:
        UserError: a value is not finite. All workers measure the same, and have the same weights.
    """
    wrong = [f"{key} is {value}" for key, value in row.items() if not math.isfinite(value)]
    if not wrong and (part := broken_network(task)):
        wrong = [f"weights in {part} are not finite"]
    if wrong:
        raise UserError(
            f"{name}: {wrong[0]} after step {step}; the checkpoint at step {kept} is kept. Lower "
            f"the learning rate (or turn bf16 off) and run again"
        )


def broken_network(task: object) -> str | None:
    """The name of a task's network whose weights are not all finite."""
    for name, part in vars(task).items():
        weights = part.state_dict().values() if isinstance(part, nn.Module) else ()
        if not all(w.isfinite().all() for w in weights if w.is_floating_point()):
            return name
    return None
