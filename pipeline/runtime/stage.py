"""What every stage script shares: validated params, quiet libraries, one-line errors."""

import ctypes
import gc
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable

from pipeline.errors import UserError
from pipeline.params import Params, load_params
from pipeline.runtime.cluster import NO_DASHBOARD


def run_stage(main: Callable[[Params], str]) -> None:
    """Run a stage's main function; it returns its closing summary.

    A `UserError` becomes one line on stderr and exit code 1; anything else keeps its traceback.
    """
    started = time.monotonic()
    try:
        summary = main(load_params())
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; run again to go on from the last checkpoint")
    print(f"{summary}  [{time.monotonic() - started:.0f} s]", flush=True)
    gc.freeze()  # or the interpreter looks through all of the libraries again, a second, to end


def set_up() -> None:
    """For every process, before it imports the large libraries: a quick start, and silence where
    users can do nothing (libraries' start-up chatter and known notices)."""
    # The libraries make objects by the hundred thousand, which stay: looking through them for
    # garbage every 700 new ones is a second of a stage's start.
    gc.set_threshold(10_000)
    _keep_memory()
    os.environ.setdefault("TQDM_MININTERVAL", "0.5")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("mlflow", "alembic", "ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if os.environ.get("RAY_API_SERVER_ADDRESS") == NO_DASHBOARD:
        # It asks the dashboard every second whether the controller still lives.
        cleaner = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
        logging.getLogger(cleaner).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def _keep_memory() -> None:
    """Have glibc keep the memory of tensors that were freed. Left to itself it gives that of large
    ones back to the system, which clears every page anew for the next: a tenth of a training step
    on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD: what is smaller lies in the heap; an old glibc admits 32 MiB at most.
    if mallopt and (mallopt(-3, 2**30) or mallopt(-3, 2**25)):
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD: what lies free at the heap's end stays
