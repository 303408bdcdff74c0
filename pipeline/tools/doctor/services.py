"""What a run talks to: Ray and the tracking server."""

from importlib import metadata

from pipeline.runtime.server import damage_of
from pipeline.runtime.server_errors import HOSTED, fault_of, mend_file
from pipeline.runtime.uris import redacted, server_of, sqlite_file, tracking_uri
from pipeline.tools.doctor.finding import Finding


def ray() -> Finding:
    from pipeline.runtime.cluster import cluster_address, why_no_cluster

    version, address = f"Ray {metadata.version('ray')}", cluster_address()
    if reason := why_no_cluster(address):
        way_out = "start it (docs: Ray), or unset RAY_ADDRESS to run on this machine"
        return Finding("Ray", "fails", f"{version}; RAY_ADDRESS {address}: {reason}", way_out)
    found = f"{address} answers" if ":" in address else address or "each stage starts its own here"
    return Finding("Ray", "good", f"{version}; {found}")


def tracking() -> Finding:
    from pipeline.runtime.cluster import why_unreachable

    version, uri = f"MLflow {metadata.version('mlflow')}", tracking_uri()
    if fault := fault_of(uri):
        return Finding("tracking", "note", f"{version}; {redacted(uri)} {fault[0]}", fault[1])
    if (file := sqlite_file(uri)) is not None:
        if not file.absolute().parent.exists():
            found = f"{version}; {redacted(uri)}: its folder is new, a run makes it"
            return Finding("tracking", "note", found, "mend MLFLOW_TRACKING_URI if it is a slip")
        if damage := damage_of(file):
            found = f"{version}; {redacted(uri)}: {damage}"
            return Finding("tracking", "note", found, mend_file(file))
        return Finding("tracking", "good", f"{version}; {redacted(uri)}")
    place = server_of(uri)
    if uri.startswith(HOSTED):
        way_out = "give it the credentials that `databricks configure` asks for, if it lacks them"
        found = f"{version}; {redacted(uri)}: its credentials are not looked at here"
        return Finding("tracking", "note", found, way_out)
    if place is None:
        return Finding("tracking", "good", f"{version}; {redacted(uri)}")
    if reason := why_unreachable(*place):
        found = f"{version}; {redacted(uri)}: {reason}"
        way_out = "runs go on and keep what they log; `maskgit sync` sends it once it answers"
        return Finding("tracking", "note", found, way_out)
    return Finding("tracking", "good", f"{version}; {redacted(uri)} answers")
