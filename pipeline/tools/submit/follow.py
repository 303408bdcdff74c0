"""Shows what a job prints, until it ends."""

import asyncio
import re
import time
from typing import Any

from aiohttp import ClientError

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.uris import redacted
from pipeline.tools.submit.order import KEY

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
    at = f"--address {redacted(address)}"
    goes_on = (
        f"job {job} goes on: `ray job logs --follow {job} {at}` shows it, "
        f"`ray job stop {job} {at}` ends it, and then {then}"
    )
    printed: list[str] = []
    try:
        ended = _to_its_end(client, job, printed)
    except LOST as error:
        raise UserError(
            f"Ray at {redacted(address)}: {in_a_line(error)}; unless it ended too, {goes_on}"
        ) from error
    except KeyboardInterrupt:
        raise UserError(f"interrupted; {goes_on}") from None
    if ended.status != "SUCCEEDED":
        raise UserError(f"job {job} ended as {ended.status}: {_reason(printed, ended.message)}")
    return f"job {job} has finished; {then}"


def _to_its_end(client: Any, job: str, printed: list[str]) -> Any:
    """What Ray knows of a job that has ended."""
    lost = 0
    while True:
        try:
            asyncio.run(_show(client, job, printed))
            info = client.get_job_info(job)
            if info.status in ENDED:
                return info
            lost = 0  # only its log had an end: whatever lies between closes what is long open
        except LOST:
            lost += 1
            if lost == TRIES:
                raise
        time.sleep(PAUSE)


async def _show(client: Any, job: str, printed: list[str]) -> None:
    """Print what a job has printed since: its log comes from the beginning each time."""
    known = sum(map(len, printed))
    async for text in client.tail_job_logs(job):
        new, known = text[known:], max(0, known - len(text))
        if new:
            print(re.sub(rf"({KEY}=)\S+", r"\1...", new), end="", flush=True)
            printed.append(new)


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
    return lines[-1] if lines else message or "it printed nothing"
