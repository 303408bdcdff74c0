"""The outages that a stage may meet, each as something that is done to a trial of it."""

import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.damage import cut
from tests.outage_trial import Trial

MIB = 2**20
DAY_BACK = """
import time
_began, _time = time.monotonic(), time.time
time.time = lambda: _time() - (86400 if time.monotonic() - _began > {after} else 0)
"""


def gone_briefly(trial: Trial) -> None:
    """The server goes in the middle, and comes back before the stage ends."""
    _server(trial, "refused", 0.3, 0.7)


def gone_for_good(trial: Trial) -> None:
    """It comes back when the stage has ended."""
    _server(trial, "refused", 0.3, None)


def silent(trial: Trial) -> None:
    _server(trial, "silent", 0.3, None)


def errors(trial: Trial) -> None:
    """Every request is answered by an error of the server."""
    _server(trial, "errors", 0.3, None)


def busy(trial: Trial) -> None:
    """It asks to come again in two minutes."""
    _server(trial, "busy", 0.3, 0.7)


def page(trial: Trial) -> None:
    """Somebody else answers, as at a login."""
    _server(trial, "page", 0.3, 0.7)


def began_anew(trial: Trial) -> None:
    """The server comes back with an empty database."""
    process = trial.start()
    trial.wait(0.3)
    trial.proxy.mode = "refused"
    trial.wait(0.5)
    trial.proxy.target, trial.proxy.mode = trial.other, "open"
    trial.end(process)


def lost(trial: Trial) -> None:
    """Requests arrive, and their answers do not."""
    _server(trial, "lost", 0.3, 0.7)


def slow(trial: Trial) -> None:
    """Five seconds go by before each request."""
    trial.proxy.latency = 5
    trial.run()
    trial.proxy.latency = 0


def _server(trial: Trial, mode: str, begin: float, stop: float | None) -> None:
    process = trial.start()
    trial.wait(begin)
    trial.proxy.mode = mode
    if stop is not None:
        trial.wait(stop)
        trial.proxy.mode = "open"
    trial.end(process)
    trial.proxy.mode = "open"


def locked(trial: Trial) -> None:
    """Another process holds the project's own database until the stage has ended."""
    process = trial.start()
    trial.wait(0.4)
    trial.wait_for_database(process)
    with closing(sqlite3.connect(trial.database, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        trial.end(process)


def deleted(trial: Trial) -> None:
    """The project's own database, in the middle."""
    process = trial.start()
    trial.wait(0.5)
    trial.wait_for_database(process)
    trial.database.unlink(missing_ok=True)
    trial.end(process)
    try:
        trial.sync()
    except AssertionError as error:  # MLflow was setting it up again as the stage ended
        assert "move the file away" in str(error)
        trial.database.unlink()


def worker_killed(trial: Trial) -> None:
    """One of Ray's workers, by the system."""
    process = trial.start()
    trial.kill_one(process, "ray::")
    trial.end(process)


def ray_killed(trial: Trial) -> None:
    """What runs the workers: the stage ends, and another begins where it was."""
    _ray_killed(trial, "raylet")


def ray_head_killed(trial: Trial) -> None:
    _ray_killed(trial, "gcs_server")


def _ray_killed(trial: Trial, name: str) -> None:
    process = trial.start()
    trial.kill_one(process, name)
    trial.end(process, ok=None)
    trial.no_strays()
    trial.run()
    trial.took = 0.0


def killed(trial: Trial) -> None:
    _killed(trial, lambda path: None)


def killed_and_cut(trial: Trial) -> None:
    """What the killed stage kept last, a checkpoint most often, is damaged then."""
    _killed(trial, cut)


def _killed(trial: Trial, damage: Callable[[Path], None]) -> None:
    process = trial.start()
    trial.wait(0.6)
    while trial.newest() is None and process.poll() is None and trial.plain > 3:
        time.sleep(0.02)
    if process.poll() is None:
        trial.kill(process)
    if (path := trial.newest()) is not None:
        damage(path)
        trial.said.append(f"damaged {path.name}")
    trial.run()
    trial.took = 0.0  # nothing to compare


def clock_back(trial: Trial) -> None:
    """A day, in the middle."""
    folder = trial.project.folder.parent / "clock"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(DAY_BACK.format(after=0.5 * trial.plain))
    trial.run(PYTHONPATH=f"{trial.project.folder}:{folder}")


def full_disk(trial: Trial) -> None:
    """The whole project, its database too, on a disk with ever more room, until the stage fits."""
    folder = trial.project.folder
    for room in (0.1, 1, 4, 16):
        _resize(folder, _used(folder) + int(room * MIB))
        fits = trial.end(trial.start(), ok=None) == 0
        trial.no_strays()
        if fits:
            break
        trial.said.append(f"{room:g} MiB are too few")
    _resize(folder, 4096 * MIB)
    trial.run()
    trial.took = 0.0


def _used(folder: Path) -> int:
    return shutil.disk_usage(folder).used


def _resize(folder: Path, size: int) -> None:
    subprocess.run(("mount", "-o", f"remount,size={size}", folder), check=True)


OF_SERVER: tuple[Callable[[Trial], None], ...] = (
    *(
        gone_briefly,
        gone_for_good,
        silent,
        errors,
        busy,
        page,
        began_anew,
        lost,
        slow,
    ),
)
OF_MACHINE: tuple[Callable[[Trial], None], ...] = (
    *(locked, deleted, worker_killed, ray_killed, ray_head_killed, full_disk),
    *(killed, killed_and_cut, clock_back),
)
OF_RAY = (worker_killed, ray_killed, ray_head_killed)
OUTAGES = {outage.__name__: outage for outage in OF_SERVER + OF_MACHINE}
