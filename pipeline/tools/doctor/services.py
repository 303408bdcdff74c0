"""What a run talks to: Ray and the tracking server."""

from importlib import metadata

from pipeline.runtime.mlflow_sync import tracking_uri
from pipeline.runtime.secrets import redacted, server_of
from pipeline.tools.doctor.finding import Finding


def ray() -> Finding:
    from pipeline.runtime.ray_cluster import cluster_address, why_no_cluster

    version, address = f"Ray {metadata.version('ray')}", cluster_address()
    if reason := why_no_cluster(address):
        way_out = "start it (docs: Ray), or unset RAY_ADDRESS to run on this machine"
        return Finding("Ray", "fails", f"{version}; RAY_ADDRESS {address}: {reason}", way_out)
    found = f"{address} answers" if ":" in address else address or "each stage starts its own here"
    return Finding("Ray", "good", f"{version}; {found}")


def tracking() -> Finding:
    from pipeline.runtime.ray_cluster import why_unreachable

    uri = tracking_uri()
    shown, place = redacted(uri), server_of(uri)
    found = f"MLflow {metadata.version('mlflow')}; {shown}"
    if uri.startswith("http") and place is None:
        return Finding(
            "tracking", "note", f"{found} is not an address", "correct MLFLOW_TRACKING_URI"
        )
    if place and (reason := why_unreachable(*place)):
        way_out = "runs go on and keep what they log; `maskgit sync` sends it once it answers"
        return Finding("tracking", "note", f"{found}: {reason}", way_out)
    return Finding("tracking", "good", f"{found} answers" if place else found)
