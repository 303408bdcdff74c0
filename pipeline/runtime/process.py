"""What every process of the pipeline does first, before it imports the large libraries."""

import ctypes
import gc
import logging
import os
import sys
import warnings

from pipeline.runtime.cluster import NO_DASHBOARD


def set_up() -> None:
    """Make the start quick, and silence the notices of libraries that a user can do nothing about.
    Every Ray worker waits for this, so that it imports nothing large."""
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
    """Make glibc keep the memory of tensors that were freed. By default it returns that of large
    ones to the system, which clears every page again for the next tensor: a tenth of a training
    step on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD: what is smaller lies in the heap; an old glibc admits 32 MiB at most.
    if mallopt and (mallopt(-3, 2**30) or mallopt(-3, 2**25)):
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD: what lies free at the heap's end stays
