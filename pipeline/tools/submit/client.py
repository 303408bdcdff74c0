"""Submits a job.

Where the project has a default DVC remote, the job needs nothing else of this machine: the code
travels as Ray's working directory, data through the remote. Without one it works in this folder,
which the cluster has to see under the same path.
"""

import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline.config.params import load_params
from pipeline.runtime.dag import stages_up_to
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.node_checkout import KEYS, Remote, default_remote
from pipeline.runtime.process import THREADS
from pipeline.runtime.ray_cluster import why_unreachable
from pipeline.runtime.runs import provenance
from pipeline.runtime.secrets import redacted, server_of
from pipeline.tools.submit.follow import PREFERRED, followed
from pipeline.tools.submit.order import KEY, Order
from pipeline.tools.submit.package import tracked_files, write_package
from pipeline.tools.submit.remote import push

JOB = "pipeline.tools.submit.job"
CONNECT = 20.0  # seconds that a dashboard may take to answer


def submit(stage: str | None, address: str) -> str:
    """Run stages as a job, showing what it prints; returns a closing line.

    Args:
        stage: of dvc.yaml, with what it needs; None for all.
        address: of the cluster's dashboard, as http://127.0.0.1:8265.

    Raises:
        UserError: there is no cluster, it refuses the job, or the job failed.
    """
    load_params()  # wrong values and stages are refused before anything travels
    stages_up_to(stage)
    client = _client(address)
    remote = default_remote()
    if remote and Path("dvc.lock").exists():
        print(f"{push(remote)} files pushed to {redacted(remote.url)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "package.zip")
        key, order = Order(stage, _environment(), remote).sealed()
        write_package(package, tracked_files() if remote else (), order)
        job = _submitted(client, address, _command(key, remote), package)
    print(f"job {job} on {redacted(address)}", flush=True)
    return followed(client, address, job, _home(stage) if remote else "its results are here")


def _client(address: str) -> Any:
    place = server_of(address)
    if place is None:
        raise UserError(
            f"--address: '{redacted(address)}' is no address of a dashboard, as http://host:8265"
        )
    way_out = "start a head with `ray start --head`, or give the address of one with --address"
    if reason := why_unreachable(*place):
        raise UserError(f"there is no Ray dashboard at {redacted(address)}: {reason}; {way_out}")
    from ray.job_submission import JobSubmissionClient

    connected: Future[Any] = Future()

    def connect() -> None:
        try:
            connected.set_result(JobSubmissionClient(address))
        except BaseException as error:
            connected.set_exception(error)

    try:
        with _without(PREFERRED):  # in a thread, since Ray itself would wait for ever
            Thread(target=connect, daemon=True).start()
            return connected.result(timeout=CONNECT)
    except TimeoutError:
        raise UserError(
            f"what is at {redacted(address)} did not answer in {CONNECT:g} s; {way_out}"
        ) from None
    except Exception as error:  # whatever it is that answers there
        if type(error).__name__ == "AuthenticationError":
            way_out = (
                "set RAY_AUTH_MODE=token, and give its token in RAY_AUTH_TOKEN or in "
                "~/.ray/auth_token"
            )
        raise UserError(
            f"Ray at {redacted(address)}: {redacted(in_a_line(error))}; {way_out}"
        ) from error


@contextmanager
def _without(names: Iterable[str]) -> Iterator[None]:
    """Let variables be unset while the block runs."""
    were = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(were)


def _environment() -> dict[str, str]:
    """What the job's stages are told: of MLflow and the object store, of the threads that they
    would have here, and of the commit where .git does not travel."""
    origin = provenance()
    names = (THREADS, *KEYS)
    told = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_") or k in names}
    return told | {"MASKGIT_COMMIT": origin["git.commit"], "MASKGIT_DIRTY": origin["git.dirty"]}


def _command(key: str, remote: Remote | None) -> str:
    """The job's command, which a shell runs in the package."""
    if remote:  # with the cluster's own Python
        return f"{KEY}={key} exec python -m {JOB} ."
    folder, python = shlex.quote(str(Path.cwd())), shlex.quote(sys.executable)
    unseen = shlex.quote(
        f"error: the cluster does not see {Path.cwd()}; share the folder, or name a DVC remote "
        f"(`dvc remote add --default`), through which data travel"
    )
    return (
        f'cd {folder} || {{ echo {unseen}; exit 1; }}; {KEY}={key} exec {python} -m {JOB} "$OLDPWD"'
    )


def _submitted(client: Any, address: str, command: str, package: Path) -> str:
    try:
        environment = {"working_dir": str(package)}
        return client.submit_job(entrypoint=command, runtime_env=environment)
    except (RuntimeError, OSError) as error:
        raise UserError(f"Ray at {redacted(address)}: {redacted(in_a_line(error))}") from error


def _home(stage: str | None) -> str:
    return f"`{' '.join(filter(None, ('dvc repro --pull', stage)))}` takes its results"
