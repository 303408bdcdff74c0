"""What a user can do where MLflow does not answer, or refuses."""

import os

from pipeline.runtime.server import OUTDATED, status
from pipeline.runtime.uris import is_local, redacted, sqlite_file, tracking_uri

# What SQLite says of a file that is no database, is cut off, or lacks what a database began with,
# or of one that MLflow has half made in the place of one just deleted; and Python of one whose
# texts are none.
RUINED = (
    *("file is not a database", "disk image is malformed", "no such table"),
    *("has no column named", "no such column", "codec can't decode", "_alembic_tmp_"),
)
DELETED = "must be in the 'active' state"  # what MLflow says of an experiment


def ruined(reason: str) -> bool:
    """Whether what does not answer is a file that is no database, or no file."""
    file = sqlite_file(tracking_uri())
    odd = file is not None and os.path.lexists(file) and not file.is_file()
    return odd or any(said in reason for said in RUINED)


def way_out(reason: str) -> str:
    """What to do where MLflow does not answer, or refuses for that reason."""
    if DELETED in reason:
        return "restore it, or choose another mlflow.experiment in params.yaml, and run this again"
    if not is_local(tracking_uri()):
        if status(reason) in (401, 403):
            return (
                "give it MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN, and run this again"
            )
        return "start the server and run this again"
    if ruined(reason):
        return (
            f"{sqlite_file(tracking_uri())} is damaged: delete it, or put a whole copy in its "
            f"place, and `maskgit sync` sends what is kept"
        )
    if OUTDATED in reason:
        return (
            f"make a copy of it, and `mlflow db upgrade {redacted(tracking_uri())}` brings it to "
            f"this MLflow"
        )
    return "run this again"
