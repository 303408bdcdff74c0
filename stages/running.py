"""The frame of every stage script: validated params, one-line errors, a closing summary."""

import gc
import sys
import time
from collections.abc import Callable, Iterable
from threading import Thread

from pipeline.config.params import Params, load_params
from pipeline.config.paths import CURVES
from pipeline.runtime.errors import UserError
from pipeline.runtime.tracking import load_mlflow
from pipeline.schedules import curve_csv

Curves = Callable[[Params], Iterable[str]]


def run_stage(main: Callable[[Params], str], curves: Curves = lambda params: ()) -> None:
    """Run a stage's main function; it returns its closing summary.

    Args:
        curves: names the mask schedules that the stage draws or decodes with.

    A `UserError` becomes one line on stderr and exit code 1; anything else keeps its traceback.
    """
    started = time.monotonic()
    try:
        params = load_params()
        _check_curves(curves(params), params)
        Thread(target=load_mlflow).start()  # while a stage that uses Ray waits for it
        summary = main(params)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; run again to go on from the last checkpoint")
    print(f"{summary}  [{time.monotonic() - started:.0f} s]", flush=True)
    gc.freeze()  # or the interpreter spends a second on looking for garbage as it ends


def main_schedule(params: Params) -> Iterable[str]:
    """The schedule of the main model."""
    return (params.training.mask_schedule,)


def _check_curves(schedules: Iterable[str], params: Params) -> None:
    """A stage that was started by hand, without `dvc repro`, may find curves of other code: what it
    made would be taken for theirs."""
    for name in schedules:
        path = CURVES / f"{name}.csv"
        if not path.exists() or path.read_text() != curve_csv(name, params.num_tokens):
            raise UserError(f"{path} is not what the code says; run `dvc repro schedules` first")
