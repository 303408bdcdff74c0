"""The memory that tensors take, or would take under torch's FakeTensorMode."""

from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

# Every operation is seen by a dispatch mode alone, which torch documents under these names.
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Counts what is made while it is entered, and is alive at once.

    Attributes:
        peak: the most bytes so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None) -> Any:
        out = operation(*args, **(kwargs or {}))
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        read = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            storage = tensor.untyped_storage()
            if storage._cdata not in read:  # no view of a weight
                self._alive.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
                self.made(storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return out

    def made(self, size: int) -> None:
        """Called with the bytes of each tensor that is made."""


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]
