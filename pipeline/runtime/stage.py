"""A running stage: its key, its run directories and its MLflow run."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pipeline.runtime.dag import stage_key
from pipeline.runtime.files import value_hash
from pipeline.runtime.runs import run_dir, write_source
from pipeline.runtime.tracking import Run, open_run, system_metrics

SOURCES = Path("results/sources")


class StageParams(Protocol):
    """The params that every stage needs; `Params` has them."""

    @property
    def ray(self) -> Any: ...  # with `storage_path`

    @property
    def mlflow(self) -> Any: ...  # with `experiment`

    def model_dump(self) -> dict[str, Any]: ...


class Stage:
    """A stage of the DAG, as a context: its MLflow run is found or created at the start, and closed
    as finished or failed at the end. A finished stage writes `results/sources/<name>.json`, which
    says what made its results.

    Args:
        name: the stage's name in dvc.yaml.
    """

    run: Run  # within the context

    def __init__(self, name: str, params: StageParams):
        self.name, self.params = name, params
        self.hash = value_hash(stage_key(name))
        self._keys: dict[tuple[str, ...], dict[str, Any]] = {}

    def folder(self, *ignore: str, **identity: Any) -> Path:
        """The run directory of the stage, or of a part of it; it survives a kill.

        Args:
            ignore: what the part does not depend on (see `stage_key`).
            identity: values that tell the part from others, besides the stage's own key.
        """
        if ignore not in self._keys:
            self._keys[ignore] = stage_key(self.name, ignore)
        return run_dir(self.name, self._keys[ignore] | identity, self.params.ray.storage_path)

    def __enter__(self) -> "Stage":
        self._started = time.time()
        self.run = open_run(
            self.hash, self.name, self.params.model_dump(), self.params.mlflow.experiment
        )
        self._monitor = system_metrics(self.run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._monitor.finish()
        self.run.finish(ok=error is None)
        if error is None:
            path = SOURCES / f"{self.name}.json"
            write_source(path, self.name, self.run.run_id, self.hash, self._started)
