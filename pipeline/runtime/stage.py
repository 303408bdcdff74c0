"""Runs a stage: computes its key (`dag.stage_key`), finds run directories, and logs to MLflow."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime import dag
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import remove_temporary, value_hash
from pipeline.runtime.mlflow_sync import Sync
from pipeline.runtime.node_checkout import begin
from pipeline.runtime.project import in_project, of_project
from pipeline.runtime.provenance import write_record
from pipeline.runtime.run_log import LOG, NOTE, RunLog, origin
from pipeline.runtime.runs import run_dir
from pipeline.runtime.storage import open_storage
from pipeline.runtime.trials import machines

INTERRUPTED = 1.0  # seconds that a stage waits for the tracking server after Ctrl-C
REPEAT = (
    "\n\nTo repeat the run: check out the commit in the tag `git.commit` (with your uncommitted "
    "changes, if the tag `git.dirty` is true), copy `params.yaml` from the artifacts into the "
    "project, and run `dvc repro{}`."
)


class Stage:
    """A stage of dvc.yaml, as a context manager. Entering begins or resumes the MLflow runs of the
    stage and of the whole `dvc repro`; leaving marks both runs as finished or failed. A finished
    stage writes `results/sources/<name>.json`, which records how the results were made."""

    run: RunLog  # set inside the context

    def __init__(self, name: str, params: Any):
        self.name, self.params = name, params
        self._key = dag.stage_key(name)
        self.hash = value_hash(self._part())
        made = dag.makers()
        begin(name, tuple(dep for dep in self._key["deps"].items() if dep[0] not in made))
        open_storage(params.ray.storage_path, in_project(params.ray.folder))

    def folder(self, *ignore: str, **identity: Any) -> Path:
        """The stage's run directory; with an `identity`, such as a seed, the directory of a job of
        the stage, such as a training run. `ignore` names params and dependencies that the job does
        not use. Files in a run directory survive a kill."""
        return run_dir(self.name, self._part(*ignore) | identity, self.params.ray.folder)

    def _part(self, *ignore: str) -> dict[str, Any]:
        """The stage's key without the params and dependencies in `ignore`. With `ray.elastic`,
        params that set how batches are split, such as the number of workers, are left out too."""
        return dag.part_of_key(self._key, (*ignore, *self.params.ray.not_in_key))

    def __enter__(self) -> "Stage":
        self._started = time.monotonic()
        values = dag.stage_params(self.name)
        folder = self.folder() / LOG  # locked: no other process runs this stage
        for output in dag.stage_outputs(self.name):
            remove_temporary(output.parent, output.name)
        self._reproduction = open_reproduction(self.params)
        what, experiment = dag.read_stages()[self.name].get("desc"), self.params.mlflow.experiment
        note = f"{what}.{REPEAT.format(f' {self.name}')}"
        tags, parent = origin() | {NOTE: note}, self._reproduction.key
        self.run = RunLog(folder, self.hash, self.name, experiment, values, tags, parent).begin()
        self.run.log_artifact(dag.PARAMS_FILE)
        self._sync = Sync(logs_folder(self.params))
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        begin("", ())  # the stage has ended
        failed = error or self._changed()
        interrupted = failed is not None and not isinstance(failed, Exception)
        workers = [] if failed else machines()
        try:
            if not failed:
                named = (f"{machine.get('host')} ({machine.get('device')})" for machine in workers)
                self.run.log_tags({"workers": "; ".join(named)})
            self.run.finish(ok=not failed)
            self._reproduction.finish(ok=not failed)
            left = self._sync.close(INTERRUPTED) if interrupted else self._sync.close()
        except (UserError, OSError) as unlogged:  # must hide neither results nor `error`
            left = str(unlogged)
        if left:
            print(f"{self.name}: {left}", flush=True)
        if not failed:
            write_record(self.name, self.run.run_id, self._key, self._started, workers)
        elif not error:
            raise failed

    def _changed(self) -> UserError | None:
        """The error to raise if params, code or inputs changed since the stage began."""
        params = self._key["params"]
        files = {str(of_project(params[k])): known for k, known in self._key["files"].items()}
        try:
            dag.require_params(params, self.name)
            dag.require_unchanged((self._key["deps"] | files).items(), self.name)
        except UserError as changed:
            return changed
        return None


def logs_folder(params: Any) -> Path:
    """The folder of all run directories, which contain the logs."""
    return Path(os.path.realpath(in_project(params.ray.folder)))


def open_reproduction(params: Any) -> RunLog:
    """Begin or resume the MLflow run of a whole `dvc repro`; its child runs are the stages' runs.
    If neither params nor code have changed, a repeated `dvc repro` resumes the same run."""
    key = dag.project_key()
    digest, preset = value_hash(key), key["params"].get("preset", "run")
    note = (
        "One `dvc repro` with one state of params and code. Child runs are the stages that ran; a "
        "stage that DVC took from its cache is a child of the run that computed it."
    )
    tags = {
        NOTE: note + REPEAT.format(""),
        "maskgit.kind": "reproduction",
        "mlflow.source.name": dag.DVC_FILE.name,
        "dvc.stage": "",
    }
    run = RunLog(
        logs_folder(params) / "reproduction" / digest[:16],
        f"reproduction/{digest}",
        os.environ.get("DVC_EXP_NAME") or f"{preset}-{digest[:6]}",
        params.mlflow.experiment,
        key["params"],
        origin() | tags,
    ).begin()
    run.log_artifact(dag.PARAMS_FILE)
    return run


def log_reproduction(
    params: Any, metrics: Mapping[str, Mapping[str, Any]], files: Iterable[Path]
) -> str:
    """Log the results of all stages to the MLflow run of the whole `dvc repro`. The last stage,
    which has no run of its own, calls this function. `metrics` maps each group to its metrics; text
    values become tags. Returns a message about logs that were not sent; empty if all were sent."""
    run, sync = open_reproduction(params), Sync(logs_folder(params))
    for group, values in metrics.items():
        run.log_group(group, values)
        run.log_tags({f"{group}.{k}": v for k, v in values.items() if isinstance(v, str)})
    for file in files:
        run.log_artifact(file)
    run.finish(ok=True)
    return sync.close()
