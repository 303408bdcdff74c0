"""The frame of every stage script: validated params, one-line errors, a closing summary."""

import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline.config.params import Params, load_params
from pipeline.config.paths import SAMPLES, check_files
from pipeline.config.replicates import NETWORKS, Replicate
from pipeline.runtime.dag import (
    DVC_FILE,
    differences,
    read_stages,
    require_params,
    stage_params,
    stages_up_to,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import bug
from pipeline.runtime.files import read_json, read_yaml, tree_hash
from pipeline.runtime.mlflow_sync import load_mlflow
from pipeline.runtime.process import end_quickly, end_when_told, reader_may_leave
from pipeline.runtime.project import require_here
from pipeline.runtime.provenance import SOURCES
from pipeline.runtime.stage import Stage

INTERRUPTED = "error: interrupted; run again to go on from the last checkpoint"


def run_stage(main: Callable[[Params], str]) -> None:
    """Run a stage's main function; it returns its closing summary.

    An error becomes one line on stderr and exit code 1: of a `UserError` the way out, of any other
    the file that has its traceback.
    """
    end_when_told()
    with reader_may_leave():
        _run(main)


def _run(main: Callable[[Params], str]) -> None:
    started = time.monotonic()
    try:
        _check_surroundings()
        asked = _asked()
        params = load_params()
        if _is_known(_name()):
            _check_inputs(_name())
            check_files(params.model_dump(), _name())
        Thread(target=load_mlflow).start()  # while a stage that uses Ray waits for it
        summary = main(params)
        if asked:
            require_params(asked, _name())
    except UserError as error:
        sys.exit(f"error: {error}{_way_back()}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        sys.exit(f"error: {bug(error, _name())}{_way_back()}")
    finally:
        end_quickly()
    print(f"{summary}  [{time.monotonic() - started:.0f} s]", flush=True)


def _name() -> str:
    """Of the script that runs, which is a stage's."""
    return Path(sys.argv[0]).stem


def _asked() -> dict[str, Any]:
    """The params of the stage, before all else: they may be edited before the stage itself looks.
    Empty where loading them says what is wrong."""
    try:
        return stage_params(_name()) if _is_known(_name()) else {}
    except UserError:
        return {}


def _is_known(name: str) -> bool:
    return DVC_FILE.exists() and name in read_stages()


def _check_surroundings() -> None:
    """The folders of runs would be made in a project that is not there, or nothing be tracked."""
    require_here()
    root = os.environ.get("DVC_ROOT")
    if root and not Path(root, ".dvc").is_dir():
        raise UserError(
            f"DVC_ROOT: {root} is no project of DVC's; unset it, DVC sets it for its stages"
        )


def _check_inputs(stage: str) -> None:
    """Refuse inputs that were made with other params, which DVC compares and who starts a stage by
    hand does not."""
    for maker in stages_up_to(stage)[:-1]:
        record = SOURCES / f"{maker}.json"
        if "DVC_STAGE" not in os.environ and record.exists():
            made = read_json(record, "params")["params"]
            for key, (was, now) in differences(made, stage_params(maker)).items():
                reason = f"{maker} ran with {str(was)[:80]}, and it is {str(now)[:80]} now"
                raise UserError(key, reason, f"run `dvc repro {stage}`")


def _way_back() -> str:
    """Where the stage's last results are: DVC has deleted them before it ran the stage."""
    stage, lock = os.environ.get("DVC_STAGE", ""), Path("dvc.lock")
    try:
        stages = read_yaml(lock).get("stages") if lock.exists() else None
    except UserError:  # it must not hide the error itself
        return ""
    if not isinstance(stages, dict) or stage not in stages:
        return ""
    return (
        f" (the last results of {stage} are in DVC's cache: with their params `dvc repro` brings "
        f"them back, and runs nothing)"
    )


# What says which replicates there are: what is made of one does not depend on the others.
REPLICATES = ("evaluation.seeds", "training.label_smoothing", "training.other_label_smoothings")


def model_folders(
    stage: Stage, replicates: Iterable[Replicate], *ignore: str
) -> dict[Replicate, Path]:
    """The run directory of a stage's work on each replicate's model. It is named by that model and
    no other, so that one more seed leaves what was made of the others as it is.

    Args:
        ignore: what else the work does not depend on.
    """
    models = (folder.as_posix() for folder in NETWORKS.values())
    dropped = (*REPLICATES, *models, *ignore)
    return {  # a main one has more samples, and more is measured of it
        r: stage.folder(
            *dropped, network=r.network, seed=r.seed, main=r.main, model=tree_hash(r.folder)
        )
        for r in replicates
    }


def samples_folders(
    stage: Stage, replicates: Iterable[Replicate], *ignore: str
) -> dict[Replicate, Path]:
    """The same of a stage's work on each replicate's published samples."""
    dropped = (*REPLICATES, SAMPLES.as_posix(), *ignore)
    return {
        r: stage.folder(*dropped, network=r.network, seed=r.seed, samples=tree_hash(r.samples))
        for r in replicates
    }
