"""A Ray head of a test's own, that takes jobs."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.project import free_port

# Both sides have the same token, wherever their HOME is.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


@contextmanager
def ray_head(env: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """A head on loopback while the block runs: its dashboard's address, and its folder.

    Args:
        env: of the head, and so of its jobs.
    """
    # Ray notes a head's address in its folder: in one of its own, no other head is met. Two that
    # are up at once would fight over the agent's port.
    names = ("port", "dashboard-port", "dashboard-agent-listen-port")
    ports = {name: free_port() for name in names}
    temp = Path(f"/tmp/rt{os.getpid()}")
    head = subprocess.Popen(
        [
            *("ray", "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"),
            *(f"--{name}={port}" for name, port in ports.items()),
            f"--temp-dir={temp}",
        ],
        env=env | TOKEN | {"RAY_TMPDIR": str(temp)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for name in names[1:]:  # jobs start through the agent
            _wait_for(ports[name])
        yield f"http://127.0.0.1:{ports['dashboard-port']}", temp
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(temp, ignore_errors=True)


def _wait_for(port: int) -> None:
    for _ in range(120):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(3)
                return
        time.sleep(0.5)
    raise AssertionError(f"no head on port {port}")
