"""Computes batches of tensors or images, in this process or in Ray actors, and stores the batches.

A batch depends only on the arguments of its function (docs/cluster.md names an exception). The
batches of an unfinished file are kept in `<file>.parts`; after a kill, only the rest is computed.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from pipeline.runtime.device import driver_device, worker_device
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line, innermost, require_readable
from pipeline.runtime.files import atomic_file, file_hash, remove_temporary
from pipeline.runtime.node_checkout import Checkout, checkout, enter
from pipeline.runtime.progress import PAUSE, progress
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.trials import Machine, note_machines, this_machine

Batches = Mapping[Path, tuple]  # path of the batch -> arguments
Files = Mapping[Path, Sequence[tuple]]  # path of the file -> arguments of each batch, in order
Save = Callable[[Any, Path], None]  # writes a batch or a file's tensors to a path, atomically


class Maker:
    """A picklable factory of a function that computes batches. Each process calls `opens(*args,
    device)` once; this call loads networks and images and returns the function. Paths in `args` may
    be relative to the project. `here` is the function itself, if this process already has it."""

    def __init__(self, opens: Callable[..., Any], *args: Any, here: Any = None):
        self.opens, self.args, self._here = opens, args, here
        self.name = uuid.uuid4().hex  # the same in every process

    def open(self, device: torch.device) -> Any:
        """Return the function that computes batches. Only the first call loads its networks."""
        if self._here is None:
            self._here = self.opens(*self.args, device)
        return self._here

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_here": None}


class BatchWorkers:
    """Computes batches in this process, on `device`."""

    def __init__(self, device: torch.device):
        self.device = device

    def make(self, maker: Maker, batches: Batches) -> Iterator[tuple[Path, Any]]:
        """Compute each batch with the function that `maker` opens, and yield pairs (path, batch) in
        any order. `batches` maps paths to the function's arguments. Exceptions propagate."""
        function = maker.open(self.device)
        for path, arguments in batches.items():
            yield path, function(*arguments)


def workers_of(ray: Any) -> BatchWorkers:
    """Return workers that compute in this process if `ray.num_workers` is 1, else in Ray actors."""
    return RayActors(ray) if ray.num_workers > 1 else BatchWorkers(worker_device(ray.use_gpu))


class RayActors(BatchWorkers):
    """A pool of Ray actors, started for the first batch and stopped after an error. Ray restarts a
    lost actor up to `ray.max_failures` times, and repeats the lost actor's current batch."""

    def __init__(self, ray: Any):
        super().__init__(driver_device(ray.use_gpu, ray.num_workers))
        self._ray, self._actors = ray, list[Any]()

    def make(self, maker: Maker, batches: Batches) -> Iterator[tuple[Path, Any]]:
        import ray
        from ray.util import ActorPool

        own = self._ray
        if not self._actors:
            join_ray()
            require_resources(own.num_workers, own.cpus_per_worker, own.use_gpu, "ray.num_workers")
            worker: Any = ray.remote(_Worker).options(
                num_cpus=own.cpus_per_worker,
                num_gpus=int(own.use_gpu),
                max_restarts=own.max_failures,
                max_task_retries=own.max_failures,
            )
            project = checkout()
            self._actors = [worker.remote(project, own.use_gpu) for _ in range(own.num_workers)]
        sent, pool = ray.put(maker), ActorPool(self._actors)
        try:
            for path, value, machine in pool.map_unordered(
                lambda actor, batch: actor.make.remote(sent, *batch), list(batches.items())
            ):
                note_machines([machine])
                yield path, value
        except BaseException as error:  # also if the caller stops: running batches are discarded
            self.end()
            if isinstance(inner := innermost(error), UserError):
                raise inner from None
            if isinstance(error, ray.exceptions.RayActorError):
                reason = f"{in_a_line(error)} (ray.max_failures: {own.max_failures})"
                raise UserError("a worker was lost", reason, "run again to resume") from None
            raise

    def end(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []


class _Worker:
    """A Ray actor that computes batches."""

    _name = ""  # `Maker.name` of the function
    _function: Any = None  # the function that computed the last batch

    def __init__(self, project: Checkout, use_gpu: bool):
        self._project, self._use_gpu = project, use_gpu

    def make(self, maker: Maker, path: Path, arguments: tuple) -> tuple[Path, Any, Machine]:
        """Compute a batch. Returns `path`, the batch and a description of this machine."""
        enter(self._project)  # not in __init__: Ray prints long tracebacks for errors there
        if self._name != maker.name:
            self._function = None  # frees memory before the next networks are opened
            self._function, self._name = maker.open(worker_device(self._use_gpu)), maker.name
        return path, self._function(*arguments), this_machine()


def parts_folder(path: Path) -> Path:
    """The folder that keeps the finished batches of the file `path` while it is incomplete."""
    return path.with_name(f"{path.name}.parts")


def drop_parts(path: Path) -> None:
    """Delete the folder that keeps the finished batches of the file `path`, if it exists."""
    shutil.rmtree(parts_folder(path), ignore_errors=True)


def make_parts(
    batches: Batches, workers: BatchWorkers, maker: Maker, name: str, save: Save
) -> None:
    """Compute the batches whose files are missing. `name` labels the progress bar."""
    for folder in {part.parent for part in batches}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary(folder)
    missing = {part: own for part, own in batches.items() if not part.exists()}
    total, done = len(batches), len(batches) - len(missing)
    if done:
        print(f"{name}: resuming with {done} of {total} batches done", flush=True)
    with progress(name, done, total, pause=PAUSE) as bar:
        for part, batch in workers.make(maker, missing) if missing else ():
            save(batch, part)
            bar(done := done + 1)


def parts_of(path: Path, batches: Sequence[tuple]) -> Batches:
    """Map the path of each batch's file, in `parts_folder(path)`, to the batch's arguments."""
    return {parts_folder(path) / f"{n:06d}.safetensors": own for n, own in enumerate(batches)}


def make_tensors(
    path: Path, workers: BatchWorkers, maker: Maker, batches: Sequence[tuple], name: str
) -> dict[str, Tensor]:
    """Compute batches of named tensors, and return each tensor joined over the batches. Nothing is
    written to `path`: batches stay in `parts_folder(path)` until `drop_parts(path)` is called."""
    parts = parts_of(path, batches)
    make_parts(parts, workers, maker, name, save_tensors)
    return joined([load_tensors(part) for part in parts])


def tensors_of(
    weights: Path,
    folder: Path,
    workers: BatchWorkers,
    maker: Maker,
    batches: Sequence[tuple],
    name: str,
) -> dict[str, Tensor]:
    """Compute batches of named tensors with the network in the file `weights`, and return them
    joined. A killed run with the same weights resumes from the batches in `folder`."""
    path = folder / f"{file_hash(weights)[:16]}.safetensors"
    tensors = make_tensors(path, workers, maker, batches, name)
    drop_parts(path)
    return tensors


def write_files(files: Files, workers: BatchWorkers, maker: Maker, name: str, save: Save) -> None:
    """For each missing file, compute its batches, and write their joined tensors with `save`."""
    missing = {path: parts_of(path, own) for path, own in files.items() if not path.exists()}
    every = {part: own for parts in missing.values() for part, own in parts.items()}
    make_parts(every, workers, maker, name, save_tensors)
    for path, parts in missing.items():
        save(joined([load_tensors(part) for part in parts]), path)
    for path in files:
        drop_parts(path)


def joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the tensors of each name over all batches, along the first axis."""
    return {name: torch.cat([each[name] for each in batches]) for name in batches[0]}


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors to a safetensors file."""
    content = safetensors.torch.save(tensors)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)  # `save_file` raises no OSError if the disk is full


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file that `save_tensors` wrote. Raises the errors of `load_part`."""
    return load_part(path, safetensors.torch.load_file)


def load_part(path: Path, load: Callable[[Path], Any], way_out: str = "delete the file") -> Any:
    """Read a file with `load(path)`; raises a `UserError` if the file is damaged or missing."""
    try:
        return load(path)
    except UserError:
        raise
    except Exception as error:  # readers raise nearly any type for a damaged file
        require_readable(path, error)
        raise UserError(str(path), f"cannot be read ({in_a_line(error)})", way_out) from error
