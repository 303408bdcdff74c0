"""What every process of the pipeline does first, before it imports the large libraries."""

import contextlib
import ctypes
import gc
import io
import logging
import os
import resource
import select
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType

OPEN_FILES = 16384  # that a process may have
THREADS = "OMP_NUM_THREADS"  # of every library on the CPU; Ray sets it for its workers


def set_up() -> None:
    """Make the start quick, and silence notices of libraries that a user can do nothing about."""
    # The libraries make hundreds of thousands of objects that stay: looking for garbage every 700
    # new ones takes a second of a stage's start.
    gc.set_threshold(10_000)
    _keep_memory()
    _open_more_files()
    sys.excepthook = _print_interruption
    os.environ.setdefault("TQDM_MININTERVAL", "0.5")
    # MLflow logs by the page what it raises too.
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)


def set_up_worker() -> None:
    """The same in a worker of Ray, whose errors the stage prints in one line."""
    set_up()
    logging.disable(logging.ERROR)


def end_when_told() -> None:
    """Let SIGTERM end this process as Ctrl-C does: with one line, keeping what is finished."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def end_quickly() -> None:
    """Save the second in which the interpreter, as it ends, looks through all libraries for
    garbage; not with Triton, which would print what is left as leaks."""
    if "triton" not in sys.modules:
        gc.freeze()


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print lines at once, in pipes too, and exit with code 1 and no message when the reader of
    the output has left, as `| head` does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not a test's own
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        yield
        print(end="", flush=True)  # later, an error would be a traceback
    except BrokenPipeError:
        output = select.poll()
        output.register(sys.stdout, 0)
        if not output.poll(0):  # another pipe broke
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drop the rest
        sys.exit(1)


def cores() -> int:
    """The number of cores that this process may use: what Ray gave to its task, else all that the
    system lets it run on."""
    given = os.environ.get(THREADS, "")
    if given.isdecimal() and int(given):
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _print_interruption(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Make Ctrl-C one line also while a stage imports the libraries, which takes seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted; run again to go on", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _open_more_files() -> None:
    """Raise the limit of open files from the usual 1,024: a stage holds a lock for each run
    directory, and a sweep of 1,000 trials has 2,000."""
    have, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if have != resource.RLIM_INFINITY and have < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _keep_memory() -> None:
    """Make glibc keep the memory of freed tensors. By default it returns that of large ones to the
    system, which clears every page again for the next tensor: a tenth of a training step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD: smaller tensors lie in the heap; an old glibc admits 32 MiB at most.
    if mallopt and (mallopt(-3, 2**30) or mallopt(-3, 2**25)):
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: free memory at the heap's end stays
