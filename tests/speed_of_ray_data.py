"""Why Ray Data does not make the batches: `python -m tests.speed_of_ray_data`. 200 batches of 16
numbers are each written to a file by two processes: those of `pipeline.runtime.batches`, and the
actors of `map_batches`. Both are asked three times, as a stage asks for array after array."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pipeline.runtime.batches import Maker, workers_of
from pipeline.runtime.ray_cluster import join_ray

BATCHES, WORKERS = 200, 2


def batch(number: int) -> np.ndarray:
    return np.full((4, 4), number)


def opened(device: Any) -> Callable[[int], np.ndarray]:
    return batch


class Saved:
    """What an actor of Ray Data does."""

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        for path, number in zip(rows["path"], rows["number"], strict=True):
            np.save(path, batch(number))
        return rows


def by_ray_data(files: list[Path]) -> None:
    import ray.data

    rows = [{"path": str(path), "number": number} for number, path in enumerate(files)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    pool = ray.data.ActorPoolStrategy(size=WORKERS)
    data.map_batches(Saved, batch_size=1, compute=pool, num_cpus=1).materialize()


def main() -> None:
    import ray

    join_ray()
    own = {"num_workers": WORKERS, "cpus_per_worker": 1, "use_gpu": False, "max_failures": 0}
    workers = workers_of(SimpleNamespace(**own))

    def by_workers(files: list[Path]) -> None:
        numbers = {path: (number,) for number, path in enumerate(files)}
        for path, made in workers.make(Maker(opened), numbers):
            np.save(path, made)

    for make in (by_workers, by_ray_data):
        for _ in range(3):
            with tempfile.TemporaryDirectory() as name:
                files = [Path(name, f"{number}.npy") for number in range(BATCHES)]
                started = time.perf_counter()
                make(files)
                seconds = time.perf_counter() - started
                assert all(path.exists() for path in files)
            print(f"{make.__name__:12}{seconds:6.2f} s", flush=True)
        workers.end()
    ray.shutdown()


if __name__ == "__main__":
    main()
