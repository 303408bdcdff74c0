"""Finds a free port for a server."""

import socket

from pipeline.runtime.errors import UserError


def free_port(host: str, port: int | None, usual: int) -> int:
    """Return `port` if it is free. If `port` is None, return the port `usual` if it is free, else
    any free port. Raises a `UserError` if `host` is empty or not an address of this machine, or if
    `port` is taken."""
    if not host:  # sockets would listen on all addresses
        raise UserError("--host", "an empty host would listen on all addresses", "give 127.0.0.1")
    for number in (usual, 0) if port is None else (port,):
        try:
            with socket.create_server((host, number)) as probe:
                return probe.getsockname()[1]
        except OSError as error:
            reason = str(error.strerror).partition(" (while")[0]
    wanted = host if port is None else f"{host}, port {port}"
    raise UserError(f"cannot listen on {wanted}", reason, "give another host or port")
