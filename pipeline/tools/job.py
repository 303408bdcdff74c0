"""The job that `maskgit submit` starts on the cluster: `python -m pipeline.tools.job FOLDER`.

Without a DVC remote, the job works in the project's own folder. With a remote, the job works in the
copy of the code that Ray unpacked: it runs each stage with `dvc repro --pull`, then pushes the
outputs. On each machine, jobs with the same remote share a folder (`cache_folder`) for DVC's cache
and for run directories.
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
    """The description of a job. The environment variables may contain passwords, but Ray shows a
    job's command and environment. Therefore, `maskgit submit` sends the object as an encrypted file
    in the job's working directory; only the decryption key (`MASKGIT_ORDER_KEY`) is shown.

    Args:
        stage: name of a stage in dvc.yaml; None for all stages.
        environment: environment variables of the stages, in addition to the cluster's.
        remote: the DVC remote; None if the job works in the project's own folder.
    """

    stage: str | None
    environment: Mapping[str, str]
    remote: Remote | None

    def sealed(self) -> tuple[str, bytes]:
        """Encrypt this job description with a new key. Returns the key and the encrypted bytes."""
        from cryptography.fernet import Fernet

        key = Fernet.generate_key()
        return key.decode(), Fernet(key).encrypt(json.dumps(asdict(self)).encode())

    @classmethod
    def opened(cls, folder: Path) -> "Order":
        """Decrypt the job description in `folder`. Deletes the key from the environment."""
        from cryptography.fernet import Fernet

        key = os.environ.pop(KEY)
        values = json.loads(Fernet(key).decrypt((folder / ORDER).read_bytes()))
        remote = values.pop("remote")
        return cls(**values, remote=Remote(**remote) if remote else None)


def main(folder: Path) -> None:
    set_up()
    order = Order.opened(folder)
    if os.environ.get(THREADS) == "1":  # Ray sets 1, because the actor that starts jobs has no CPU
        del os.environ[THREADS]  # with 1 thread, other rounding would change the outputs
    os.environ.update(order.environment)
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    remote = order.remote
    if remote is None:
        _dvc("repro", *filter(None, [order.stage]))
        return
    if "://" not in remote.url and not Path(remote.url).is_dir():
        subject, reason = f"the DVC remote '{remote.name}'", f"the cluster cannot see {remote.url}"
        raise UserError(subject, reason, "use a remote that every machine reaches")
    (folder / ORDER).unlink()
    with _checkout(remote):
        for stage in stages_up_to(order.stage):
            # `--pull` also fetches what later stages need only for pictures, such as the tokenizer.
            _dvc("repro", "--pull", "--single-item", stage)
            push(remote)  # after each stage, so that a failed job keeps its finished stages


@contextmanager
def _checkout(remote: Remote) -> Iterator[None]:
    """Within the block, connect the current folder to the DVC remote. On exit, delete DVC's local
    config file, which may contain the remote's keys."""
    from dvc.config import Config

    cache = cache_folder(remote)
    (cache / "cache").mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    for name in ("runs", "mlruns"):
        (cache / name).mkdir(exist_ok=True)
        Path(name).symlink_to(cache / name)
    os.environ["PYTHONPATH"] = str(Path.cwd())  # import this code, not an installed package
    os.environ[JOB] = "1"
    if is_local(tracking_uri()):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{cache / 'mlflow.db'}"
        print(f"MLFLOW_TRACKING_URI names no server: the cluster stores MLflow's runs in {cache}")
    try:
        LOCAL_CONFIG.touch(mode=0o600)  # the file may contain keys
        with Config(".dvc").edit("local") as config:
            config.update(remote.config(cache / "cache"))
        yield
    finally:
        LOCAL_CONFIG.unlink(missing_ok=True)


def push(remote: Remote) -> int:
    """Push the outputs of finished stages, and the run cache, to the DVC remote. In a clone,
    `dvc repro --pull` then fetches the outputs and runs no stage. Returns the number of files sent.
    Raises a `UserError` if the push fails. (`dvc push --run-cache` would skip outputs with
    `cache: false`.)"""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)  # DVC warns about stages that have not run
    try:
        with Repo() as repo:
            pushed, failed = repo.push(run_cache=True), 0
            outs = [out for stage in repo.index.stages for out in stage.outs if not out.use_cache]
            for out in filter(lambda out: out.hash_info, outs):
                out.use_cache = True  # makes DVC list the output's objects in the run cache
                for objects in out.get_used_objs().values():
                    result = repo.cloud.push(objects)
                    pushed, failed = pushed + len(result.transferred), failed + len(result.failed)
        if not failed:
            return pushed
        reason = f"{failed} files were not sent"
    except Exception as error:  # each kind of remote raises its own errors
        reason = redacted(in_a_line(error))  # the error may contain the URL
    raise UserError(redacted(remote.url), f"cannot push: {reason}", "check the URL and keys")


def _dvc(*arguments: str) -> None:
    """Run a DVC command, and exit with its code if it fails; DVC prints its own errors."""
    sys.stdout.flush()
    if code := subprocess.run((sys.executable, "-m", "dvc", *arguments), check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # `ray job stop`
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"error: {error}")
