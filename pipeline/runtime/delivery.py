"""Delivers what is logged, from outboxes to the tracking server, while a stage works.

The server may be slow, or away: a stage never waits for it while it works, and at its end only
where it answers. What is left is delivered by the next stage, or by `maskgit sync`.
"""

import errno
import time
from collections import defaultdict
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Event, Thread

from filelock import Timeout

from pipeline.runtime.outbox import LOG, Broken, Record, first_open, read_records
from pipeline.runtime.project import in_project
from pipeline.runtime.sending import send, sent_part, size_of
from pipeline.runtime.server import Gone, Server, Unsent
from pipeline.runtime.uris import is_local, is_place, redacted, scrubbed, shown_uri, tracking_uri

ROUND = 1.0  # seconds between two looks into the outboxes
PAUSE = 30.0  # seconds between two attempts at most, where the server does not answer
ANSWER = 1.0  # seconds; a stage that has ended does not wait for a server that takes longer,
UNLOCKED = 3.0  # nor for a database on this machine that another process holds
LAST = 2.0  # seconds that it waits for a server in all, or
SHARE = 0.1  # this part of its own time, if that is longer
PATIENCE = 60.0  # seconds that it waits for a database on this machine


def load_mlflow() -> None:
    """Import MLflow and the module that opens its database, which takes a second."""
    import_module("mlflow")
    if is_local(tracking_uri()):
        import_module("mlflow.store.tracking.sqlalchemy_store")


def load_ahead() -> None:
    """Import it while other work waits. A process that ends meanwhile, with an error, forbids parts
    of the import, of which nobody need hear; who needs MLflow hears of all else."""
    with suppress(Exception):
        load_mlflow()


def outbox_folder(storage_path: str) -> Path:
    """The folder of all outboxes, beside the run directories."""
    return in_project(storage_path) / "outbox"


class Outboxes:
    """The outboxes in a folder whose runs go to a server; others' are left alone."""

    def __init__(self, folder: Path, uri: str):
        self.folder, self.server = folder, Server(uri)
        self.refused: list[str] = []
        self._first: dict[Path, Record] = {}  # record of each
        self._done: dict[Path, int] = {}  # bytes of each log that need no second look
        self._broken: dict[Path, str] = {}  # why nothing of it can be sent, and the way out
        # What is wrong with each damaged record, by the byte of the log where it ends.
        self._damaged = defaultdict[Path, dict[int, str]](dict)

    def send(self) -> None:
        """Send everything that the server does not have, of parents first, then of the oldest run.

        Raises:
            Unsent: the server does not answer, or not as it should; or another process is at it.
        """
        try:
            self._send_each()
        except Gone:  # its database was deleted, or begun anew: what it had is looked at again
            self._done.clear()
            self._send_each()

    def _send_each(self) -> None:
        problem = ""
        for outbox in self._ours():
            try:
                if (outbox / LOG).stat().st_size == self._done.get(outbox):
                    continue
                self.refused += send(outbox, self.server, self._damaged[outbox])
                self._done[outbox] = sent_part(outbox)["bytes"]
                self._broken.pop(outbox, None)
            except Broken as error:
                self._broken[outbox] = str(error)
            except Timeout:
                problem = problem or "another process is sending them"
            except OSError as error:
                problem = f"{outbox}: {error.strerror or error}"
        if problem:
            raise Unsent(problem)

    def broken(self) -> bool:
        """Whether there are outboxes of which nothing can be sent."""
        return bool(self._broken)

    def left_out(self) -> list[str]:
        """What was found of outboxes that cannot be sent and of damaged records, a line each."""
        lines = list(self._broken.values())
        for outbox, damaged in list(self._damaged.items()):
            if damaged:
                first, log = min(damaged), outbox / LOG
                count = (
                    "1 damaged record is"
                    if len(damaged) == 1
                    else f"{len(damaged)} damaged records are"
                )
                lines.append(
                    f"{log}: {count} left out (line {_line(log, first)}: {damaged[first]})"
                )
        return lines

    def unread(self) -> list[str]:
        """Of logs that hold something and no whole record, a line each."""
        known = self._first.keys() | self._broken.keys()
        logs = (log for log in sorted(self._logs()) if log.parent not in known)
        return [
            f"{log} holds no whole record; delete the folder {log.parent}, unless a stage is just "
            f"beginning"
            for log in logs
            if log.is_file() and log.stat().st_size
        ]

    def waiting(self) -> int:
        """The number of records that are still to be sent."""
        return sum(_left(outbox) for outbox in self._ours() if outbox not in self._broken)

    def elsewhere(self) -> dict[str, int]:
        """The records that wait for other servers, by redacted URI."""
        self._ours()
        counts: dict[str, int] = {}
        for outbox, first in self._first.items():
            if (left := _left(outbox)) and not self._is_ours(first):
                uri = shown_uri(first["open"]["uri"], self.folder)
                counts[uri] = counts.get(uri, 0) + left
        return counts

    def _ours(self) -> list[Path]:
        self._broken = {o: why for o, why in self._broken.items() if o in self._first}
        for log in self._logs():
            if log.parent not in self._first:
                self._look_at(log)
        depths = dict[Path, int]()
        for outbox, first in self._first.items():
            if self._is_ours(first):
                try:
                    depths[outbox] = self._depth(outbox)
                except Broken as error:
                    self._broken[outbox] = str(error)
        return sorted(depths, key=lambda outbox: (depths[outbox], self._first[outbox]["time"]))

    def _is_ours(self, first: Record) -> bool:
        """Whether the server is the one that a run is logged to, by its first record."""
        return is_place(redacted(first["open"]["uri"]), self.server.uri, self.folder)

    def _logs(self) -> list[Path]:
        """The logs of all outboxes, links that lead nowhere too, and those in closed folders."""
        return [folder / LOG for folder in self.folder.glob("*") if not _lacks(folder / LOG)]

    def _look_at(self, log: Path) -> None:
        try:
            if (first := first_open(log)) is not None:
                self._first[log.parent] = first
        except Broken as error:
            self._broken[log.parent] = str(error)
        except OSError as error:
            if _lacks(log):  # it was deleted meanwhile
                return
            self._broken[log.parent] = (
                f"{log} cannot be read ({error.strerror or error}); change its permissions, or "
                f"delete {log.parent}"
            )

    def _depth(self, outbox: Path) -> int:
        """How many runs stand above a run: its parent may be younger, where it was taken up.

        Raises:
            Broken: they are a circle.
        """
        above, at = [outbox], outbox
        while at in self._first and (parent := self._first[at]["open"]["parent"]):
            if (at := at.with_name(parent)) in above:
                why = "nothing of it can be sent, the runs above it are a circle"
                raise Broken(f"{outbox / LOG}: {why}; delete the folder {at}")
            above.append(at)
        return len(above) - 1


def _lacks(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


def _left(outbox: Path) -> int:
    log, sent = outbox / LOG, sent_part(outbox)["bytes"]
    records = read_records(log, sent if sent <= size_of(log) else 0)  # as where it is sent
    return sum(1 for _, record in records if "damaged" not in record)


def _line(log: Path, end: int) -> int:
    """The number of the line that ends at a byte of a log."""
    with open(log, "rb") as file:
        return file.read(end).count(b"\n")


class Delivery:
    """Sends a folder's outboxes from a thread, until it is closed."""

    def __init__(self, folder: Path):
        self._outboxes = Outboxes(folder, tracking_uri())
        self._local = is_local(tracking_uri())
        self._answer = UNLOCKED if self._local else ANSWER
        self._problem = "it answers slowly"
        self._closing, self._loaded = Event(), Event()
        self._thread = Thread(target=self._run, name="delivery", daemon=True)
        self._started = time.monotonic()
        self._thread.start()

    def close(self, patience: float = PATIENCE) -> str | None:
        """Send what is left, as long as the server answers quickly.

        Args:
            patience: seconds to wait at most, whatever it does.

        Returns:
            What remains to be sent, and why; None if nothing does.
        """
        self._closing.set()
        asked = time.monotonic()
        most = patience if self._local else max(LAST, SHARE * (asked - self._started))
        while self._thread.is_alive() and time.monotonic() - asked < patience:
            if not self._loaded.is_set():
                most += 0.05  # the import is this machine's own work
            elif not self._answers() or time.monotonic() - asked > most:
                break
            self._thread.join(0.05)
        return self._remains()

    def _answers(self) -> bool:
        server = self._outboxes.server
        since = server.since or time.monotonic()
        return max(server.took, time.monotonic() - since) < self._answer

    def _run(self) -> None:
        try:
            load_mlflow()
        except Exception as error:  # it is broken, or the process is about to end
            self._problem = scrubbed(f"MLflow cannot be imported: {error}")
            return
        finally:
            self._loaded.set()
        pause, closing = ROUND, False
        while not closing:
            closing = self._closing.is_set()  # one more round after that
            try:
                self._outboxes.send()
                pause = ROUND
            except Unsent as error:
                self._problem, pause = str(error), min(PAUSE, 2 * pause)
            except Exception as error:  # as of a full disk: nothing that the work should stop for
                self._problem, pause = scrubbed(str(error)), PAUSE
            self._closing.wait(pause)

    def _remains(self) -> str | None:
        outboxes = self._outboxes
        said = [f"MLflow refused a record: {reason}" for reason in outboxes.refused]
        if left := outboxes.waiting():
            said.append(
                f"{left} records are still to be sent to {redacted(outboxes.server.uri)} "
                f"({self._problem}); the next stage or `maskgit sync` sends them"
            )
        said += outboxes.left_out()
        return "; ".join(said) or None
