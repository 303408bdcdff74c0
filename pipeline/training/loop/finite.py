"""Stopping a training whose losses, measurements or weights are not finite."""

import math

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UserError

WAIT = 10  # steps between looks at the losses: a look waits for the GPU, and for other workers


class Diverged(UserError):
    """The training diverged. All workers compare the same numbers, and raise this together."""


class FiniteLosses:
    """Checks the losses of every step, ten steps at a time.

    Args:
        session: with `average`, by which the workers share their losses.
        name: the name of the training, in messages.
        saved: the step of the last checkpoint.
    """

    def __init__(self, session, name: str, saved: int):
        self.session, self.name, self.saved = session, name, saved
        self._waiting: dict[str, Tensor] = {}
        self._steps = 0

    def note(self, step: int, losses: dict[str, Tensor]) -> None:
        """Note the losses of a step, counted from 0; none if the step was left out.

        Raises:
            Diverged: a loss of one of the last ten steps is not finite on some worker.
        """
        noted = {f"{key} of step {step + 1}": loss.detach() for key, loss in losses.items()}
        self._waiting |= noted
        self._steps += 1
        if self._steps == WAIT:
            self.check()

    def check(self) -> None:
        """Check the losses noted since the last check.

        Raises:
            Diverged: one of them is not finite on some worker.
        """
        waiting, self._waiting, self._steps = self._waiting, {}, 0
        if waiting:
            values = torch.stack([loss.float() for loss in waiting.values()]).cpu().tolist()
            # The mean over the workers is not finite if one of their losses is not.
            self._require_finite(self.session.average(dict(zip(waiting, values, strict=True))))

    def require_row(self, task: object, means: dict[str, float], row: dict[str, float]) -> None:
        """Check what is logged at a checkpoint, and the weights, which the last update may have
        broken: an accuracy is finite all the same.

        Args:
            means: of the losses since the last checkpoint; empty if all steps were left out.

        Raises:
            Diverged: a value or a weight is not finite, or there are no losses.
        """
        if not means:
            raise self._diverged(f"no step after step {self.saved} had finite losses")
        self._require_finite({f"{key} after step {row['step']}": v for key, v in row.items()})
        for name, part in vars(task).items():
            weights = part.state_dict().values() if isinstance(part, nn.Module) else ()
            if not all(w.isfinite().all() for w in weights if w.is_floating_point()):
                raise self._diverged(f"weights of {name} are not finite after step {row['step']}")

    def _require_finite(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value}")

    def _diverged(self, reason: str) -> Diverged:
        way_out = "lower the learning rate (or turn bf16 off) and run again"
        saved = f"; the checkpoint of step {self.saved} stays" * (self.saved > 0)
        return Diverged(self.name, reason, way_out + saved)
