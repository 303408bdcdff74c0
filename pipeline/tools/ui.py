"""`maskgit ui` and `make ui`: prints links to the runs, then runs MLflow's server."""

import os
import sys
from typing import Any
from urllib.parse import quote

from pipeline.config.params import load_params
from pipeline.runtime.errors import UserError
from pipeline.runtime.mlflow_sync import Server, Unsent, sqlite_file, tracking_uri, way_out
from pipeline.runtime.secrets import redacted, server_of
from pipeline.tools.ports import free_port

HOST, PORT = "127.0.0.1", 5000
# Without the type, MLflow opens an experiment on "Traces", a page for language models.
RUNS = "{server}/#/experiments/{experiment}/runs?workflowType=machine_learning"
# Sorted by name, child runs are listed separately, not folded below their parents.
CHARTS = RUNS + "&compareRunsMode=CHART&orderByKey={by_name}&orderByAsc=true&searchFilter={filter}"
BY_NAME = quote("tags.`mlflow.runName`")


def links(uri: str, server: str, name: str, seed: int) -> dict[str, str]:
    """Links to MLflow's pages, by title: all runs of the experiment `name`, and charts of the
    newest sweep, as in Figure 8. MLflow draws only ten runs by default, so the charts are limited
    to the trials with one seed, `seed`. Raises a `UserError` if the experiment does not exist, or
    if the tracking store does not answer.

    Args:
        uri: URI of the tracking store.
        server: URL of the MLflow server that shows the store.
    """
    file, store, subject = sqlite_file(uri), Server(uri), f"MLflow at {redacted(uri)}"
    latest: Any = {"order_by": ["attributes.start_time DESC"], "max_results": 1}
    query = "attributes.run_name = 'sweep'"
    try:
        found = None
        if file is None or file.exists():
            found = store.ask(lambda client: client.get_experiment_by_name(name))
        if not found:
            reason = f"the experiment '{name}' does not exist yet"
            raise UserError(subject, reason, "log a first run with `dvc repro`")
        where = [found.experiment_id]
        sweeps = store.ask(lambda client: client.search_runs(where, query, **latest))
    except Unsent as error:
        mend = way_out(str(error)) if file else "start MLflow, or unset MLFLOW_TRACKING_URI"
        raise UserError(subject, f"no answer ({error})", mend) from None
    place = {"server": server, "experiment": found.experiment_id}
    opened = {"all runs": RUNS.format(**place)}
    if sweeps:
        trials = f"tags.`mlflow.parentRunId` = '{sweeps[0].info.run_id}' AND params.seed = '{seed}'"
        opened["Figure 8"] = CHARTS.format(by_name=BY_NAME, filter=quote(trials), **place)
    return opened


def main() -> None:
    """Print the links, then replace this process by MLflow's server, unless MLFLOW_TRACKING_URI
    names a server."""
    uri, params = tracking_uri(), load_params()
    remote = server_of(uri) is not None
    server = uri if remote else f"http://{HOST}:{free_port(HOST, None, PORT)}"
    found = links(uri, redacted(server), params.mlflow.experiment, params.sweep.seeds[0])
    for what, link in found.items():
        print(f"{what + ':':<10} {link}", flush=True)
    if not remote:
        os.environ["MLFLOW_BACKEND_STORE_URI"] = uri
        # Six processes for language model jobs would keep running for seconds after Ctrl-C.
        os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        os.environ["PYTHONWARNINGS"] = "ignore"  # hides warnings of libraries
        # One worker is enough for one user. Without "lifespan" events, which nothing here needs,
        # Ctrl-C stops the server without tracebacks.
        at = ("--host", HOST, "--port", server.rpartition(":")[2], "--workers", "1")
        quiet = ("--uvicorn-opts", "--log-level warning --lifespan off")
        os.execv(sys.executable, (sys.executable, "-m", "mlflow", "ui", *at, *quiet))
