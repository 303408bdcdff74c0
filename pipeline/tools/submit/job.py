"""The job itself, on the cluster: `python -m pipeline.tools.submit.job PACKAGE`.

Without a remote it works in the project's own folder. With one it works in a copy of the package
that Ray unpacked, which ends with it. What outlives it lies beside, for all jobs with the same
remote: DVC's cache, live checkpoints, and MLflow's runs where no server gets them.
"""

import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.config.params import load_params
from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import remove, value_hash
from pipeline.runtime.home import OWN_COPY
from pipeline.runtime.locks import lock_at
from pipeline.runtime.mlflow_sync import is_local, tracking_uri
from pipeline.runtime.process import THREADS, set_up
from pipeline.runtime.remote import Remote
from pipeline.tools.submit.order import FILE, Order
from pipeline.tools.submit.remote import LOCAL_CONFIG, push, use_remote


def main(package: Path) -> None:
    set_up()
    order = Order.opened(package)
    if os.environ.get(THREADS) == "1":  # of the actor that starts jobs, which Ray gives no CPU
        del os.environ[THREADS]  # what a stage computes would differ from home's, by rounding
    os.environ.update(order.environment)
    os.environ["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    if order.remote is None:
        _dvc("repro", *filter(None, [order.stage]))
        return
    remote = Remote(*order.remote)
    _require_seen(remote)
    with _work_folder(remote, package):
        for stage in stages_up_to(order.stage):
            # One that ran elsewhere is pulled whole: the next may show more of it than it depends
            # on, as a training does that logs decoded pictures.
            _dvc("repro", "--pull", "--single-item", stage)
            push(remote)  # at once: what is finished is kept, whatever becomes of the job


def _require_seen(remote: Remote) -> None:
    if "://" not in remote.url and not Path(remote.url).is_dir():
        raise UserError(
            f"there is no {remote.url} on the cluster, which is the DVC remote '{remote.name}'; "
            f"name one that every machine sees, or make the folder there"
        )


@contextmanager
def _work_folder(remote: Remote, package: Path) -> Iterator[None]:
    """Work in a copy of the package, which is gone afterwards with the keys of the remote in it;
    what a job that was killed has left of its own, the next one removes."""
    kept = kept_folder(remote)
    for name in ("cache", "runs", "mlruns", "jobs"):
        (kept / name).mkdir(parents=True, exist_ok=True)
    kept.chmod(0o700)
    folder = kept / "jobs" / f"{platform.node()}-{package.resolve().name}"
    with _lock_of(folder):
        _remove_left(folder.parent)
        try:
            shutil.copytree(package, folder, ignore=shutil.ignore_patterns(FILE))
            os.chdir(folder)
            for name in ("runs", "mlruns"):
                Path(name).symlink_to(kept / name)
            _keep_runs(load_params().ray.folder, kept / "runs")
            use_remote(remote, kept / "cache")
            os.environ["PYTHONPATH"] = str(folder)  # this code, whatever is installed here
            os.environ[OWN_COPY] = "1"  # which nodes that join later do not see
            if is_local(tracking_uri()):
                os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{kept / 'mlflow.db'}"
                print(f"MLFLOW_TRACKING_URI names no server: MLflow's runs stay here, in {kept}")
            yield
        finally:
            (folder / LOCAL_CONFIG).unlink(missing_ok=True)  # first: little time may be left
            shutil.rmtree(folder, ignore_errors=True)
            Path(_lock_of(folder).lock_file).unlink(missing_ok=True)


def _lock_of(folder: Path) -> FileLock:
    """Held by the job that works in a folder, for as long as it lives."""
    return lock_at(folder.with_name(f"{folder.name}.lock"))


def _remove_left(jobs: Path) -> None:
    """Remove what jobs left that were killed on this machine, on which alone a lock may hold."""
    for folder in filter(Path.is_dir, jobs.glob(f"{platform.node()}-*")):
        with suppress(Timeout), (lock := _lock_of(folder)).acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def _keep_runs(folder: str, kept: Path) -> None:
    """Let run directories lie in the kept folder, wherever in the project the params have them."""
    place = Path(os.path.normpath(folder))
    if not place.is_absolute() and place.parts[0] not in ("runs", "mlruns", ".."):
        place.parent.mkdir(parents=True, exist_ok=True)
        remove(place)  # what git knows there
        place.symlink_to(kept)


def kept_folder(remote: Remote) -> Path:
    """What this machine keeps for jobs with that remote; it may be deleted."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches, "maskgit", value_hash(remote.url)[:16]).absolute()


def _dvc(*arguments: str) -> None:
    """Run DVC, which prints what goes wrong."""
    sys.stdout.flush()
    if code := subprocess.run((sys.executable, "-m", "dvc", *arguments), check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # `ray job stop`
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"error: {error}")
