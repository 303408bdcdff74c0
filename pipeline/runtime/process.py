"""What every process of the pipeline does first, before it imports the large libraries."""

import contextlib
import ctypes
import fcntl
import gc
import io
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NoReturn, TextIO

from pipeline.runtime.errors import FULL, UserError

# They log a page where a trial or a worker of Ray fails, whose error the stage says in a
# line; where a busy machine makes an answer late, which Ray asks for again; and where the disk of
# Tune's notes or of MLflow's database is full, which the stage says in a line. And at the end of
# trials, whose own log files Tune looks for, and which are not written. Ray's client of jobs tells
# of each connection that was closed. MLflow repeats a server's answer that it does not know,
# whatever letters that is of, and that Databricks has no credentials.
_VERBOSE = (
    "ray.tune.analysis.experiment_analysis",
    "ray.train._internal.syncer",
    "ray.tune.execution.experiment_state",
    "ray.tune.execution.tune_controller",
    "ray.tune.tune",
    "ray.train.v2._internal.util",
    "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client",
    "ray.dashboard.modules.job.sdk",
    "mlflow.store.db.utils",
    "mlflow.exceptions",
    "mlflow.utils.databricks_utils",
)

# Settings of which libraries make numbers as they are imported: of progress bars, and of downloads.
_TQDM_FLOATS = ("mininterval", "maxinterval", "smoothing", "total", "miniters", "delay")
_HUB_INTS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")
_TQDM_INTS = ("ncols", "nrows", "position", "initial", "unit_divisor")

# Where nothing listens. Ray Train's watchdog asks the dashboard whether its controller lives: where
# its own cluster has none, a stranger's on Ray's usual port would say no.
NO_DASHBOARD = "http://127.0.0.1:9"
FILES = 16384  # that a process may have open
MOST_DIGITS = 6  # of a number of threads
THREADS = "OMP_NUM_THREADS"  # of every library on the CPU; Ray sets it for what works for it

# What asked a process to end, by the exception that a handler made of it; `tell` makes one of the
# user's.
_ASKED_BY = {SystemExit: signal.SIGTERM, KeyboardInterrupt: signal.SIGINT}
_told = False


def set_up() -> None:
    """Make the start quick, and silence the notices of libraries that a user can do nothing about.
    Every Ray worker waits for this, so that it imports nothing large."""
    # The libraries make objects by the hundred thousand, which stay: looking through them for
    # garbage every 700 new ones is a second of a stage's start.
    gc.set_threshold(10_000)
    _keep_memory()
    _open_more_files()
    sys.unraisablehook = _end_nevertheless
    sys.excepthook = _in_a_line_if_interrupted
    _ignore_what_libraries_cannot_read()
    os.environ.setdefault("TQDM_MININTERVAL", "0.5")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("mlflow", "alembic", "ray", "ray.train", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _VERBOSE:
        # Neither a level nor `disabled` outlasts the set-up of logging by Ray Train.
        logging.getLogger(name).addFilter(lambda record: False)
    if os.environ.get("RAY_API_SERVER_ADDRESS") == NO_DASHBOARD:
        # It asks the dashboard every second whether the controller still lives.
        cleaner = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
        logging.getLogger(cleaner).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)


def require_docstrings() -> None:
    """Raises: UserError: Python has left them out."""
    if sys.flags.optimize > 1:
        raise UserError(
            "Ray and MLflow do not work without docstrings; unset PYTHONOPTIMIZE, leave out -OO"
        )


def end_when_told() -> None:
    """Let SIGTERM end this process as Ctrl-C does: in a line, with what is finished kept. (Ray puts
    a handler of its own in the place of others, which prints a page.)"""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, tell)


def ends_when_told() -> bool:
    """Whether `end_when_told` was called, and no other handler has come since."""
    return signal.getsignal(signal.SIGTERM) is tell


def was_told() -> bool:
    """Whether this process was asked to end, by another than the user."""
    return _told


def tell(*_signal: Any) -> NoReturn:
    """Ask this process to end, as SIGTERM does. (Ray takes no exception of another kind than the
    user's out of its waits, and makes a new one of it: `was_told` tells them apart.)"""
    global _told
    _told = True
    raise KeyboardInterrupt


def end_quickly() -> None:
    """Spare the interpreter the second in which it would look through all libraries for garbage as
    it ends; not where Triton is loaded, which would print what is left then as leaks."""
    if "triton" not in sys.modules:
        gc.freeze()


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """End as programs do where the reader of what is printed has left (`| head`): with exit code 1,
    and without a word; and with a line where it cannot be written, as on a full disk."""
    for name in ("stdout", "stderr"):
        if not _is_writable(getattr(sys, name)):
            setattr(sys, name, io.TextIOWrapper(io.FileIO(os.devnull, "w")))
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):  # not a test's own
            # A line is shown when it is printed, in a pipe too; letters that a terminal lacks are
            # escaped.
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # at the interpreter's end it would be a traceback
    except BrokenPipeError:
        output = select.poll()
        output.register(sys.stdout, 0)
        if not output.poll(0):  # it was another pipe
            raise
        _print_nowhere()
        sys.exit(1)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _print_nowhere()
        sys.exit(f"error: the output cannot be written ({error.strerror}); make room")


def _is_writable(stream: TextIO | None) -> bool:
    """Whether it was neither closed from the beginning (`>&-`) nor opened for reading alone."""
    if stream is None:
        return False
    try:
        mode = fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, ValueError, AttributeError):  # it is no file, as a test's own
        return True
    return mode != os.O_RDONLY


def _print_nowhere() -> None:
    """Drop what is still to be printed, which Python would try again as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def cores() -> int:
    """The cores that this process may use: those that Ray gave its task, else all that the system
    lets it run on."""
    given = os.environ.get(THREADS, "")
    if given.isdecimal() and len(given) <= MOST_DIGITS and int(given):
        return int(given)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _end_nevertheless(lost: "sys.UnraisableHookArgs") -> None:
    """Ask again to end, where the signal came while Python ran a callback that may not raise (of a
    weak reference, or `__del__`): Python would print a traceback, forget it, and go on."""
    asked = _ASKED_BY.get(lost.exc_type)
    if asked is None:
        sys.__unraisablehook__(lost)
        return
    if _told:
        asked = signal.SIGTERM
    # A moment later, outside of the callback; in a thread, which is not where the handler runs.
    again = threading.Timer(0.05, os.kill, (os.getpid(), asked))
    again.daemon = True
    again.start()


def _in_a_line_if_interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Ctrl-C while a stage still imports the libraries is one line as well: it takes seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("error: interrupted; run again to go on", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _ignore_what_libraries_cannot_read() -> None:
    """Drop settings of progress bars, of downloads, and of the time that files are to name, at
    which the import of tqdm, the Hub's client or NumPy would end in a traceback."""
    for name, value in list(os.environ.items()):
        setting = name.removeprefix("TQDM_").lower() if name.startswith("TQDM_") else ""
        try:
            if setting in _TQDM_FLOATS:
                float(value)
            elif setting in _TQDM_INTS or name in _HUB_INTS:
                int(value)
            elif name == "SOURCE_DATE_EPOCH":
                time.gmtime(int(value))
        except (ValueError, OverflowError, OSError):
            del os.environ[name]
            what = "time in seconds" if name == "SOURCE_DATE_EPOCH" else "number"
            shown = f"{value!r:.80}"
            print(f"note: {name} is ignored: {shown} is no {what}; unset it", file=sys.stderr)


def _open_more_files() -> None:
    """Raise the number of files that may be open from the usual 1,024: a stage holds a lock for
    each run directory, of which a sweep of 1,000 trials has 2,000."""
    have, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if have != resource.RLIM_INFINITY and have < wanted:
        with contextlib.suppress(OSError, ValueError):  # the system may have a limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def _keep_memory() -> None:
    """Make glibc keep the memory of tensors that were freed. By default it returns that of large
    ones to the system, which clears every page again for the next tensor: a tenth of a training
    step on a CPU."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    # M_MMAP_THRESHOLD: what is smaller lies in the heap; an old glibc admits 32 MiB at most.
    if mallopt and (mallopt(-3, 2**30) or mallopt(-3, 2**25)):
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: whatever lies free at the heap's end stays
