"""A device that is none: its tensors lie on the CPU and say that they do not.

On it runs, without a GPU, what would run on one, and gives the numbers of a CPU. What a GPU would
refuse is refused: an operation on tensors of two devices, and a generator of another device than
what it draws. What a GPU would have to wait for is noted in `Pretended.waits`: each "look" at a
value, each "copy on" or "copy off" it that is not `non_blocking`, each operation whose result has a
size that only the values tell.

(A torch built for CPUs knows `cuda` no further than to a first backward pass, under FakeTensorMode
too.)
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
# torch's way to make a device in Python, which is younger than the oldest torch that we take.
REGISTER = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
# Where CUDA waits for a value: the second line within the operation itself.
WAITING = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.equal}
WAITING |= {aten.bincount, aten._unique2, aten.unique_consecutive, aten.histc}


class _Backend:
    """What torch asks of a device's module."""

    is_initialized = is_available = staticmethod(lambda: True)
    current_device, device_count = staticmethod(lambda: 0), staticmethod(lambda: 1)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: [torch.bfloat16])
    # `torch.random.fork_rng` in a test that comes after, in the same process, asks for these.
    get_rng_state = staticmethod(lambda device=0: torch.empty(0, dtype=torch.uint8))
    set_rng_state = staticmethod(lambda state, device=0: None)


@functools.cache
def pretended_device() -> torch.device:
    """The device; torch knows it from the first call on, for as long as the process lives."""
    REGISTER("pretended", backend_module=_Backend())
    _cast_like_cuda()
    return torch.device("pretended", 0)


class PretendedTensor(Tensor):
    """A tensor on the device, around one on the CPU."""

    @staticmethod
    def __new__(cls, on_cpu: Tensor):
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            device=pretended_device(),
        )

    def __init__(self, on_cpu: Tensor):
        self.on_cpu = on_cpu

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation} outside of `Pretended`")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"pretended {self.on_cpu!r}"


class PretendedGenerator(torch.Generator):
    """In the place of `torch.Generator`: one of the device is a CPU's that says otherwise."""

    # By the address of what torch shows an operation in their place; kept, so that none recurs.
    of_the_device: ClassVar[dict[int, torch.Generator]] = {}

    def __new__(cls, device: torch.device | str = "cpu"):
        generator = super().__new__(cls)
        if torch.device(device).type == "pretended":
            cls.of_the_device[generator._cdata] = generator
        return generator

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        here = self._cdata in self.of_the_device
        return pretended_device() if here else torch.device("cpu")


_GENERATOR = torch.Generator


class _PlainNumbers(TorchFunctionMode):
    """`torch.tensor` and `as_tensor` of plain numbers with a device, which torch copies to it where
    no dispatch sees it: here made on the CPU, and copied to the device as a GPU's are."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor):
            device = kwargs.get("device")
            if device is not None and torch.device(device).type == "pretended":
                made = function(*args, **kwargs | {"device": torch.device("cpu")})
                return made.to(device)
        return function(*args, **kwargs)


class Pretended(TorchDispatchMode):
    """While it is entered, the device exists.

    Attributes:
        waits: the operations so far at which a GPU would have had to be waited for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __enter__(self):
        # The threads of autograd are those of the devices that were there at its first use.
        self._threads = torch.autograd.set_multithreading_enabled(False)
        self._numbers = _PlainNumbers()
        self._numbers.__enter__()
        torch.Generator = PretendedGenerator  # type: ignore[misc]
        return super().__enter__()

    def __exit__(self, *error) -> None:
        torch.Generator = _GENERATOR  # type: ignore[misc]
        self._numbers.__exit__(*error)
        self._threads.__exit__(*error)
        super().__exit__(*error)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        here = [x for x in leaves if isinstance(x, PretendedTensor)]
        others = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, PretendedTensor)]
        device = kwargs.get("device")
        made_here = device.type == "pretended" if device is not None else bool(here)
        self._refuse(operation, leaves, here, others, made_here)
        if wait := _wait(operation, args, kwargs, bool(here), made_here):
            self.waits.append(wait)

        if made_here and device is not None:
            kwargs = kwargs | {"device": torch.device("cpu")}
        out = operation(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        if not made_here:
            return out
        out = tree_map(lambda x: PretendedTensor(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(operation, args, kwargs, out) if here else out

    def _refuse(self, operation, leaves: list, here: list, others: list, made_here: bool) -> None:
        copies = operation in (aten.copy_.default, aten._to_copy.default)
        if here and not copies and any(x.ndim > 0 for x in others):  # scalars may be a CPU's
            raise RuntimeError(f"{operation}: tensors on two devices")
        for generator in (x for x in leaves if isinstance(x, _GENERATOR)):
            if (generator._cdata in PretendedGenerator.of_the_device) != made_here:
                raise RuntimeError(f"{operation}: a generator of another device")


def _wait(operation, args, kwargs: dict, here: bool, made_here: bool) -> str | None:
    """What a GPU would be waited for, if anything."""
    packet = operation.overloadpacket
    if packet in (aten._to_copy, aten.copy_) and not kwargs.get("non_blocking"):
        source = args[0] if packet is aten._to_copy else args[1]
        target_here = made_here if packet is aten._to_copy else _is_here(args[0])
        if _is_here(source) != target_here:
            return "copy on" if target_here else "copy off"
    if here and packet in WAITING:
        return "look" if packet is aten._local_scalar_dense else str(packet)
    if here and packet in (aten.index, aten.index_put, aten.index_put_):
        masks = any(x is not None and x.dtype == torch.bool for x in args[1])
        return str(packet) if masks else None
    return None


def _is_here(tensor: Tensor) -> bool:
    return isinstance(tensor, PretendedTensor)


def _on_cpu(x: Any) -> Any:
    return x.on_cpu if isinstance(x, PretendedTensor) else x


LOWER = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "conv2d", "_convolution")
LOWER += ("scaled_dot_product_attention",)
FULL = ("layer_norm", "group_norm", "softmax.int", "log_softmax.int", "cross_entropy_loss")
FULL += ("mse_loss", "softplus", "exp", "log", "pow.Tensor_Scalar", "norm.Scalar", "sum")
FULL += ("sum.dim_IntList", "prod", "cumsum")


def _cast_like_cuda() -> None:
    """Autocast on the device casts what CUDA's casts (docs.pytorch.org/docs/stable/amp.html)."""
    library = torch.library.Library("aten", "IMPL", "AutocastPrivateUse1")
    for names, dtype in ((LOWER, torch.bfloat16), (FULL, torch.float32)):
        for name in names:
            packet, _, overload = name.partition(".")
            operation = getattr(getattr(aten, packet), overload or "default")
            library.impl(operation, _casting(operation, dtype))
    others = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    others.fallback(torch.library.fallthrough_kernel)
    _KEPT.extend([library, others])


_KEPT: list[Any] = []  # a library that is collected takes its operations with it


def _casting(operation: Callable, dtype: torch.dtype) -> Callable:
    def cast(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, PretendedTensor) and x.is_floating_point() else x

    def run(*args, **kwargs):
        with torch.autocast("pretended", enabled=False):
            return operation(*tree_map(cast, args), **tree_map(cast, kwargs))

    return run
