"""A proxy in front of a real tracking server that fails as networks do."""

import contextlib
import socket
import socketserver
import threading
import time

ERROR = b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FailingProxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a port of this machine, as `mode` says: "open", "refused" (closed
    at once), "silent" (nothing comes back), "errors" (status 500 for every request) or "slow" (each
    request waits for five seconds).
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.mode, self.port = port, "open", self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(socketserver.BaseRequestHandler):
    server: FailingProxy

    def handle(self) -> None:
        proxy, client = self.server, self.request
        if proxy.mode == "refused":
            return
        with socket.create_connection(("127.0.0.1", proxy.target)) as server:
            threading.Thread(target=_pass_back, args=(server, client), daemon=True).start()
            with contextlib.suppress(OSError):  # one side closed the connection
                while data := client.recv(65536):
                    if proxy.mode == "refused":  # open connections end too
                        return
                    if proxy.mode == "errors":
                        client.sendall(ERROR)
                        return
                    while proxy.mode == "silent":
                        time.sleep(0.05)
                    if proxy.mode == "slow":
                        time.sleep(5)
                    server.sendall(data)


def _pass_back(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(65536):
            client.sendall(data)
