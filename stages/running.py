"""Shared code of the stage scripts: runs a stage with validated params and one-line errors, finds
run directories, and writes result files."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.config.paths import RESULTS, SAMPLES, check_files
from pipeline.config.replicates import LISTED, NETWORKS, Replicate
from pipeline.runtime.dag import differences, require_params, stage_params, stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.files import read_json, tree_hash, write_csv
from pipeline.runtime.precision import choice
from pipeline.runtime.process import end_quickly, end_when_told, reader_may_leave
from pipeline.runtime.provenance import SOURCES
from pipeline.runtime.stage import Stage, logs_folder
from pipeline.training.loop.run import join_with, run_training
from pipeline.training.loop.training import Training, Workers

INTERRUPTED = "error: interrupted; run again to resume from the last checkpoint"
# Columns of result files that identify a row; all other columns are metrics.
IDENTITY = {
    *("images", "network", "seed", "samples", "augmentation", "training_images", "mask_ratio"),
    *("choice_temperature", "setting", "task", "method", "draw"),
    *("selection", "acceptance", "candidates"),
}


@reader_may_leave()
def run_stage(name: str) -> None:
    """Run `main(params)` of a stage's script, and print the returned summary. An error becomes one
    line on stderr and exit code 1. The line of a `UserError` says what to do; the line of any other
    error names a file with the traceback."""
    end_when_told()
    started = time.monotonic()
    try:
        _check_inputs(name)
        listed, params = stage_params(name), load_params()
        check_files(params.model_dump(), name)
        main = import_module(f"stages.{name}").main
        if any(v for key, v in listed.items() if key.endswith(".bf16")) and not params.ray.use_gpu:
            # The choice is stored with the checkpoints: a resumed run keeps its precision.
            print(f"{name}: on this CPU, {choice(logs_folder(params))}", flush=True)
        summary = main(params)
        require_params(listed, name)  # also catches a change before the stage's key was computed
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(f"error: {bug(error, name)}")
    finally:
        end_quickly()
    print(f"{summary}  [{time.monotonic() - started:.0f} s]", flush=True)


def _check_inputs(stage: str) -> None:
    """Raise a `UserError` if an earlier stage ran with other params than those in params.yaml. DVC
    checks this before it runs a stage; this check is for stages that users start without DVC."""
    for maker in stages_up_to(stage)[:-1]:
        record = SOURCES / f"{maker}.json"
        if "DVC_STAGE" not in os.environ and record.exists():
            made = read_json(record, "params")["params"]
            for key, (was, now) in differences(made, stage_params(maker)).items():
                if key.startswith("ray."):  # workers may differ from stage to stage
                    continue
                reason = f"{maker} ran with {str(was)[:80]}, but params.yaml has {str(now)[:80]}"
                raise UserError(key, reason, f"run `dvc repro {stage}`")


def replicate_folders(
    stage: Stage, replicates: Iterable[Replicate], *ignore: str, samples: bool = False
) -> dict[Replicate, Path]:
    """Map each replicate (a training run and its samples) to a run directory for its results. The
    path depends on the replicate's model or, if `samples` is true, on its samples. The path does
    not depend on other replicates, or on the params named in `ignore`."""
    ignored = (*LISTED, *ignore, *(str(path) for path in (*NETWORKS.values(), SAMPLES)))
    found = {}
    for r in replicates:
        own = {"network": r.network, "seed": r.seed, "main": r.main}  # main: more is measured
        made = tree_hash(r.samples if samples else r.folder)
        found[r] = stage.folder(*ignored, **own, input=made)
    return found


def train_one(
    kind: Callable[..., Training], name: str, params: Params, stage: Stage
) -> dict[str, Any]:
    """Train a stage's only network, and write its training curve. Returns {task, step, history}."""
    training = kind(
        name=name,
        params=params,
        seed=params.seed,
        folder=stage.folder(),
        workers=Workers.of(params.ray, params.ray.num_workers),
        log=stage.run,
    )
    if training.workers.under_ray_train:
        join_with(training.workers, "ray.num_workers")
    state = run_training(training)
    for row in state["history"]:  # other machines may have logged some rows
        stage.run.log_training(row)
    write_csv(RESULTS / name / "history.csv", state["history"])
    return state


def write_rows(
    stage: Stage,
    file: str,
    rows: list[dict[str, Any]],
    group: Callable[[Any], str],
    step: Callable[[Any], float] = lambda row: 0,
) -> str:
    """Write rows to the result file `file`, and log the file to MLflow. Also log the mean of each
    metric over all rows with the same `group(row)` and `step(row)`. Returns the stage's summary,
    one line for the terminal."""
    path = RESULTS / file
    write_csv(path, rows)
    stage.run.log_artifact(path)
    stage.run.log_means(rows, group, IDENTITY, step)
    return f"{stage.name}: {len(rows)} rows in {path}"
