"""The frame of every stage script: validated params, one-line errors, a closing summary."""

import gc
import sys
import time
from collections.abc import Callable
from threading import Thread

from pipeline.config.params import Params, load_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.tracking import load_mlflow


def run_stage(main: Callable[[Params], str]) -> None:
    """Run a stage's main function; it returns its closing summary.

    A `UserError` becomes one line on stderr and exit code 1; anything else keeps its traceback.
    """
    started = time.monotonic()
    try:
        params = load_params()
        Thread(target=load_mlflow).start()  # while a stage that uses Ray waits for it
        summary = main(params)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; run again to go on from the last checkpoint")
    print(f"{summary}  [{time.monotonic() - started:.0f} s]", flush=True)
    gc.freeze()  # or the interpreter spends a second on looking for garbage as it ends
