"""Independent batches, made by this process or by several workers of Ray.

What a batch is depends on its arguments alone, so that its bytes are the same whoever makes it, and
when. (Each worker has `ray.cpus_per_worker` threads, and a process alone all of the machine's: on a
CPU that changes no bit but of products in float32 of 5 to 11 rows; see `tests/test_kernels.py`.)
"""

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from pipeline.runtime.cluster import join_ray
from pipeline.runtime.device import driver_device, worker_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.home import Project
from pipeline.runtime.machines import Machine, meet, this_machine
from pipeline.runtime.parcels import Parcel, pack
from pipeline.runtime.room import require_resources
from pipeline.runtime.site import here, work_at

TOGETHER = 60.0  # seconds in which workers are lost with one, as by their node
KEPT = 4  # makers that a worker holds open: those that it used last
Batches = Mapping[Path, tuple]  # the arguments of each batch, by the file that it is written to
Save = Callable[[Any, Path], None]


class RayParams(Protocol):
    """The section `ray` of params.yaml."""

    @property
    def num_workers(self) -> int: ...

    @property
    def cpus_per_worker(self) -> int: ...

    @property
    def use_gpu(self) -> bool: ...

    @property
    def max_failures(self) -> int: ...


class Maker:
    """A function that makes batches, with the networks and images that it needs. It travels as what
    opens it, and each process opens it once.

    Args:
        opens: importable; `opens(*args, device)` is the function.
        args: plain values. Relative paths in them are of the project's folder.
        here: the function, where this process has opened it already.
    """

    def __init__(self, opens: Callable[..., Any], *args: Any, here: Any = None):
        self.opens, self.args, self._here = opens, args, here
        self.name = uuid.uuid4().hex  # the same wherever it travels

    def open(self, device: torch.device) -> Any:
        """The function, of this process."""
        if self._here is None:
            self._here = self.opens(*self.args, device)
        return self._here

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_here": None}


class Alone:
    """This process, which makes every batch itself.

    Args:
        device: that it computes on.
    """

    def __init__(self, device: torch.device):
        self.device = device

    def make(self, maker: Maker, batches: Batches, save: Save) -> Iterator[Path]:
        """Make batches and write each to its file; yields the files as they are written, in any
        order.

        Args:
            save: importable; writes a batch to a file, whole or not at all.

        Raises:
            UserError: of the function, in a line.
        """
        function = maker.open(self.device)
        for path, arguments in batches.items():
            save(function(*arguments), path)
            yield path

    def end(self) -> None:
        """Give back what is held of a cluster, to work that is not made of batches."""


def workers_of(ray: RayParams) -> Alone:
    """Who makes the batches of a stage: this process, or `ray.num_workers` of Ray's.

    Raises:
        UserError: `ray.use_gpu`, and the one worker has none.
    """
    return Several(ray) if ray.num_workers > 1 else Alone(worker_device(ray.use_gpu))


class Several(Alone):
    """Workers of Ray, which start when there is a batch to make and live until they are told to
    `end`, or with this process. So long no other work has their CPUs and GPUs.

    Each makes one batch at a time. One that is lost is replaced, and its batch given to whoever is
    free: `ray.max_failures` times in all. Those that are lost with one, as with their node, do not
    count again.
    """

    def __init__(self, ray: RayParams):
        super().__init__(driver_device(ray.use_gpu, ray.num_workers))
        self._ray, self._lost = ray, 0
        self._others, self._until = set[Any](), 0.0  # who may be lost with one, and how long
        self._at: Path | None = None  # the batch of that one
        self._idle: list[Any] = []
        # What each of the others is at, by the answer that it will give: no batch while it starts.
        self._busy: dict[Any, tuple[Any, tuple[Path, Parcel] | None]] = {}

    def make(self, maker: Maker, batches: Batches, save: Save) -> Iterator[Path]:
        import ray

        if not batches:
            return
        self._start(len(batches))
        waiting = deque((path, pack(path, own)) for path, own in batches.items())
        shared = ray.put(pack(maker, save))
        left = len(batches)
        try:
            while left:
                while waiting and self._idle:
                    worker, batch = self._idle.pop(), waiting.popleft()
                    answer = worker.make.remote(maker.name, shared, batch[1])
                    self._busy[answer] = (worker, batch)
                (answer,), _ = ray.wait(list(self._busy), num_returns=1)
                worker, done = self._busy.pop(answer)
                if not self._answered(answer, worker, done[0] if done else None):  # it is lost
                    waiting.extendleft([done] if done else [])
                    self._add()
                    continue
                self._idle.append(worker)
                if done:
                    path, parcel = done
                    parcel.take_back()
                    left -= 1
                    yield path
        finally:  # an error, or Ctrl-C: what is half made is of no use
            self._end_busy()

    def end(self) -> None:
        import ray

        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            ray.kill(worker)
        self._idle, self._busy, self._others = [], {}, set()

    def _start(self, batches: int) -> None:
        """Start as many workers as there are batches, unless they are there or too many."""
        count, ray = self._ray.num_workers, self._ray
        if not (self._idle or self._busy):
            join_ray()
            require_resources(count, ray.cpus_per_worker, ray.use_gpu, "ray.num_workers")
        for _ in range(min(count, batches) - len(self._idle) - len(self._busy)):
            self._add()

    def _add(self) -> None:
        """Start a worker."""
        import ray

        own: Any = ray.remote(_Worker).options(
            num_cpus=self._ray.cpus_per_worker, num_gpus=int(self._ray.use_gpu)
        )
        worker = own.remote(self._ray.use_gpu)
        self._busy[worker.started.remote(here().project)] = (worker, None)

    def _answered(self, answer: Any, worker: Any, path: Path | None) -> bool:
        """Whether a worker did what it was asked for; not if it was lost.

        Args:
            path: of the batch that it was at.

        Raises:
            UserError: it could not, for a reason that another try does not mend; or too many were
                lost.
        """
        import ray

        try:
            said = ray.get(answer)
        except ray.exceptions.RayTaskError:  # an error of the program's keeps its traceback
            raise
        except ray.exceptions.RayError as error:
            self._count(worker, path)
            reason, most = in_a_line(error), self._ray.max_failures
            if self._lost > most:
                raise UserError(
                    f"a worker was lost, and {most} before it (ray.max_failures): {reason}; run "
                    f"again to go on"
                ) from None
            print(f"a worker was lost, another takes its place: {reason}", flush=True)
            return False
        if isinstance(said, str):
            raise UserError(said)
        if said is not None:
            meet(said)
        return True

    def _count(self, worker: Any, path: Path | None) -> None:
        """Count a lost worker, unless it was lost with a counted one, and at another batch: a batch
        may be what workers are lost by."""
        now = time.monotonic()
        if worker not in self._others or now > self._until:
            self._until, self._at = now + TOGETHER, path
            self._others = {*self._idle, *(other for other, _ in self._busy.values())}
            self._lost += 1
        elif path and path == self._at:
            self._lost += 1
        self._others.discard(worker)

    def _end_busy(self) -> None:
        import ray

        for answer, (worker, batch) in list(self._busy.items()):
            if batch:
                ray.kill(worker)
                del self._busy[answer]


class _Worker:
    """A process of Ray's that makes batches."""

    def __init__(self, use_gpu: bool):
        self._use_gpu = use_gpu
        self._open: dict[str, tuple[Maker, Save]] = {}

    def started(self, project: Project) -> Machine | str:
        """The machine that it is on, or what the user has to do before this worker can make
        anything."""
        try:
            work_at(project)
            self._device = worker_device(self._use_gpu)
        except UserError as error:
            return str(error)
        return this_machine()

    def make(self, name: str, shared: Parcel, batch: Parcel) -> str | None:
        """Make a batch and write it; returns what the user has to do about it, if anything.

        Args:
            name: of the maker.
            shared: the maker, and how a batch is saved.
            batch: its file, and its arguments.
        """
        maker, save = self._open.pop(name) if name in self._open else _content(shared)
        self._open[name] = maker, save
        for other in list(self._open)[:-KEPT]:
            del self._open[other]
        try:
            with batch.opened() as (path, arguments):
                for _ in Alone(self._device).make(maker, {path: arguments}, save):
                    pass
        except UserError as error:
            return str(error)
        return None


def _content(shared: Parcel) -> tuple[Maker, Save]:
    with shared.opened() as (maker, save):
        return maker, save
