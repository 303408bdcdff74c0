"""`maskgit submit`: runs the DAG, or a stage, as a job on a Ray cluster.

If the project has a default DVC remote, Ray uploads the code (without files that .gitignore lists)
as the job's working directory, and DVC transfers the data through the remote. Without a remote, the
job works in this folder, so the cluster's nodes must have the folder at the same path.
"""

import os
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
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
from pipeline.tools.job import KEY, ORDER, Order, push

START = "start a Ray head (docs/cluster.md), or give the address of a head with --address"
TOKEN = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN if ~/.ray/auth_token has no token"
AGENT = "start the head with --dashboard-agent-listen-port and a free port"
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
TRIES, PAUSE = 20, 3.0  # failed requests in a row before giving up; seconds between requests


def submit(stage: str | None, address: str) -> str:
    """Run a stage of dvc.yaml and its dependencies (or all stages, if `stage` is None) as a Ray
    job, and print the job's output. `address` is the URL of the cluster's dashboard. Returns a line
    that says where the results are. Raises a `UserError` if no cluster answers, or if the job is
    refused or fails."""
    load_params()  # refuse wrong params and stages before any upload
    stages_up_to(stage)
    client, remote = _client(address), default_remote()
    if remote and Path("dvc.lock").exists():
        print(f"{push(remote)} files pushed to {redacted(remote.url)}", flush=True)
    key, order = Order(stage, _environment(), remote).sealed()
    with tempfile.TemporaryDirectory() as empty:
        folder = Path.cwd() if remote else Path(empty)
        try:
            (folder / ORDER).write_bytes(order)  # makes each job's upload unique
            job = client.submit_job(
                entrypoint=_command(key, remote), runtime_env={"working_dir": str(folder)}
            )
        except Exception as error:  # from Ray or HTTP, or because the upload is too large
            raise _refused(address, error) from error
        finally:
            (folder / ORDER).unlink(missing_ok=True)
    print(f"job {job} on {redacted(address)}", flush=True)
    pull = f"`{' '.join(filter(None, ('dvc repro --pull', stage)))}` fetches the results"
    return _followed(client, address, job, pull if remote else "results are in this folder")


def _client(address: str) -> Any:
    server = server_of(address)
    if server is None:
        way_out = "give the dashboard's URL, such as http://host:8265"
        raise UserError("--address", f"'{redacted(address)}' is not a URL", way_out)
    if reason := why_unreachable(*server):
        raise UserError(f"the Ray dashboard at {redacted(address)}", reason, START)
    from ray.job_submission import JobSubmissionClient

    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray would prefer these, and send their passwords
    try:
        return JobSubmissionClient(address)
    except Exception as error:  # any server may answer at the address
        raise _refused(address, error) from error


def _refused(address: str, error: Exception) -> UserError:
    reason, way_out = redacted(in_a_line(error)), START
    if type(error).__name__ == "AuthenticationError":
        way_out = TOKEN
    elif "No available agent" in str(error):
        reason = "the job agent does not run; another Ray on that machine may use the agent's port"
        way_out = AGENT
    return UserError(f"Ray at {redacted(address)}", reason, way_out)


def _environment() -> dict[str, str]:
    """Environment variables for the job: this process's variables for MLflow and the object store,
    its OMP_NUM_THREADS, and the git commit, because .git is not uploaded."""
    origin, names = provenance(), (THREADS, *KEYS)
    told = {k: v for k, v in os.environ.items() if k.startswith("MLFLOW_") or k in names}
    return told | {"MASKGIT_COMMIT": origin["git.commit"], "MASKGIT_DIRTY": origin["git.dirty"]}


def _command(key: str, remote: Remote | None) -> str:
    """The shell command of the job, which runs in the job's working directory."""
    module = "-m pipeline.tools.job"
    if remote:  # with the cluster's own Python
        return f"{KEY}={key} exec python {module} ."
    folder, python = shlex.quote(str(Path.cwd())), shlex.quote(sys.executable)
    way_out = "share the folder, or name a DVC remote (`dvc remote add --default`)"
    unseen = shlex.quote(f"error: the cluster does not see {Path.cwd()}; {way_out}")
    run = f'{KEY}={key} exec {python} {module} "$OLDPWD"'
    return f"cd {folder} || {{ echo {unseen}; exit 1; }}; {run}"


def _followed(client: Any, address: str, job: str, then: str) -> str:
    """Print a job's output until the job ends; reconnect after a lost connection. Returns a line
    that ends with the text `then`, which says where the results are. Raises a `UserError` if the
    job fails, if the connection stays lost, or if the user presses Ctrl-C."""
    at, printed, lost = f"--address {redacted(address)}", 0, 0
    mode = os.environ.get("RAY_AUTH_MODE")  # set by make, so that other shells may lack it
    ray = f"RAY_AUTH_MODE={mode} ray" if mode else "ray"
    goes_on = (
        f"job {job} continues: `{ray} job logs --follow {job} {at}` shows its output, and "
        f"`{ray} job stop {job} {at}` stops the job; after the job ends, {then}"
    )
    try:
        while True:
            try:
                info, log = client.get_job_info(job), client.get_job_logs(job)
            except Exception as error:  # from Ray or HTTP
                lost += 1
                if lost == TRIES:
                    reason = redacted(in_a_line(error))
                    raise UserError(f"Ray at {redacted(address)}", reason, goes_on) from error
            else:
                log, ended, lost = _without_key(log), info.status in ENDED, 0
                whole = len(log) if ended else log.rfind("\n") + 1
                print(log[printed:whole], end="", flush=True)
                printed = max(printed, whole)
                if ended:
                    break
            time.sleep(PAUSE)
    except KeyboardInterrupt:
        raise UserError("interrupted", "", goes_on) from None
    if info.status != "SUCCEEDED":
        raise UserError(f"job {job}", f"final status {info.status}: {_reason(log, info.message)}")
    return f"job {job} has finished; {then}"


def _without_key(text: str) -> str:
    """Hide the key of the encrypted job settings: Ray's output may show it in the job's command."""
    return re.sub(rf"({KEY}=)\S+", r"\1...", text)


def _reason(log: str, message: str | None) -> str:
    """Why a job failed: the last error line that this project printed, else DVC's last error line,
    else the last line of output, else Ray's message."""
    for pattern in (r"^error: (.+)", r"^ERROR: (.+)", r"^(.*\S.*)"):
        if lines := re.findall(pattern, log, re.MULTILINE):
            return lines[-1]
    return _without_key(message or "no output")
