"""Independent batches, made by this process or by a pool of Ray's actors, and the files that they
are kept in.

What a batch is depends on its arguments alone, so that its bytes are the same whoever makes it, and
when. (Each worker has `ray.cpus_per_worker` threads, and a process alone all of the machine's: on a
CPU that changes no bit but of products in float32 of 5 to 11 rows; see `tests/test_kernels.py`.)

Finished batches of a file lie in `<file>.parts` until the file is whole, so that a run that was
killed goes on after them.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.runtime.device import driver_device, worker_device
from pipeline.runtime.errors import UserError, one_line
from pipeline.runtime.failures import in_a_line, innermost, require_readable
from pipeline.runtime.files import atomic_file, file_hash, remove_temporary
from pipeline.runtime.node_checkout import Checkout, checkout
from pipeline.runtime.progress import PAUSE, progress
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.trials import Machine, note_machines, this_machine

OPEN_MAKERS = 4  # that a worker keeps: those that it used last
Batches = Mapping[Path, tuple]  # the arguments of each batch, by the file that it is kept in


class Maker:
    """A function that makes batches, with the networks and images that it needs. It is pickled as
    what opens it, and each process opens it once.

    Args:
        opens: importable; `opens(*args, device)` is the function.
        args: values that can be pickled. Relative paths in them are relative to the project.
        here: the function, if this process has opened it already.
    """

    def __init__(self, opens: Callable[..., Any], *args: Any, here: Any = None):
        self.opens, self.args, self._here = opens, args, here
        self.name = uuid.uuid4().hex  # the same in every process

    def open(self, device: torch.device) -> Any:
        """The function of this process."""
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

    def make(self, maker: Maker, batches: Batches) -> Iterator[tuple[Path, Any]]:
        """Make batches; yields each with its file, in any order.

        Raises:
            UserError: raised by the maker.
        """
        function = maker.open(self.device)
        for path, arguments in batches.items():
            yield path, function(*arguments)

    def end(self) -> None:
        """Give the workers' CPUs and GPUs back to the cluster."""


def workers_of(ray: Any) -> Alone:
    """Who makes the batches of a stage: this process, or `ray.num_workers` actors of Ray.

    Args:
        ray: the section `ray` of the params.

    Raises:
        UserError: `ray.use_gpu`, and the one worker has none.
    """
    return Several(ray) if ray.num_workers > 1 else Alone(worker_device(ray.use_gpu))


class Several(Alone):
    """A pool of Ray's actors. They start when there is a batch to make, and keep their CPUs and
    GPUs until `end`, or until this process ends.

    Each makes one batch at a time. Ray replaces a lost worker up to `ray.max_failures` times, and
    repeats its batch.
    """

    def __init__(self, ray: Any):
        super().__init__(driver_device(ray.use_gpu, ray.num_workers))
        self._ray, self._actors = ray, list[Any]()

    def make(self, maker: Maker, batches: Batches) -> Iterator[tuple[Path, Any]]:
        if not batches:
            return
        import ray
        from ray.util import ActorPool

        self._start(len(batches))
        sent, pool = ray.put(maker), ActorPool(self._actors)
        try:
            for path, value, machine in pool.map_unordered(
                lambda actor, batch: actor.make.remote(sent, *batch), list(batches.items())
            ):
                note_machines([machine])
                yield path, value
        except BaseException as error:  # or the caller stops: the batches under way are of no use
            self.end()
            if isinstance(inner := innermost(error), UserError):
                raise inner from None
            if isinstance(error, ray.exceptions.RayActorError):
                reason = f"{in_a_line(error)} (ray.max_failures: {self._ray.max_failures})"
                raise UserError("a worker was lost", reason, "run again to go on") from None
            raise

    def end(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self, batches: int) -> None:
        """Start as many actors as there are batches, up to `ray.num_workers`."""
        import ray

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
        for _ in range(len(self._actors), min(own.num_workers, batches)):
            self._actors.append(worker.remote(checkout(), own.use_gpu))


class _Worker:
    """An actor that makes batches."""

    def __init__(self, project: Checkout, use_gpu: bool):
        self._project, self._use_gpu = project, use_gpu
        self._device: torch.device | None = None
        self._open: dict[str, Maker] = {}

    def make(self, maker: Maker, path: Path, arguments: tuple) -> tuple[Path, Any, Machine]:
        """Make a batch; returns it with its file, and the machine that made it."""
        if self._device is None:  # not when it starts: Ray tells of an error there at length
            self._project.enter()
            self._device = worker_device(self._use_gpu)
        self._open[maker.name] = maker = self._open.pop(maker.name, maker)
        for other in list(self._open)[:-OPEN_MAKERS]:
            del self._open[other]
        return path, maker.open(self._device)(*arguments), this_machine()


def parts_folder(path: Path) -> Path:
    """Where the batches of a file lie until it is whole."""
    return path.with_name(f"{path.name}.parts")


def drop_parts(path: Path) -> None:
    """Delete the batches of a file, if there are any."""
    shutil.rmtree(parts_folder(path), ignore_errors=True)


def make_parts(
    files: Mapping[Path, Sequence[tuple]], workers: Alone, maker: Maker, name: str
) -> dict[Path, list[Path]]:
    """Make the batches of files, except those that are there; returns the batches' own files, in
    order. They are shared among the workers as if all were batches of one file.

    Args:
        files: the arguments of each batch, in order.
        maker: makes named tensors.
        name: names the files in messages.

    Raises:
        UserError: a batch cannot be written, or the maker raised it.
    """
    parts = {
        path: [parts_folder(path) / f"{n:06d}.safetensors" for n in range(len(batches))]
        for path, batches in files.items()
    }
    every = {
        part: own for path in files for part, own in zip(parts[path], files[path], strict=True)
    }
    for _ in making(every, workers, maker, name, save_tensors):
        pass
    return parts


def making(
    batches: Batches,
    workers: Alone,
    maker: Maker,
    name: str,
    save: Callable[[Any, Path], None],
    before: int = 0,
) -> Iterator[Path]:
    """Make the files of batches, except those that are there; yields each once it is there, in any
    order. The caller may delete it then.

    Args:
        save: writes a batch to its file, whole or not at all.
        before: the number of batches that were made before, and are not needed again.
    """
    for folder in {part.parent for part in batches}:
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporary(folder)
    missing = {part: own for part, own in batches.items() if not part.exists()}
    total, done = before + len(batches), before + len(batches) - len(missing)
    if done:
        print(f"{name}: going on from batch {done} of {total}", flush=True)
    with progress(name, done, total, pause=PAUSE) as bar:
        yield from [part for part in batches if part not in missing]
        for part, batch in workers.make(maker, missing):
            save(batch, part)
            bar(done := done + 1)
            yield part


def load_part(path: Path, load: Callable[[Path], Any]) -> Any:
    """Read a file of batches, `load(path)`.

    Raises:
        UserError: it is damaged, as after a loss of power.
    """
    try:
        return load(path)
    except Exception as error:  # a damaged file makes its reader raise nearly anything
        require_readable(path, error)
        reason = f"it is damaged ({one_line(str(error))[:150]})"
        raise UserError(str(path), reason, "delete it and run again") from error


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors, as safetensors."""
    from safetensors.torch import save

    content = save(tensors)
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)  # the library has an error of its own for a full disk


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote; raises as `load_part`."""
    from safetensors.torch import load_file

    return load_part(path, load_file)


def make_tensors(
    path: Path, workers: Alone, maker: Maker, batches: Sequence[tuple], name: str
) -> dict[str, Tensor]:
    """Make the named tensors of a file, which is not written: its batches are kept until the caller
    deletes them. The arguments are those of `make_parts`."""
    parts = make_parts({path: batches}, workers, maker, name)[path]
    return joined([load_tensors(part) for part in parts])


def write_files(
    files: Mapping[Path, Sequence[tuple]],
    workers: Alone,
    maker: Maker,
    name: str,
    save: Callable[[dict[str, Tensor], Path], None],
) -> None:
    """Make files batch by batch, except those that are there; the arguments are those of
    `make_parts`.

    Args:
        save: writes the tensors of all batches to their file.
    """
    missing = {path: batches for path, batches in files.items() if not path.exists()}
    for path, parts in make_parts(missing, workers, maker, name).items():
        save(joined([load_tensors(part) for part in parts]), path)
    for path in files:
        drop_parts(path)


def tensors_of(
    weights: Path, folder: Path, workers: Alone, maker: Maker, batches: Sequence[tuple], name: str
) -> dict[str, Tensor]:
    """Make named tensors with a network, and keep none of them.

    Args:
        weights: the network's file; batches that a killed run made with others are not used.
        folder: of the batches.
    """
    path = folder / f"{file_hash(weights)[:16]}.safetensors"
    tensors = make_tensors(path, workers, maker, batches, name)
    drop_parts(path)
    return tensors


def joined(batches: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of batches, joined along the first axis."""
    return {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
