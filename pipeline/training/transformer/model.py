"""A training from its beginning, or its last checkpoint, to the finished model in its folder."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pipeline.runtime.files import write_json
from pipeline.runtime.storage import upload
from pipeline.training.loop import averaged_weights, run_training
from pipeline.training.transformer.job import TransformerJob
from pipeline.training.transformer.task import no_look
from pipeline.weights.configs import transformer_config
from pipeline.weights.published import save_model


def train_model(
    job: TransformerJob,
    *,
    on_row: Callable[[dict[str, float]], None] = lambda row: None,
    on_evaluate: Callable[[Any, int], None] = no_look,
) -> None:
    """Train (or take up) the job's network; its averaged weights and its history are kept in the
    job's folder.

    Args:
        on_row: called on the first worker with each new row of the history.
        on_evaluate: called on the first worker with the averaged model and the step.

    Raises:
        UserError: training failed; the last checkpoint is kept.
    """
    if not job.finished:
        started = time.monotonic()
        watched = replace(job, recipe=replace(job.recipe, on_evaluate=on_evaluate))
        state = run_training(watched, on_row)
        seconds = round(time.monotonic() - started, 2)
        write_json(job.trained, {"history": state["history"], "seconds": seconds})
        weights = averaged_weights(state["task"]["average"])
        config = transformer_config(job.params, job.recipe.num_classes)
        save_model(job.model, job.network, config, weights)
    for path in (job.trained, *job.model.iterdir()):
        upload(path)
