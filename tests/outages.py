"""The outages that a stage may meet, each as something that is done to a trial of it, and a bench
that tries them on a finished project."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.damage import cut
from tests.failing_proxy import FailingProxy
from tests.outage_trial import LONGER, Trial, fresh
from tests.project import Project

MIB = 2**20


def gone_briefly(trial: Trial) -> None:
    """The server goes in the middle, and comes back before the stage ends."""
    _server(trial, "refused", 0.3, 0.7)


def gone_for_good(trial: Trial) -> None:
    """It comes back when the stage has ended."""
    _server(trial, "refused", 0.3, None)


def errors(trial: Trial) -> None:
    """Every request is answered by an error of the server."""
    _server(trial, "errors", 0.3, None)


def began_anew(trial: Trial) -> None:
    """The server comes back with an empty database."""
    process = trial.start()
    trial.wait(0.3)
    trial.proxy.mode = "refused"
    trial.wait(0.5)
    trial.proxy.target, trial.proxy.mode = trial.other, "open"
    trial.end(process)


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
    process = trial.start()
    trial.kill_one(process, "raylet")
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


OF_SERVER = (gone_briefly, gone_for_good, errors, began_anew, slow)
OF_RAY = (worker_killed, ray_killed)
OUTAGES = {
    outage.__name__: outage
    for outage in (*OF_SERVER, *OF_RAY, deleted, full_disk, killed, killed_and_cut)
}


STAGES = (
    *("schedules", "prepare", "train_classifier", "features", "train_tokenizer", "cache_tokens"),
    *("train_transformer", "train_autoregressive", "sweep", "evaluate", "cas", "temperature"),
    *("edit", "reject", "reconstruct", "speed", "analysis"),
)


def cells() -> list[tuple[str, str]]:
    """Every stage and outage that it may meet: not all have workers of Ray."""
    return [
        (stage, outage)
        for outage, action in OUTAGES.items()
        for stage in STAGES
        if stage in LONGER or action not in OF_RAY
    ]


class Bench:
    """Tries outages on the stages of a finished project.

    Args:
        folder: where the copies are made.
        server, other: the ports of two tracking servers.
    """

    def __init__(self, finished: Project, folder: Path, server: int, other: int):
        self.finished, self.folder, self.server, self.other = finished, folder, server, other
        self.plain: dict[tuple[str, bool], Trial] = {}

    def undisturbed(self, stage: str, tracked: bool) -> Trial:
        """The stage run once, with a server or without, to compare with."""
        if (stage, tracked) not in self.plain:
            with ExitStack() as stack:
                trial = self._trial(stage, tracked, stack)
                trial.run()
                trial.made, trial.points = trial.outputs(), trial.logged()
                self.plain[stage, tracked] = trial
        return self.plain[stage, tracked]

    def attempt(self, stage: str, outage: str) -> Trial:
        """A stage through an outage; what has to be true afterwards is asserted."""
        action = OUTAGES[outage]
        tracked = action in OF_SERVER
        plain = self.undisturbed(stage, tracked)
        with ExitStack() as stack:
            trial = self._trial(stage, tracked, stack, disk=action is full_disk)
            trial.plain = plain.took
            action(trial)
            trial.no_strays()
            trial.sync()
            assert trial.outputs() == plain.made
            trial.points = trial.logged()
            assert trial.points.keys() == plain.points.keys()
            assert stage == "speed" or trial.points == plain.points
            trial.delivered = trial.count()
            assert trial.left() == [], trial.left()
            trial.no_password()
        return trial

    def _trial(self, stage: str, tracked: bool, stack: ExitStack, disk: bool = False) -> Trial:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self.folder)))
        proxy = None
        if tracked:
            proxy = FailingProxy(self.server)
            stack.callback(proxy.close)
        if disk:
            (folder / "project").mkdir()
            size = f"size={4096 * MIB}"
            command = ("mount", "-t", "tmpfs", "-o", size, "tmpfs", folder / "project")
            subprocess.run(command, check=True)
            stack.callback(subprocess.run, ("umount", "-l", folder / "project"), check=True)
        trial = fresh(self.finished, stage, folder, proxy)
        trial.other = self.other
        return trial
