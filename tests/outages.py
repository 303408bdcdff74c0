"""Outages during any stage: the server, the disk, a kill, the clock.

`python -m tests.outages PROJECT [--stages …] [--outages …]` tries them on a copy of a project in
which `dvc repro` has run, and prints a table; all of them take two hours on 2 cores. So do the same
ones as tests, `ALL_OUTAGES=1 pytest tests/test_outages.py`. How long a stage of a few seconds takes
differs by a third: `--times 5` compares medians, of runs with an outage and without in turn.
"""

import argparse
import statistics
import subprocess
import tempfile
import traceback
from contextlib import ExitStack
from pathlib import Path

from tests.failing_proxy import FailingProxy
from tests.mlflow_server import mlflow_server
from tests.outage_kinds import MIB, OF_RAY, OF_SERVER, OUTAGES, full_disk
from tests.outage_trial import LONGER, Trial, fresh
from tests.project import Project

STAGES = (
    *("schedules", "prepare", "train_classifier", "train_tokenizer", "cache_tokens"),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path)
    parser.add_argument("--stages", nargs="*", default=STAGES)
    parser.add_argument("--outages", nargs="*", default=list(OUTAGES))
    parser.add_argument("--times", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outages") as name, ExitStack() as stack:
        folder = Path(name)
        servers = [0, 0]
        if any(OUTAGES[outage] in OF_SERVER for outage in arguments.outages):
            places = [Path(tempfile.mkdtemp(dir=folder)) for _ in servers]
            servers = [stack.enter_context(mlflow_server(place)) for place in places]
        bench = Bench(Project(arguments.project.absolute()), folder, *servers)
        for stage, outage in cells():
            if stage in arguments.stages and outage in arguments.outages:
                print(_row(bench, stage, outage, arguments.times), flush=True)


def _row(bench: Bench, stage: str, outage: str, times: int) -> str:
    trials = []
    try:
        for _ in range(times):
            if times > 1:
                bench.plain.clear()
            trials.append(bench.attempt(stage, outage))
    except Exception as error:
        traceback.print_exc()
        return f"{stage:21}{outage:20}FAILED  {' '.join(str(error).split())[:200]}"
    trial = trials[-1]
    took = statistics.median(trial.took for trial in trials)
    plain = statistics.median(trial.plain for trial in trials)
    slower = f"{took / plain - 1:+.0%} of {plain:.0f} s" if trial.took else ""
    notes = [s for s in trial.said if s.startswith(("damaged", "killed")) or s.endswith("few")]
    return f"{stage:21}{outage:20}ok  {trial.delivered:5} points  {slower:14}{', '.join(notes)}"


if __name__ == "__main__":
    main()
