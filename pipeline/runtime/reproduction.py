"""The MLflow run of `dvc repro` as a whole, whose children are the runs of its stages."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.runtime.dag import DVC_FILE, project_key, stage_description
from pipeline.runtime.delivery import Delivery, outbox_folder
from pipeline.runtime.files import value_hash
from pipeline.runtime.tracking import NOTE, Run, open_run

WHOLE = "reproduction"  # its tag `maskgit.kind`


def open_reproduction(experiment: str, folder: Path) -> Run:
    """The run that the stages of one `dvc repro` belong to, each a process of its own.

    Its key is what all of them depend on, params and code. What is killed and taken up, with all
    stages or with one, therefore goes on in the same run, and a param or code that changes begins
    another, whose children are the stages that run again.

    Args:
        folder: holds the outboxes.
    """
    key = project_key()
    digest = value_hash(key)
    name = os.environ.get("DVC_EXP_NAME") or f"{key['params'].get('preset', 'run')}-{digest[:6]}"
    tags = {
        NOTE: f"One state of params and code, reproduced by `dvc repro`. Its children are the "
        f"stages that ran; what DVC had in its cache is under the run that made it.\n\n{_repeat()}",
        "maskgit.kind": WHOLE,
        "mlflow.source.name": DVC_FILE.name,
        "dvc.stage": "",
    }
    return open_run(f"{WHOLE}/{digest}", name, key["params"], experiment, folder, tags=tags)


def log_reproduction(
    experiment: str,
    storage_path: str,
    metrics: Mapping[str, Mapping[str, Any]],
    files: Iterable[Path],
) -> str | None:
    """Log what all stages together came to: the last stage does, which has no run of its own.

    Args:
        metrics: by what they are of; those that are text become tags.

    Returns:
        What remains to be sent, as `Delivery.close`.
    """
    folder = outbox_folder(storage_path)
    delivery, run = Delivery(folder), open_reproduction(experiment, folder)
    for group, values in metrics.items():
        run.log_group(group, values)
        run.log_tags({f"{group}.{k}": v for k, v in values.items() if isinstance(v, str)})
    for file in files:
        run.log_artifact(file)
    run.finish(ok=True)
    return delivery.close()


def stage_note(stage: str) -> str:
    """What a stage's run is and how to repeat it, in Markdown."""
    return f"{stage_description(stage)}.\n\n{_repeat(stage)}"


def _repeat(stage: str = "") -> str:
    """How to repeat a run, in Markdown."""
    command = " ".join(filter(None, ("dvc repro", stage)))
    return (
        f"To repeat it: check out the commit of the tag `git.commit`, put `params.yaml` from the "
        f"artifacts in place, and `{command}`."
    )
