"""The job itself, on the cluster: `python -m pipeline.tools.submit.job PACKAGE`.

Without a remote it works in the project's own folder. With one it works in the package that Ray
unpacked. What outlives it lies beside, for all jobs with the same remote: DVC's cache, run
directories, and MLflow's runs where no server gets them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.mlflow_sync import is_local, tracking_uri
from pipeline.runtime.node_checkout import JOB, Remote, cache_folder
from pipeline.runtime.process import THREADS, set_up
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
    remote = order.remote
    if "://" not in remote.url and not Path(remote.url).is_dir():
        raise UserError(
            f"the DVC remote '{remote.name}'",
            f"the cluster has no folder {remote.url}",
            "name a remote that every machine reaches, or make the folder there",
        )
    (package / FILE).unlink()
    with _checkout(remote):
        for stage in stages_up_to(order.stage):
            # One that ran elsewhere is pulled whole: the next may show more of it than it depends
            # on, as a training does that logs decoded pictures.
            _dvc("repro", "--pull", "--single-item", stage)
            push(remote)  # at once: what is finished is kept, whatever becomes of the job


@contextmanager
def _checkout(remote: Remote) -> Iterator[None]:
    """Let the current folder work with the remote, whose keys are removed from it afterwards."""
    kept = cache_folder(remote)
    for name in ("cache", "runs", "mlruns"):
        (kept / name).mkdir(parents=True, exist_ok=True)
    kept.chmod(0o700)
    for name in ("runs", "mlruns"):
        Path(name).symlink_to(kept / name)
    os.environ["PYTHONPATH"] = str(Path.cwd())  # this code, whatever is installed here
    os.environ[JOB] = "1"
    if is_local(tracking_uri()):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{kept / 'mlflow.db'}"
        print(f"MLFLOW_TRACKING_URI names no server: MLflow's runs stay here, in {kept}")
    try:
        use_remote(remote, kept / "cache")
        yield
    finally:
        LOCAL_CONFIG.unlink(missing_ok=True)


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
