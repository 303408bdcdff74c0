"""Shows what a job prints, until it ends."""

import asyncio
import os
import re
import time
from typing import Any

from aiohttp import ClientError

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.secrets import redacted
from pipeline.tools.submit.order import KEY

PREFERRED = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # by Ray, to the address that it is given
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
LOST = (RuntimeError, OSError, ClientError)
TRIES, PAUSE = 12, 5.0  # times that a connection is lost in a row, and the seconds between


def followed(client: Any, address: str, job: str, then: str) -> str:
    """Show what a job prints until it ends; returns a closing line. Where the connection is lost
    (a tunnel's, say), the job goes on, and is looked for again.

    Args:
        client: Ray's; address: of its dashboard.
        then: how the results come here.

    Raises:
        UserError: the job did not end well, it is found no more, or Ctrl-C.
    """
    at, ray = f"--address {redacted(address)}", "ray"
    if overrides := [f"-u {name}" for name in PREFERRED if name in os.environ]:
        ray = f"env {' '.join(overrides)} ray"
    goes_on = (
        f"job {job} goes on: `{ray} job logs --follow {job} {at}` shows it, "
        f"`{ray} job stop {job} {at}` ends it, and then {then}"
    )
    printed: list[str] = []
    try:
        ended = _to_its_end(client, job, printed)
    except LOST as error:
        raise UserError(
            f"Ray at {redacted(address)}",
            redacted(in_a_line(error)),
            f"unless it ended too, {goes_on}",
        ) from error
    except _NotShown as error:
        raise error.reason from None
    except KeyboardInterrupt:
        raise UserError(f"interrupted; {goes_on}") from None
    if ended.status != "SUCCEEDED":
        raise UserError(f"job {job} ended as {ended.status}: {_reason(printed, ended.message)}")
    return f"job {job} has finished; {then}"


def _to_its_end(client: Any, job: str, printed: list[str]) -> Any:
    """What Ray knows of a job that has ended."""
    lost = 0
    while True:
        known = len(printed)
        try:
            asyncio.run(_show(client, job, printed))
            info = client.get_job_info(job)
            if info.status in ENDED:
                return info
            lost = 0  # a proxy closed an idle connection; the job still runs
        except LOST:
            lost = lost + 1 if len(printed) == known else 1
            if lost == TRIES:
                raise
        time.sleep(PAUSE)


async def _show(client: Any, job: str, printed: list[str]) -> None:
    """Print what a job has printed since: its log comes from the beginning each time."""
    known = sum(map(len, printed))
    async for text in client.tail_job_logs(job):
        new, known = text[known:], max(0, known - len(text))
        if new:
            printed.append(new)
            try:
                print(_shown(new), end="", flush=True)
            except OSError as error:
                raise _NotShown(error) from None


class _NotShown(Exception):
    """What cannot be printed here is no connection that was lost.

    Args:
        reason: as the reader that has left, or the full disk.
    """

    def __init__(self, reason: OSError):
        super().__init__(str(reason))
        self.reason = reason


def _shown(text: str) -> str:
    """The text without the key to the order, which is in the job's command."""
    return re.sub(rf"({KEY}=)\S+", r"\1...", text)


def _reason(printed: list[str], message: str | None) -> str:
    """The last error that the job printed: a stage's or ours, else DVC's, else its last line.

    Args:
        message: what Ray says, where the job printed nothing.
    """
    lines = [line for line in "".join(printed).splitlines() if line.strip()]
    for start in ("error: ", "ERROR: "):
        for line in reversed(lines):
            if line.startswith(start):
                return line.removeprefix(start)
    return _shown(lines[-1] if lines else message or "it printed nothing")
