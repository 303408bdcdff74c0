"""Sends what stages have logged and could not send themselves: `maskgit sync`."""

import time
from pathlib import Path

from pipeline.runtime.delivery import Outboxes
from pipeline.runtime.errors import UserError, printable
from pipeline.runtime.folders import entries
from pipeline.runtime.patience import unless_late
from pipeline.runtime.server import Unsent
from pipeline.runtime.server_errors import ruined, way_out
from pipeline.runtime.uris import redacted, tracking_uri

LONGEST = 120.0  # seconds that it waits for one answer, which may come byte by byte


def sync(folder: Path) -> str:
    """Send everything in the outboxes of a folder; returns what was sent, in a line.

    Raises:
        UserError: the server does not take all, or of a run nothing can be read or sent. (Single
            records that are damaged, or refused for good, are in the line.)
    """
    _require_listed(folder)
    uri = tracking_uri()
    outboxes = Outboxes(folder, uri)
    shown, reason = redacted(uri), _why_not(outboxes)
    sent = outboxes.server.records
    # Without a reason, what is left was logged meanwhile by a stage, which sends it.
    left = outboxes.waiting() if reason else 0
    if left or (reason and ruined(str(reason))):  # it has lost what it was sent
        counted = f"{left} of {left + sent} records are still to be sent to {shown}"
        said = [f"{counted if left else f'{shown} cannot be used'}: {reason}"]
        raise UserError("; ".join([*said, way_out(str(reason)), *outboxes.left_out()]))
    said = [f"{sent} records sent to {shown}"]
    said += [f"refused for good: {reason}" for reason in outboxes.refused]
    said += [
        f"{count} wait for {other}, which MLFLOW_TRACKING_URI has to name"
        for other, count in outboxes.elsewhere().items()
    ]
    said += outboxes.left_out() + outboxes.unread()
    line = printable("; ".join(said))
    if outboxes.broken():
        raise UserError(line)
    return line


def _require_listed(folder: Path) -> None:
    """Raise a `UserError` where there is a folder of outboxes that cannot be looked into: it would
    pass for one without any."""
    try:
        entries(folder)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read ({error.strerror}); change its permissions, or move away "
            f"what lies in its place"
        ) from error


def _why_not(outboxes: Outboxes) -> Unsent | None:
    """Send what is in outboxes; why not all was sent. Nobody waits for an answer without an end."""

    def late() -> bool:
        since = outboxes.server.since
        return since is not None and time.monotonic() - since > LONGEST

    try:
        unless_late(outboxes.send, late)
    except Unsent as error:
        return error
    except TimeoutError:
        return Unsent(f"it is at one answer for more than {LONGEST:g} s")
    return None
