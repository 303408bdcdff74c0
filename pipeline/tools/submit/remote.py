"""A job's use of the DVC remote: its folder's settings, and what it pushes."""

import logging
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.node_checkout import Remote
from pipeline.runtime.secrets import redacted

LOCAL_CONFIG = Path(".dvc/config.local")


def use_remote(remote: Remote, cache: Path) -> None:
    """Let DVC work here, where there is no git, with a remote and a cache, whose files it links."""
    from dvc.config import Config

    LOCAL_CONFIG.touch(mode=0o600)  # for what may be keys
    with Config(".dvc").edit("local") as config:
        config.update(remote.config(cache))


def push(remote: Remote) -> int:
    """Push what finished stages made, and the run cache, so that `dvc repro --pull` runs nothing
    elsewhere. Returns the number of files.

    `dvc push --run-cache` leaves out what git holds (`cache: false`), without which a stage would
    run again.

    Raises:
        UserError: the remote does not take them.
    """
    from dvc.repo import Repo

    # It warns of what neither side has: stages that will run.
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as repo:
            pushed, failed = repo.push(run_cache=True), 0
            outs = [out for stage in repo.index.stages for out in stage.outs if not out.use_cache]
            for out in filter(lambda out: out.hash_info, outs):
                out.use_cache = True  # for DVC to tell its objects, which the run cache has
                for objects in out.get_used_objs().values():
                    result = repo.cloud.push(objects)
                    pushed, failed = pushed + len(result.transferred), failed + len(result.failed)
    except Exception as error:  # each kind of store has errors of its own
        reason = redacted(in_a_line(error))  # it may repeat the address
        raise UserError(f"cannot push to {redacted(remote.url)}: {reason}") from error
    if failed:
        raise UserError(f"cannot push to {redacted(remote.url)}: it did not take {failed} files")
    return pushed
