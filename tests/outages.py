"""Outages during any stage: the server, the disk, a kill, the clock. All of them take two hours."""

import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.failing_proxy import FailingProxy
from tests.outage_kinds import MIB, OF_RAY, OF_SERVER, OUTAGES, full_disk
from tests.outage_trial import LONGER, Trial, fresh
from tests.project import Project

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
