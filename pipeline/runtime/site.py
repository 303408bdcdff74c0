"""The project as a process sees it: itself at home, or a copy on a node that does not see its
folder.

A worker's copy has what it was told to need: it takes that from home before it works, and sends
home what it made.
"""

import os
import uuid
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.runtime.dag import PARAMS_FILE, require_unchanged
from pipeline.runtime.errors import UserError, cannot_write
from pipeline.runtime.files import PARTS, atomic_file, read_yaml, temporary_beside, value_hash
from pipeline.runtime.home import (
    CHUNK,
    OWN_COPY,
    Home,
    Place,
    Project,
    Stamp,
    listed,
    mark_beside,
    needed,
)
from pipeline.runtime.project import in_project, runs_folder
from pipeline.runtime.remote_files import RemoteFiles

AHEAD = 3  # chunks of a file that are asked for at once: one is written while others travel


class Site:
    """The project as a process sees it: itself, or this node's copy.

    Args:
        home: the actor, which ends with the process that started it.

    Raises:
        UserError: this node's copy cannot be written.
    """

    def __init__(self, project: Project, home: Any = None):
        self.project, self._home = project, home
        self._known: dict[Place, dict[str, Stamp]] = {}  # what both had when they last met
        self._remote = RemoteFiles()
        self.bases = (Path(project.folder), Path(project.storage))
        self.away = self.apart and not _sees(project)
        if self.away:
            caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            copy = Path(caches, "maskgit/copies", value_hash(project.storage)[:16]).absolute()
            self.bases = (copy / "project", copy / "storage")
            self._lock = FileLock(copy / ".lock")
            try:
                self._make()
            except OSError as error:
                raise cannot_write(copy, error) from error
            for place in self.project.inputs:
                self.bring([place], exact=False)

    @property
    def apart(self) -> bool:
        """Whether some node does not see the folder."""
        return bool(self.project.actor)

    def _make(self) -> None:
        import ray

        self._home = ray.get_actor(self.project.actor)
        for base in self.bases:
            base.mkdir(parents=True, exist_ok=True, mode=0o700)
        link = self.bases[0] / self.project.storage_path
        with self._lock:
            # Run directories outside of the project have places of the storage alone.
            if link.is_relative_to(self.bases[0]) and not link.exists():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(self.bases[1])

    def enter(self) -> None:
        """Let this process work there.

        Raises:
            UserError: this node does not see the folder.
        """
        try:
            os.chdir(self.bases[0])
        except OSError as error:
            raise UserError(
                f"{self.bases[0]} cannot be used on {os.uname().nodename} ({error.strerror}); "
                f"every node has to see the project's folder at the same path"
            ) from None

    def path(self, place: Place) -> Path:
        """Where this process sees a place."""
        return self.bases[place.base] / place.name

    def place(self, path: str) -> Place | None:
        """The place of an absolute path; None outside of the project."""
        for base in (1, 0):  # the storage is in the folder, perhaps
            root = str(self.bases[base])
            if path == root or path.startswith(f"{root}/"):
                return Place(base, path[len(root) + 1 :])
        return None

    def bring(self, places: Iterable[Place], exact: bool = True) -> None:
        """Let the copy have what is at home.

        Args:
            exact: what is not at home is removed, but for the parts of files.
        """
        if not self.away:
            return
        import ray

        for place in places:
            path = self.path(place)
            with self._lock:
                theirs, ours = ray.get(self._home.listed.remote(place)), listed(path)
                lacking = {name: s for name, s in theirs.items() if ours.get(name) != s}
                for name in self._from_remote(place, lacking):
                    del lacking[name]
                for name, stamp in lacking.items():
                    self._fetch(place, name, stamp)
                for name in (ours.keys() - theirs.keys()) if exact else ():
                    if _is_wanted(name, theirs):
                        continue
                    (path / name).unlink()
                    with suppress(OSError):  # others are in the folder
                        (path / name).parent.rmdir()
            self._note(place, theirs)

    def send(self, places: Iterable[Place]) -> None:
        """Let home have what has changed in the copy since it was brought; what others have sent
        meanwhile stays."""
        if not self.away:
            return
        import ray

        for place in places:
            ours, known = listed(self.path(place)), self._known.get(place, {})
            changed = {name: stamp for name, stamp in ours.items() if known.get(name) != stamp}
            gone = known.keys() - ours.keys()
            theirs = ray.get(self._home.listed.remote(place)) if changed or gone else known
            for name, stamp in changed.items():
                if theirs.get(name) != stamp:
                    self._hand_in(place, name, stamp)
            for name in gone & theirs.keys():
                ray.get(self._home.remove.remote(place, name))
            self._note(place, ours)

    def _note(self, place: Place, files: dict[str, Stamp]) -> None:
        """Note what both have of a place, and so of those that it lies in: what this process takes
        there from others, and removes, is to go at home too."""
        self._known[place] = files
        for outer, known in self._known.items():
            if place.base == outer.base and place.name.startswith(f"{outer.name}/"):
                below = place.name[len(outer.name) + 1 :]
                known |= {f"{below}/{name}" if name else below: files[name] for name in files}

    def _from_remote(self, place: Place, lacking: Mapping[str, Stamp]) -> list[str]:
        """Fetch files of what another stage made from the DVC remote, if that has it for sure;
        returns their names."""
        import ray

        if not lacking or place not in self.project.inputs:
            return []
        output = ray.get(self._home.output.remote(place))
        return self._remote.fetched(output, self.path(place), lacking) if output else []

    def _fetch(self, place: Place, name: str, stamp: Stamp) -> None:
        import ray

        with atomic_file(self.path(place) / name, durable=False) as temporary:
            with open(temporary, "wb") as file:
                asked = deque[Any]()
                for start in range(0, stamp.size, CHUNK):
                    asked.append(self._home.read.remote(place, name, start))
                    if len(asked) == AHEAD:
                        file.write(ray.get(asked.popleft()))
                for chunk in asked:  # of a file that is shorter by now: its hash will tell
                    file.write(ray.get(chunk))
            os.utime(temporary, ns=(stamp.changed, stamp.changed))

    def _hand_in(self, place: Place, name: str, stamp: Stamp) -> None:
        import ray

        path = self.path(place) / name
        aside = temporary_beside(path).name
        with open(path, "rb") as file:
            last = False
            while not last:
                chunk = file.read(CHUNK)
                last = file.tell() >= stamp.size or not chunk
                changed = stamp.changed if last else 0
                ray.get(self._home.write.remote(place, name, chunk, aside, changed))


def _is_wanted(name: str, theirs: Container[str]) -> bool:
    """Whether a file is a part that another worker on this node may have made and not sent yet: the
    file that it is a part of is not at home."""
    folder = str(Path(name).parent)
    return folder.endswith(PARTS) and folder.removesuffix(PARTS) not in theirs


def _sees(project: Project) -> bool:
    """Whether this node sees the folder, and that of the run directories."""
    return all(Path(mark).exists() for mark in project.marks)


_here: Site | None = None  # this process's, where the cluster's nodes share no folder
_running: tuple[str, tuple[tuple[str, str], ...]] = ("", ())  # the stage and its code
_require_unchanged = lru_cache(maxsize=1)(require_unchanged)  # once: what is imported by then stays
_opened: Callable[[Project], Site] = lru_cache(maxsize=1)(Site)


def here() -> Site:
    """The site of this process."""
    if _here is not None:
        return _here
    folder = str(Path.cwd())
    return Site(Project(folder, folder, stage=_running[0], code=_running[1]))


def begin(stage: str, code: tuple[tuple[str, str], ...]) -> None:
    """Let workers know the code with which a stage begins: one that starts later may find other."""
    global _running
    _running = (stage, code)


def work_at(project: Project) -> Site:
    """Let this process, a worker, work for a project from now on.

    Raises:
        UserError: this node does not see the folder, or the code was changed since the stage began.
    """
    global _here
    site = _opened(project)
    site.enter()
    if not site.away:  # where it is, the code is a copy that nobody edits
        _require_unchanged(project.code, project.stage)
    _here = site if project.actor else None
    return site


def send_home(path: Path) -> None:
    """Let home have a file at once, which a worker that may be lost has written."""
    site = here()
    if place := site.place(str(path)):
        site.send([place])


def forget_home() -> None:
    """Every node sees the folder, as far as is known."""
    global _here
    _here = None


def be_home(mark: Path) -> None:
    """Be the project's home from now on, with an actor that gives its files out.

    Args:
        mark: a file in the project, there until this process ends.

    Raises:
        UserError: the folder of the run directories cannot be written.
    """
    global _here
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"home-{uuid.uuid4().hex[:12]}"
    storage_path = runs_folder(read_yaml(PARAMS_FILE)["ray"]["storage_path"])
    folder, storage = Path.cwd(), in_project(storage_path).resolve()
    marks = tuple(map(str, {mark, mark_beside(storage, mark)}))
    node = ray.get_runtime_context().get_node_id()
    beside = NodeAffinitySchedulingStrategy(node, soft=False)
    actor: Any = ray.remote(Home).options(
        name=name, num_cpus=0, max_concurrency=8, scheduling_strategy=beside
    )
    project = Project(str(folder), str(storage), storage_path, marks, name, needed(), *_running)
    pushed = OWN_COPY in os.environ
    _here = Site(project, actor.remote(str(folder), str(storage), pushed=pushed))
