"""A test's own Ray head, which takes jobs, and a node that shares only the network with it."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.project import free_port

# Both sides have the same token, whatever their HOME.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Head(NamedTuple):
    address: str  # of its dashboard
    temp: Path  # its folder
    port: int


@contextmanager
def ray_head(env: dict[str, str], cpus: int = 2) -> Iterator[Head]:
    """Run a head on loopback during the block.

    Args:
        env: environment variables of the head, and so of its jobs.
    """
    # Ray notes a head's address in its folder: in one of its own, no other head is met. Two heads
    # at once would fight over these ports.
    names = ("port", "ray-client-server-port", "dashboard-port", "dashboard-agent-listen-port")
    ports = {name: free_port() for name in names}
    temp = Path(f"/tmp/rt{os.getpid()}")
    temp.mkdir(exist_ok=True)
    command = (
        *("ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1"),
        f"--num-cpus={cpus}",
        *(f"--{name}={port}" for name, port in ports.items()),
        f"--temp-dir={temp}",
    )
    log = temp / "head.log"
    head = _started(command, env | TOKEN | {"RAY_TMPDIR": str(temp)}, log)
    try:
        for name in names[2:]:  # jobs start through the agent
            _wait_for(ports[name], "127.0.0.1", log)
        yield Head(f"http://127.0.0.1:{ports['dashboard-port']}", temp, ports["port"])
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(temp, ignore_errors=True)


@contextmanager
def node_apart(
    head: Head, hidden: Path, env: dict[str, str], cpus: int = 2, number: int = 2
) -> Iterator[subprocess.Popen]:
    """Run a node of the head's cluster during the block. A folder is empty for it except for its
    HOME, if this user may change mounts; otherwise it sees the folder.

    If so, the node also has its own folder for the packages of jobs, like another machine. Nodes
    that share one unpack a package while other nodes' workers import from it.

    Args:
        env: environment variables of the node, except HOME.
        number: last number of its address, 127.0.0.<number>.
    """
    port, home, host = free_port(), hidden / f"node{number}", f"127.0.0.{number}"
    start = f"mkdir {home} && cd {home} && exec ray start --address=127.0.0.1:{head.port} --block"
    start += f" --num-cpus={cpus} --node-ip-address={host} --dashboard-agent-listen-port={port}"
    own_mounts = ("unshare", "--mount", "sh", "-c")
    packages = head.temp / "session_latest/runtime_resources"
    mount = f"mount -t tmpfs tmpfs {hidden} && mount -t tmpfs tmpfs {packages}"
    if subprocess.run((*own_mounts, mount), check=False, stderr=subprocess.DEVNULL).returncode == 0:
        command = (*own_mounts, f"{mount} && {start}")
    else:
        command = ("sh", "-c", start)
    log = head.temp / f"node{number}.log"
    node = _started(command, env | TOKEN | {"HOME": str(home), "RAY_TMPDIR": str(head.temp)}, log)
    try:
        _wait_for(port, host, log)
        yield node
    finally:
        kill_node(node)


def kill_node(node: subprocess.Popen) -> None:
    """Kill all processes of a node at once, as if its machine were lost."""
    if node.poll() is None:
        for process in (*psutil.Process(node.pid).children(recursive=True), node):
            process.kill()
        node.wait(timeout=60)


def _started(command: tuple[str, ...], env: dict[str, str], log: Path) -> subprocess.Popen:
    with open(log, "w") as out:
        return subprocess.Popen(command, env=env, stdout=out, stderr=out, start_new_session=True)


def _wait_for(port: int, host: str, log: Path) -> None:
    for _ in range(240):
        with socket.socket() as s:
            if s.connect_ex((host, port)) == 0:
                time.sleep(3)
                return
        time.sleep(0.5)
    raise AssertionError(f"nothing listens at {host}:{port}\n{log.read_text()}")
