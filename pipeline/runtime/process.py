"""Sets up every process of the pipeline before it imports large libraries."""

import contextlib
import ctypes
import gc
import logging
import os
import resource
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

PRECISION = "MASKGIT_PRECISION"  # the precision of networks on a CPU (see `precision.py`)
THREADS = "OMP_NUM_THREADS"  # CPU threads of every library; Ray sets it in workers


def set_up() -> None:
    """Speed up imports, reuse freed memory, allow many open files, and hide libraries' notices."""
    gc.set_threshold(10_000)  # the default of 700 objects slows imports by a second
    _keep_memory()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 2**14:  # a sweep of 1,000 trials has 2,000 files and locks open
        with contextlib.suppress(OSError, ValueError):  # the system allows fewer
            resource.setrlimit(resource.RLIMIT_NOFILE, (2**14, hard))
    sys.excepthook = _print_interruption
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")  # MLflow also logs what it raises
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)


def set_up_worker() -> None:
    """Set up a Ray worker. The stage, not the worker, prints the worker's errors."""
    set_up()
    logging.disable(logging.ERROR)
    sys.unraisablehook = _end_all_the_same


def end_when_told() -> None:
    """Make SIGTERM act like Ctrl-C: print one line, keep finished work, and end the process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_quickly() -> None:
    """Skip Python's slow clean-up at exit, unless Triton is loaded: Triton would report leaks."""
    if "triton" not in sys.modules:
        gc.freeze()


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print lines at once, and exit quietly if the reader closes the output, as `| head` does."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test's stream may lack it
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        yield
        print(end="", flush=True)  # an error at exit would print a traceback
    except BrokenPipeError:
        output = select.poll()
        output.register(sys.stdout, 0)
        if not output.poll(0):  # another pipe broke
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard the rest
        sys.exit(1)


def cores() -> int:
    """The number of cores that this process may use."""
    given = os.environ.get(THREADS, "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _end_all_the_same(lost: Any) -> None:
    """Send SIGTERM again if the SystemExit of Ray's SIGTERM handler did not end the process: Python
    only prints an exception that is raised within a callback, such as a weak reference's."""
    if lost.exc_type is SystemExit:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(lost)


def _print_interruption(kind: type[BaseException], *error: Any) -> None:
    """Print one line, not a traceback, after Ctrl-C, even while a stage still imports libraries."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted; run again to resume", file=sys.stderr)
    else:
        sys.__excepthook__(kind, *error)


def _keep_memory() -> None:
    """Make glibc reuse the memory of freed tensors. By default, the system zeroes the pages of each
    large tensor, which takes a tenth of a training step's time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD: smaller tensors are in the heap; an old glibc allows at most 32 MiB.
    if mallopt and (mallopt(-3, 2**30) or mallopt(-3, 2**25)):
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: keep free memory at the heap's end
