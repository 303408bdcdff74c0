"""Changes a worker's current folder to the project: the driver's folder or the node's own copy.

A job that `maskgit submit` sent with a DVC remote needs no shared folder: on each node, Ray unpacks
the code, and workers pull the stage's inputs. Checkpoints are stored at `ray.storage_path`.
"""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.runtime.dag import makers, require_unchanged, stage_deps, stages_from
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import value_hash, write_text
from pipeline.runtime.secrets import redacted
from pipeline.runtime.storage import S3_ENVIRONMENT, Storage, storage, use_storage

KEYS = (*S3_ENVIRONMENT.values(), "AWS_DEFAULT_REGION")  # S3 stores and DVC remotes read these
JOB = "MASKGIT_JOB"  # set in a job whose nodes have checkouts of their own
TOKENIZER = "models/tokenizer"  # the tokenizer decodes samples during later training runs


@dataclass(frozen=True)
class Remote:
    """The project's default DVC remote."""

    name: str
    settings: Mapping[str, Any] = field(repr=False, hash=False)  # the URL and any access keys

    @property
    def url(self) -> str:
        return self.settings["url"]

    def config(self, cache: Path) -> dict[str, Any]:
        """DVC's settings for a folder without git. DVC links the outputs to files in `cache`."""
        return {
            "core": {"no_scm": True, "remote": self.name},
            "cache": {"dir": str(cache), "type": ["hardlink", "symlink"]},
            "remote": {self.name: dict(self.settings)},
        }


def default_remote() -> Remote | None:
    """The default DVC remote of the project in the current folder; None if none is set."""
    from dvc.config import Config

    config = Config(".dvc")
    name, remotes = config["core"].get("remote"), config["remote"]
    if name is None:
        return None
    # `str` drops DVC's own path types, which DVC would write relative to another folder.
    settings = {k: str(v) if isinstance(v, str) else v for k, v in remotes[name].items()}
    return Remote(name, settings)


def cache_folder(remote: Remote) -> Path:
    """This machine's folder for jobs with this DVC remote. Users may delete it between jobs."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "maskgit", value_hash(remote.url)[:16]).absolute()


@dataclass(frozen=True)
class Checkout:
    """What a worker needs to find the project. The driver sends this object to its workers."""

    folder: str  # the project's absolute path
    stage: str = ""  # the running stage
    code: tuple[tuple[str, str], ...] = ()  # the stage's code files, each with its hash
    storage: Storage | None = None
    node: str = ""  # Ray's id of the driver's node; empty if all nodes see the folder
    lock: str = ""  # the content of dvc.lock
    inputs: tuple[str, ...] = ()  # the outputs of earlier stages that the stage depends on
    remote: Remote | None = None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)  # those in `KEYS`


@lru_cache(maxsize=1)  # a worker does one job at a time
def enter(project: Checkout) -> None:
    """Change this worker's current folder to the project. Raises a `UserError` if this node reaches
    neither the driver's folder nor the DVC remote, or if the code has changed since the stage
    began."""
    import ray

    global _entered
    _entered = project
    use_storage(project.storage)
    os.environ.update(project.keys)
    if project.node and project.node != ray.get_runtime_context().get_node_id():
        return _pull(project)
    try:
        os.chdir(project.folder)
    except OSError as error:
        reason = f"{platform.node()} cannot reach this folder ({error.strerror})"
        way_out = "share the folder among all nodes, or submit with a DVC remote (docs/cluster.md)"
        raise UserError(project.folder, reason, way_out) from None
    require_unchanged(project.code, project.stage)


def _pull(project: Checkout) -> None:
    """Pull the stage's inputs from the DVC remote into this node's copy of the code."""
    from dvc.repo import Repo

    remote, folder = project.remote, Path(project.folder)
    if project.storage is None or remote is None:
        reason = f"{platform.node()} shares no folder with the driver's node"
        way_out = "give an object store that all nodes reach, such as s3://bucket/folder"
        raise UserError("ray.storage_path", reason, way_out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):  # Ray may use the same path on this node
        folder.symlink_to(Path.cwd())
    os.chdir(folder)
    with FileLock(".dvc/tmp/checkout.lock"):
        write_text("dvc.lock", project.lock)  # atomic: another worker may read the file
        try:
            with Repo(".", config=remote.config(cache_folder(remote) / "cache")) as repo:
                repo.pull(targets=list(project.inputs))
        except Exception as error:  # each kind of store raises its own types
            subject = f"the DVC remote {redacted(remote.url)}"
            reason = f"{platform.node()} cannot pull from it ({redacted(str(error))})"
            raise UserError(subject, reason, "check the remote's URL and keys") from error


_running = Checkout("")
_entered: Checkout | None = None  # set if this process is a worker


def begin(stage: str, code: tuple[tuple[str, str], ...]) -> None:
    """Remember the running stage and its code's hashes, so that workers can detect edited code."""
    global _running
    _running = Checkout("", stage, code)


def checkout() -> Checkout:
    """What the workers of this process need to find the project: a `Checkout` to send to them."""
    if _entered is not None:
        return _entered
    here = replace(_running, folder=str(Path.cwd()), storage=storage())
    if JOB not in os.environ:
        return here
    import ray

    stage = os.environ["DVC_STAGE"]
    drawn = {TOKENIZER} if stage in stages_from("train_tokenizer") - {"train_tokenizer"} else set()
    return replace(
        here,
        node=ray.get_runtime_context().get_node_id(),
        lock=Path("dvc.lock").read_text(),
        inputs=tuple(sorted(makers().keys() & {*stage_deps(stage), *drawn})),
        remote=default_remote(),
        keys={name: os.environ[name] for name in KEYS if name in os.environ},
    )
