"""A proxy before a real tracking server, which fails as networks do."""

import contextlib
import socket
import socketserver
import threading
import time

ERROR = b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class FailingProxy:
    """Passes connections on to a port of this machine, as `mode` says: "open", "refused" (closed
    at once), "silent" (nothing comes back), "errors" (status 500 for every request) or "slow" (each
    request waits for five seconds).
    """

    def __init__(self, port: int):
        self.target, self.mode = port, "open"
        self._connections: list[socket.socket] = []
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                proxy._pass_on(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Also what is on its way: a server that waits for the rest of a request does not end."""
        self.server.shutdown()
        self.server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, client: socket.socket) -> None:
        if self.mode == "refused":
            return
        with socket.create_connection(("127.0.0.1", self.target)) as server:
            self._connections += (client, server)
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()
            while data := _receive(client):
                if self.mode == "refused":  # connections that were open end too
                    return
                if self.mode == "errors":
                    client.sendall(ERROR)
                    return
                while self.mode == "silent":
                    time.sleep(0.05)
                if self.mode == "slow":
                    time.sleep(5)
                with contextlib.suppress(OSError):  # closed meanwhile, as the client is told next
                    server.sendall(data)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        while data := _receive(server):
            try:
                client.sendall(data)
            except OSError:
                return


def _receive(source: socket.socket) -> bytes:
    try:
        return source.recv(65536)
    except OSError:
        return b""
