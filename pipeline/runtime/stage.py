"""A stage as it runs: its key, its run directories and its MLflow run, in one place."""

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
    """What a stage must be told besides its name; `Params` has it."""

    @property
    def ray(self) -> Any: ...  # with `storage_path`

    @property
    def mlflow(self) -> Any: ...  # with `experiment`

    def model_dump(self) -> dict[str, Any]: ...


class Stage:
    """A stage of the DAG, used as a context: its MLflow run is found or created, and closed as
    finished or failed. Once it finished, `results/sources/<name>.json` says what made the results.

    Args:
        name: of the stage in dvc.yaml.
    """

    run: Run  # within the context

    def __init__(self, name: str, params: StageParams):
        self.name, self.params = name, params
        self.hash = value_hash(stage_key(name))
        self._keys: dict[tuple[str, ...], dict[str, Any]] = {}

    def folder(self, *ignore: str, **identity: Any) -> Path:
        """The run directory, kept between kills, of what the stage does.

        Args:
            ignore: what the content does not depend on (see `stage_key`).
            identity: what else tells it from others.
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
