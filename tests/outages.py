"""Outages during any stage: the server, the disk, a kill, the clock.

`python -m tests.outages PROJECT [--stages …] [--outages …]` tries them on a copy of a project in
which `dvc repro` has run, and prints a table; all of them take an hour or two on 2 cores.
"""

import argparse
import shutil
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.damage import cut, flip, zero
from tests.failing_proxy import FailingProxy
from tests.mlflow_server import mlflow_server
from tests.outage_trial import Trial, fresh
from tests.project import Project

STAGES = (
    *("schedules", "prepare", "train_classifier", "train_tokenizer", "cache_tokens"),
    *("train_transformer", "train_autoregressive", "sweep", "evaluate", "cas", "temperature"),
    *("edit", "reject", "reconstruct", "speed", "analysis"),
)
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


def killed(trial: Trial) -> None:
    _killed(trial, lambda path: None)


def killed_and_cut(trial: Trial) -> None:
    """What the killed stage kept last, a checkpoint most often, is damaged then."""
    _killed(trial, cut)


def killed_and_zeroed(trial: Trial) -> None:
    _killed(trial, zero)


def killed_and_flipped(trial: Trial) -> None:
    _killed(trial, flip)


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


OUTAGES: dict[str, Callable[[Trial], None]] = {
    f.__name__: f
    for f in (
        *(gone_briefly, gone_for_good, silent, errors, lost, slow),
        *(full_disk, killed, killed_and_cut, killed_and_zeroed, killed_and_flipped, clock_back),
    )
}
OF_SERVER = (gone_briefly, gone_for_good, silent, errors, lost, slow)


class Bench:
    """Tries outages on the stages of a finished project.

    Args:
        folder: where the copies are made.
        server: the port of a tracking server.
    """

    def __init__(self, finished: Project, folder: Path, server: int):
        self.finished, self.folder, self.server = finished, folder, server
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
            assert trial.left() == []
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
        return fresh(self.finished, stage, folder, proxy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--stages", nargs="*", default=STAGES)
    parser.add_argument("--outages", nargs="*", default=list(OUTAGES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outages") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "server").mkdir()
        server = stack.enter_context(mlflow_server(folder / "server"))
        bench = Bench(Project(arguments.project.absolute()), folder, server)
        for outage in arguments.outages:
            for stage in arguments.stages:
                print(_row(bench, stage, outage), flush=True)


def _row(bench: Bench, stage: str, outage: str) -> str:
    try:
        trial = bench.attempt(stage, outage)
    except Exception as error:
        traceback.print_exc()
        return f"{stage:21}{outage:20}FAILED  {' '.join(str(error).split())[:200]}"
    slower = f"{trial.took / trial.plain - 1:+.0%} of {trial.plain:.0f} s" if trial.took else ""
    notes = [s for s in trial.said if s.startswith("damaged") or s.endswith("few")]
    return f"{stage:21}{outage:20}ok  {trial.delivered:5} points  {slower:14}{', '.join(notes)}"


if __name__ == "__main__":
    main()
