"""The job that `maskgit submit` starts on the cluster: `python -m pipeline.tools.job FOLDER`.

Without a DVC remote it works in the project's own folder. With one it works in the copy that Ray
unpacked: it pulls what other jobs made, runs stage after stage, and pushes each. A folder beside
(`cache_folder`) keeps DVC's cache and run directories for all jobs with the same remote.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.mlflow_sync import is_local, tracking_uri
from pipeline.runtime.node_checkout import JOB, Remote, cache_folder
from pipeline.runtime.process import THREADS, set_up
from pipeline.runtime.secrets import redacted

ORDER, KEY = "maskgit-order", "MASKGIT_ORDER_KEY"
LOCAL_CONFIG = Path(".dvc/config.local")


@dataclass(frozen=True)
class Order:
    """The work of a job. It may contain passwords, and Ray's list of jobs shows a job's command and
    environment, so it is sent encrypted in a file beside the code. The key is in the command.

    Args:
        stage: of dvc.yaml; None for all.
        environment: that its stages have besides the cluster's.
        remote: the DVC remote; None if the job works in the project's own folder.
    """

    stage: str | None
    environment: Mapping[str, str]
    remote: Remote | None

    def sealed(self) -> tuple[str, bytes]:
        """Encrypt the order with a new key; return both."""
        from cryptography.fernet import Fernet

        key = Fernet.generate_key()
        return key.decode(), Fernet(key).encrypt(json.dumps(asdict(self)).encode())

    @classmethod
    def opened(cls, folder: Path) -> "Order":
        """Decrypt the order in a folder, and remove the key from the environment."""
        from cryptography.fernet import Fernet

        key, file = os.environ.pop(KEY, ""), folder / ORDER
        if not key or not file.exists():
            raise UserError(__name__, "only `maskgit submit` starts it", "use that command")
        values = json.loads(Fernet(key).decrypt(file.read_bytes()))
        remote = values.pop("remote")
        return cls(**values, remote=Remote(**remote) if remote else None)


def main(folder: Path) -> None:
    set_up()
    order = Order.opened(folder)
    if os.environ.get(THREADS) == "1":  # of the actor that starts jobs, which Ray gives no CPU
        del os.environ[THREADS]  # by rounding, stages would compute other bytes than at home
    os.environ.update(order.environment)
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    remote = order.remote
    if remote is None:
        _dvc("repro", *filter(None, [order.stage]))
        return
    if "://" not in remote.url and not Path(remote.url).is_dir():
        subject, reason = f"the DVC remote '{remote.name}'", f"the cluster has no {remote.url}"
        raise UserError(subject, reason, "name a remote that every machine reaches")
    (folder / ORDER).unlink()
    with _checkout(remote):
        for stage in stages_up_to(order.stage):
            # `--pull` also brings what a stage only shows, such as a tokenizer for its samples.
            _dvc("repro", "--pull", "--single-item", stage)
            push(remote)  # at once: what is finished is kept, whatever becomes of the job


@contextmanager
def _checkout(remote: Remote) -> Iterator[None]:
    """Connect the current folder to the DVC remote; the remote's keys are removed from the folder
    afterwards."""
    cache = cache_folder(remote)
    (cache / "cache").mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    for name in ("runs", "mlruns"):
        (cache / name).mkdir(exist_ok=True)
        Path(name).symlink_to(cache / name)
    os.environ["PYTHONPATH"] = str(Path.cwd())  # this code, whatever is installed here
    os.environ[JOB] = "1"
    if is_local(tracking_uri()):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{cache / 'mlflow.db'}"
        print(f"MLFLOW_TRACKING_URI names no server: MLflow's runs stay here, in {cache}")
    try:
        use_remote(remote, cache / "cache")
        yield
    finally:
        LOCAL_CONFIG.unlink(missing_ok=True)


def use_remote(remote: Remote, cache: Path) -> None:
    """Configure DVC for this folder without git: a remote, and a cache from which it links
    files."""
    from dvc.config import Config

    LOCAL_CONFIG.touch(mode=0o600)  # it may hold keys
    with Config(".dvc").edit("local") as config:
        config.update(remote.config(cache))


def push(remote: Remote) -> int:
    """Push the outputs of finished stages and the run cache, so that `dvc repro --pull` runs
    nothing elsewhere. Returns the number of files. Raises a `UserError` if the remote refuses them.

    `dvc push --run-cache` leaves out what git holds (`cache: false`), without which a stage would
    run again.
    """
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # it warns of stages that did not run yet
    try:
        with Repo() as repo:
            pushed, failed = repo.push(run_cache=True), 0
            outs = [out for stage in repo.index.stages for out in stage.outs if not out.use_cache]
            for out in filter(lambda out: out.hash_info, outs):
                out.use_cache = True  # for DVC to list its objects, which the run cache has
                for objects in out.get_used_objs().values():
                    result = repo.cloud.push(objects)
                    pushed, failed = pushed + len(result.transferred), failed + len(result.failed)
        if not failed:
            return pushed
        reason = f"it did not take {failed} files"
    except Exception as error:  # each kind of store has errors of its own
        reason = redacted(in_a_line(error))  # it may repeat the address
    raise UserError(redacted(remote.url), f"cannot push: {reason}", "check address and keys")


def _dvc(*arguments: str) -> None:
    """Run DVC, which prints its own errors."""
    sys.stdout.flush()
    if code := subprocess.run((sys.executable, "-m", "dvc", *arguments), check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # `ray job stop`
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"error: {error}")
