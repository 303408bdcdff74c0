"""A Ray cluster of this machine alone, which lives as long as the process that started it."""

import atexit
import contextlib
import os
import select
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from pipeline.runtime.errors import UserError, one_line

GRACE = 5.0  # seconds that a process that is told to end has for it
ROOM = 2**25  # bytes that Ray's folder needs at the least
SERVERS = ("gcs_server", "raylet")  # names of the processes that a cluster cannot do without

_ended: str | None = None
_interrupted = False
_listens = False


def private_folder() -> str | None:
    """Where a local cluster has its sockets and logs, which Ray lets everyone write to: below a
    folder of this user alone, as its token is. None where RAY_TMPDIR names one.

    Raises:
        UserError: the folder is another user's, or RAY_TMPDIR's can be none.
    """
    folders = [Path.home() / ".ray"]  # the token's
    if named := os.environ.get("RAY_TMPDIR", "").strip():
        os.environ["RAY_TMPDIR"] = named  # without blanks around it, which Ray would keep
        _require_folder(named)
    else:
        os.environ.pop("RAY_TMPDIR", None)  # an empty one would be the working directory to Ray
        folders.append(Path("/tmp") / f"ray-{os.getuid()}")  # short: a socket has 107 bytes at most
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise UserError(
                f"{folder} cannot be made a folder of yours alone: {error.strerror}; remove it, or "
                f"set HOME and RAY_TMPDIR to folders of yours"
            ) from None
    rays = named or folders[1]
    if shutil.disk_usage(rays).free < ROOM:
        raise UserError(
            f"{rays}: its disk has no room for Ray's sockets and logs; make room, or let "
            f"RAY_TMPDIR name a folder on another"
        )
    return str(folders[1] / "ray") if len(folders) > 1 else None


def _require_folder(named: str) -> None:
    """Ray would try for half a minute."""
    reason = None if Path(named).is_absolute() else "it is no absolute path"
    try:
        if reason is None:
            Path(named).mkdir(parents=True, exist_ok=True)
            reason = None if os.access(named, os.W_OK | os.X_OK) else "it cannot be written"
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        reason = one_line(getattr(error, "strerror", None) or str(error))
    if reason:
        raise UserError(
            f"RAY_TMPDIR: '{named}' cannot be Ray's folder: {reason}; name another, or unset it"
        )


def end_with_it() -> None:
    """Interrupt this process's main thread, as Ctrl-C does, once a server of the cluster that it
    has started was ended, as by a system that is short of memory. Without its head Ray would keep a
    processor busy for a minute, and then end this process as it is. (See `leave_if_ended`.)

    (Ray takes no other exception out of its waits. On systems other than Linux nobody looks.)
    """
    servers = _servers()
    if not servers or threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGUSR2, _interrupt)  # SIGINT is ignored in scripts that go on meanwhile
    atexit.register(signal.signal, signal.SIGUSR2, signal.SIG_IGN)
    threading.Thread(target=_wait, args=(servers,), name="cluster", daemon=True).start()


def _wait(servers: dict[int, str]) -> None:
    """Wait until one of the servers, by its process's handle, has ended."""
    global _ended
    import ray

    waiting = select.poll()
    for handle in servers:
        waiting.register(handle, select.POLLIN)
    handle, _ = waiting.poll()[0]
    if ray.is_initialized():  # not by `ray.shutdown`, which ends them itself
        _ended = servers[handle]
        while not _interrupted:  # again: one that comes just before a wait begins does not end it
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(1)
    for handle in servers:
        os.close(handle)


def _interrupt(number: int, frame: Any) -> None:
    global _interrupted
    if not _interrupted:
        _interrupted = True
        raise KeyboardInterrupt


def leave_if_ended(line: str = "") -> None:
    """Where a server of the cluster was ended, say so and end this process with exit code 1, and
    what is left of the cluster: Ray's own end of it waits a minute for the head.

    Args:
        line: to say in its place, where a scheduler asks this process to end, and the servers with
            it, perhaps. They would take the ten seconds after which many schedulers kill.
    """
    global _interrupted
    if _ended is None and not (line and _servers()):
        return
    _interrupted = True  # no other comes
    _leave(
        line
        or f"error: Ray's {_ended} was ended, perhaps by a system that is short of memory; what is "
        f"finished is kept, run again to go on"
    )


def leave_when_told(line: str) -> None:
    """End this process with exit code 1 and a line, and its cluster with it, some seconds after a
    SIGTERM that does not end it: Ray waits half a minute, and looks at no signal, for a server that
    was ended as it started."""
    global _listens
    if _listens or threading.current_thread() is not threading.main_thread():
        return
    _listens = True
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)

    def wait() -> None:
        while signal.SIGTERM not in os.read(receiver, 64):
            pass
        time.sleep(GRACE)
        _leave(line)

    threading.Thread(target=wait, name="told", daemon=True).start()


def _leave(line: str) -> NoReturn:
    """End this process with that line, and whatever it has started."""
    import psutil

    sys.stdout.flush()
    print(line, file=sys.stderr, flush=True)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)


def _servers() -> dict[int, str]:
    """The servers of a cluster that this process has started: names, by a handle of the process."""
    import psutil

    found: dict[int, str] = {}
    with contextlib.suppress(OSError, psutil.Error, AttributeError):  # a sandbox may forbid it
        for child in psutil.Process().children():
            if child.name() in SERVERS:
                found[os.pidfd_open(child.pid)] = child.name()
    return found
