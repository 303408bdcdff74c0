"""A running stage: its key, its run directories and its MLflow run."""

import os
import platform
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pipeline.runtime.dag import (
    DVC_FILE,
    makers,
    part_of_key,
    project_key,
    read_stages,
    require_params,
    require_unchanged,
    stage_key,
    stage_outputs,
    stage_params,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import remove_temporary, value_hash
from pipeline.runtime.mlflow_sync import LONGEST, Sync
from pipeline.runtime.node_checkout import begin
from pipeline.runtime.project import in_project, of_project
from pipeline.runtime.provenance import write_record
from pipeline.runtime.run_log import LOG, NOTE, MachineMonitor, RunLog, open_run
from pipeline.runtime.runs import run_dir
from pipeline.runtime.storage import open_storage
from pipeline.runtime.trials import Machine, machines

INTERRUPTED = 1.0  # seconds that a stage waits for the tracking server after Ctrl-C


class StageParams(Protocol):
    """The params that every stage needs; `Params` has them."""

    @property
    def ray(self) -> Any: ...  # with `storage_path`, `folder` and `not_in_key`

    @property
    def mlflow(self) -> Any: ...  # with `experiment`


class Stage:
    """A stage of the DAG, as a context: its MLflow run, and that of the whole `dvc repro`, are
    found or created at the start, and closed as finished or failed at the end. A finished stage
    writes `results/sources/<name>.json`, which says what made its results.

    Args:
        name: the stage's name in dvc.yaml.
    """

    run: RunLog  # within the context

    def __init__(self, name: str, params: StageParams):
        self.name, self.params = name, params
        self._key = stage_key(name)
        self._keys: dict[tuple[str, ...], dict[str, Any]] = {}
        self.hash = value_hash(self._part())
        made = makers()
        begin(name, tuple(dep for dep in self._key["deps"].items() if dep[0] not in made))
        open_storage(params.ray.storage_path, in_project(params.ray.folder))

    def folder(self, *ignore: str, **identity: Any) -> Path:
        """The run directory of the stage, or of a part of it; it survives a kill.

        Args:
            ignore: what the part does not depend on (see `stage_key`).
            identity: values that tell the part from others, besides the stage's own key.
        """
        return run_dir(self.name, self._part(*ignore) | identity, self.params.ray.folder)

    def _part(self, *ignore: str) -> dict[str, Any]:
        """What is left of the key, as the stage began, without who trains, where others may."""
        if ignore not in self._keys:
            dropped = (*ignore, *self.params.ray.not_in_key)
            self._keys[ignore] = part_of_key(self._key, dropped)
        return self._keys[ignore]

    def __enter__(self) -> "Stage":
        self._started = time.monotonic()
        self._say_precision()
        self.folder()  # no other process may run the same
        for output in stage_outputs(self.name):
            remove_temporary(output.parent, output.name)
        runs, experiment = logs_folder(self.params.ray.folder), self.params.mlflow.experiment
        self._reproduction = open_reproduction(runs, experiment)
        self.run = open_run(
            self.folder() / LOG,
            self.hash,
            self.name,
            experiment,
            stage_params(self.name),
            {NOTE: f"{read_stages()[self.name].get('desc', '')}.\n\n{_how_to_repeat(self.name)}"},
            parent=self._reproduction.key,
        )
        self._sync = Sync(runs)
        self._monitor = MachineMonitor(self.run)
        return self

    def _say_precision(self) -> None:
        """Name the params that ask for bfloat16 where this machine's CPU has none."""
        params = stage_params(self.name).items()
        asked = [key for key, value in params if key.endswith(".bf16") and value is True]
        if not asked or self.params.ray.use_gpu:
            return
        import torch

        from pipeline.runtime.device import quick_in_bfloat16

        if not quick_in_bfloat16(torch.device("cpu")):
            print(
                f"{self.name}: {', '.join(asked)} without effect on the CPU of {platform.node()}, "
                f"which is quicker in float32",
                flush=True,
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = error is not None and not isinstance(error, Exception)
        changed = None if interrupted else self._changed()
        try:
            self._end(error or changed, INTERRUPTED if interrupted else LONGEST)
        finally:
            begin("", ())  # none runs
        if changed and isinstance(error, UserError):  # perhaps of workers that refused other code
            raise UserError(f"{changed} (it has failed: {error})") from error
        if changed and not error:
            raise changed

    def _changed(self) -> UserError | None:
        """The error where its params, code or inputs are others than those it began with: DVC,
        which looks at the end alone, would take the results for those of the new ones."""
        key = self._key
        try:
            require_params(key["params"], self.name)
            files = {str(of_project(key["params"][k])): h for k, h in key["files"].items()}
            require_unchanged((key["deps"] | files).items(), self.name)
        except UserError as changed:
            return changed
        return None

    def _end(self, error: BaseException | None, patience: float) -> None:
        """Close the run, and note what made the results if they are there.

        Args:
            patience: seconds that the tracking server may take.
        """
        self._monitor.finish()
        workers = [] if error else machines()
        try:
            if error is None:
                self.run.log_tags({"workers": "; ".join(map(_text, workers))})
            self.run.finish(ok=error is None)
            self._reproduction.finish(ok=error is None)
            left = self._sync.close(patience)
        except (UserError, OSError) as unlogged:  # it must hide neither results nor error
            left = str(unlogged)
        if left:
            print(f"{self.name}: {left}", flush=True)
        if error is None:
            write_record(self.name, self.run.run_id, self._key, self._started, workers)


def _text(machine: Machine) -> str:
    return f"{machine.get('host')} ({machine.get('device')})"


def logs_folder(storage: str) -> Path:
    """The folder that holds the logs of all runs, in their run directories.

    Args:
        storage: `ray.folder` of the params.
    """
    return Path(os.path.realpath(in_project(storage)))


def open_reproduction(runs: Path, experiment: str) -> RunLog:
    """Begin or resume the run of a whole `dvc repro`, the parent of its stages' runs.

    Its key is what all stages depend on, params and code: a `dvc repro` that is killed and run
    again goes on in the same run, and a changed param begins another.

    Args:
        runs: `logs_folder`.
    """
    key = project_key()
    digest = value_hash(key)
    name = os.environ.get("DVC_EXP_NAME") or f"{key['params'].get('preset', 'run')}-{digest[:6]}"
    tags = {
        NOTE: f"One state of params and code, reproduced by `dvc repro`. Its children are the "
        f"stages that ran; what DVC had in its cache is under the run that made it.\n\n"
        f"{_how_to_repeat()}",
        "maskgit.kind": "reproduction",
        "mlflow.source.name": DVC_FILE.name,
        "dvc.stage": "",
    }
    folder = runs / "reproduction" / digest[:16]
    return open_run(folder, f"reproduction/{digest}", name, experiment, key["params"], tags)


def log_reproduction(
    runs: Path,
    experiment: str,
    metrics: Mapping[str, Mapping[str, Any]],
    files: Iterable[Path],
) -> str:
    """Log the results of all stages, from the last one, which has no run of its own.

    Args:
        metrics: by group; those that are text become tags.

    Returns:
        What remains to be sent, as `Sync.close`.
    """
    run, sync = open_reproduction(runs, experiment), Sync(runs)
    for group, values in metrics.items():
        run.log_group(group, values)
        run.log_tags({f"{group}.{k}": v for k, v in values.items() if isinstance(v, str)})
    for file in files:
        run.log_artifact(file)
    run.finish(ok=True)
    return sync.close()


def _how_to_repeat(stage: str = "") -> str:
    command = f"dvc repro {stage}".strip()
    return (
        f"To repeat it: check out the commit of the tag `git.commit`, put `params.yaml` from the "
        f"artifacts in place, and `{command}`."
    )
