"""The project as a worker sees it: the driver's folder, or this node's own checkout.

Usually every node sees the driver's folder. In a job that `maskgit submit` sent with a DVC remote
none does: there Ray unpacks the code (its `working_dir`) on each node, at one path for all of them,
and the first worker on a node pulls what earlier stages made. Run directories are shared through
the store of `ray.storage_path`.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.runtime.dag import makers, require_unchanged, stage_deps
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import value_hash
from pipeline.runtime.secrets import redacted
from pipeline.runtime.storage import Storage, storage, use_storage

JOB = "MASKGIT_JOB"  # set in a job whose nodes have checkouts of their own
LINKS = ["hardlink", "symlink"]  # how DVC takes files out of its cache
DONE = Path(".dvc/tmp/checkout")  # says what a node has pulled


@dataclass(frozen=True)
class Remote:
    """The project's default DVC remote.

    Args:
        settings: as all of DVC's configuration files together have them: the URL, perhaps keys.
    """

    name: str
    settings: Mapping[str, Any] = field(repr=False, hash=False)

    @property
    def url(self) -> str:
        return self.settings["url"]

    def config(self, cache: Path) -> dict[str, Any]:
        """DVC's configuration of a checkout without git, whose files are links into a cache."""
        return {
            "core": {"no_scm": True, "remote": self.name},
            "cache": {"dir": str(cache), "type": LINKS},
            "remote": {self.name: dict(self.settings)},
        }


def default_remote() -> Remote | None:
    """The default remote of the project in the current folder, if it has one.

    Raises:
        UserError: DVC's configuration cannot be read, or names a remote that it does not have.
    """
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        config = Config(".dvc")
        name = config["core"].get("remote")
        settings = {
            k: str(v) if isinstance(v, str) else v for k, v in config["remote"][name].items()
        }
        return Remote(name, settings)
    except (DvcException, KeyError) as error:
        if isinstance(error, KeyError) and name is None:
            return None
        raise UserError(
            "the default DVC remote", str(error), "`dvc remote list` shows those that there are"
        ) from error


def cache_folder(remote: Remote) -> Path:
    """What a machine keeps for jobs with that remote; it may be deleted."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "maskgit", value_hash(remote.url)[:16]).absolute()


@dataclass(frozen=True)
class Checkout:
    """Where workers find the project; made by the driver, and sent to them.

    Args:
        folder: the project's, absolute.
        stage, code: the running stage, and its files of code with the hash of each.
        node: Ray's id of the driver's node; empty where all nodes see the folder.
        lock: the content of dvc.lock.
        inputs: the outputs of earlier stages that the stage depends on.
    """

    folder: str
    stage: str = ""
    code: tuple[tuple[str, str], ...] = ()
    storage: Storage | None = None
    node: str = ""
    lock: str = ""
    inputs: tuple[str, ...] = ()
    remote: Remote | None = None

    def enter(self) -> None:
        """Let this worker work there.

        Raises:
            UserError: this node sees neither the folder nor the DVC remote, or the code has
                changed since the stage began.
        """
        use_storage(self.storage)
        _enter(self)


@lru_cache(maxsize=1)
def _enter(checkout: Checkout) -> None:
    import ray

    folder = Path(checkout.folder)
    if checkout.node and checkout.node != ray.get_runtime_context().get_node_id():
        _pull(checkout)
        return
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            checkout.folder,
            f"{platform.node()} does not see it ({error.strerror})",
            "share it among all nodes, or send a job with a DVC remote (docs/cluster.md)",
        ) from None
    require_unchanged(checkout.code, checkout.stage)


def _pull(checkout: Checkout) -> None:
    """Make this node's copy of the code a checkout with the stage's inputs."""
    from dvc.repo import Repo

    remote, folder = checkout.remote, Path(checkout.folder)
    assert remote is not None
    if checkout.storage is None:
        raise UserError(
            "ray.storage_path",
            f"{platform.node()} shares no folder with the job's head",
            "name an object store that all nodes reach, such as s3://bucket/folder",
        )
    if not folder.exists():  # Ray's files lie elsewhere on this node
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(Path.cwd())
    os.chdir(folder)
    wanted = value_hash([checkout.lock, checkout.inputs])
    DONE.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(DONE.with_suffix(".lock")):
        if DONE.exists() and DONE.read_text() == wanted:
            return
        Path("dvc.lock").write_text(checkout.lock)
        try:
            with Repo(".", config=remote.config(cache_folder(remote) / "cache")) as repo:
                repo.pull(targets=list(checkout.inputs))
        except Exception as error:  # each kind of store has errors of its own
            raise UserError(
                f"the DVC remote {redacted(remote.url)}",
                f"{platform.node()} cannot pull from it ({error})",
                "check its address and keys",
            ) from error
        DONE.write_text(wanted)


_running = Checkout("")


def begin(stage: str, code: tuple[tuple[str, str], ...]) -> None:
    """Note the code with which a stage begins: workers that start later may find other code."""
    global _running
    _running = Checkout("", stage, code)


def checkout() -> Checkout:
    """What the workers of this process, a stage, need to find its project."""
    here = replace(_running, folder=str(Path.cwd()), storage=storage())
    if JOB not in os.environ:
        return here
    import ray

    made = makers()
    stage = here.stage or os.environ.get("DVC_STAGE", "")
    lock = Path("dvc.lock")
    return replace(
        here,
        node=ray.get_runtime_context().get_node_id(),
        lock=lock.read_text() if lock.exists() else "",
        inputs=tuple(dep for dep in stage_deps(stage) if dep in made) if stage else tuple(made),
        remote=default_remote(),
    )
