"""Finds a free port for a server."""

import socket

from pipeline.runtime.errors import UserError


def free_port(host: str, port: int | None, usual: int) -> int:
    """A port that is free.

    Args:
        port: the one that is wanted; None for the usual, or any where that is taken.

    Raises:
        UserError: there is no such host here, or the port is taken.
    """
    if not host:  # the system takes it for all addresses
        raise UserError("--host", "an empty one stands for all addresses", "give 127.0.0.1")
    for number in (usual, 0) if port is None else (port,):
        try:
            with socket.create_server((host, number)) as probe:
                return probe.getsockname()[1]
        except (UnicodeError, TypeError):  # what no host can be called
            reason = "there is no such host"
        except OSError as error:
            reason = str(error.strerror).partition(" (while")[0]
    wanted = host if port is None else f"{host}, port {port}"
    raise UserError(f"cannot listen on {wanted}", reason, "give another host or port")
