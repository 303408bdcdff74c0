"""Shared code of the stage scripts: validated params, one-line errors, a closing summary, run
directories, trials and result files."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.config.paths import RESULTS, SAMPLES, check_files
from pipeline.config.replicates import NETWORKS, Replicate
from pipeline.runtime.dag import differences, require_params, stage_params, stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.files import read_json, tree_hash, write_csv
from pipeline.runtime.mlflow_sync import load_mlflow
from pipeline.runtime.process import end_quickly, end_when_told, reader_may_leave
from pipeline.runtime.progress import Countdown
from pipeline.runtime.project import require_here
from pipeline.runtime.provenance import SOURCES
from pipeline.runtime.ray_cluster import join_ray, require_resources
from pipeline.runtime.stage import Stage
from pipeline.runtime.trials import run_trials
from pipeline.training.loop import Workers

INTERRUPTED = "error: interrupted; run again to go on from the last checkpoint"
# The params that list the replicates: what is made of one does not depend on the others.
REPLICATES = ("evaluation.seeds", "training.label_smoothing", "training.other_label_smoothings")


@reader_may_leave()
def run_stage(main: Callable[[Params], str]) -> None:
    """Run a stage's main function; it returns its closing summary.

    An error becomes one line on stderr and exit code 1: of a `UserError` the way out, of any other
    the file that has its traceback.
    """
    end_when_told()
    started, name = time.monotonic(), Path(sys.argv[0]).stem
    try:
        require_here()
        listed = stage_params(name)
        params = load_params()
        _check_inputs(name)
        check_files(params.model_dump(), name)
        Thread(target=load_mlflow).start()  # while a stage that uses Ray waits for it
        summary = main(params)
        require_params(listed, name)  # they may have changed before the stage hashed them
    except UserError as error:
        sys.exit(f"error: {error}{_last_results()}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(f"error: {bug(error, name)}{_last_results()}")
    finally:
        end_quickly()
    print(f"{summary}  [{time.monotonic() - started:.0f} s]", flush=True)


def _check_inputs(stage: str) -> None:
    """Refuse inputs that were made with other params. DVC compares them; a stage that is started by
    hand does not."""
    for maker in stages_up_to(stage)[:-1]:
        record = SOURCES / f"{maker}.json"
        if "DVC_STAGE" not in os.environ and record.exists():
            made = read_json(record, "params")["params"]
            for key, (was, now) in differences(made, stage_params(maker)).items():
                if key.startswith("ray."):  # who works may differ from stage to stage
                    continue
                reason = f"{maker} ran with {str(was)[:80]}, but it is now {str(now)[:80]}"
                raise UserError(key, reason, f"run `dvc repro {stage}`")


def _last_results() -> str:
    """Where the stage's last results are: DVC deletes them before it runs the stage."""
    stage, lock = os.environ.get("DVC_STAGE", ""), Path("dvc.lock")
    if not stage or not lock.exists() or f"\n  {stage}:" not in lock.read_text(errors="replace"):
        return ""
    return (
        f" (the last results of {stage} are in DVC's cache: with their params `dvc repro` brings "
        f"them back, and runs nothing)"
    )


def replicate_folders(
    stage: Stage, replicates: Iterable[Replicate], *ignore: str, samples: bool = False
) -> dict[Replicate, Path]:
    """The run directory of a stage's work on each replicate. It is named after the replicate's own
    model, so that a new seed leaves other replicates' directories unchanged.

    Args:
        ignore: params that the work does not depend on.
        samples: the stage reads the replicate's published samples, not its model.
    """
    inputs = (*(folder.as_posix() for folder in NETWORKS.values()), SAMPLES.as_posix())
    return {  # a main one has more samples, and more is measured of it
        r: stage.folder(
            *(*REPLICATES, *inputs, *ignore),
            network=r.network,
            seed=r.seed,
            main=r.main,
            input=tree_hash(r.samples if samples else r.folder),
        )
        for r in replicates
    }


def require_room(jobs: Sequence[Any], workers: Workers, key: str) -> None:
    """Join Ray if a job is not finished, and refuse more workers than the cluster can hold.

    Args:
        key: the param that sets the number of workers of each job.
    """
    if not all(job.finished for job in jobs):
        join_ray()
        key = key if workers.count > 1 else "ray.cpus_per_worker"
        require_resources(workers.count, workers.cpus, workers.use_gpu, key)


def run_jobs(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    workers: Workers,
    stage: Stage,
    what: str,
    on_done: Callable[[Any, Any], None],
) -> None:
    """Run the jobs that are not finished, as trials of Ray Tune.

    Args:
        workers: of each job.
        what: names the jobs in messages.
        on_done: called with each job that ends and the value of `function`.
    """
    pending = [job for job in jobs if not job.finished]
    count = Countdown(stage.name, what, len(jobs), len(pending))

    def done(job: Any, value: Any) -> None:
        on_done(job, value)
        count.done(job.name)

    if pending:
        run_trials(function, pending, workers.needs(stage.folder()), stage.name, done)


def write_rows(
    stage: Stage,
    file: str,
    rows: list[dict[str, Any]],
    keys: Sequence[str],
    group: Callable[[Any], str],
    step: Callable[[Any], float] = lambda row: 0,
) -> None:
    """Write a result file, log it, and log the means of its metrics over the rows of one group and
    step.

    Args:
        keys: columns that are not metrics.
    """
    write_csv(RESULTS / file, rows)
    stage.run.log_artifact(RESULTS / file)
    stage.run.log_means(rows, group, keys, step)
