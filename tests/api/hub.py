"""A Hugging Face Hub of one repository on loopback: as much of it as its client asks for to
download."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextlib.contextmanager
def hub(repository: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder as that repository; the address, and the files that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            marker = f"/{repository}/resolve/{COMMIT}/"
            if path.startswith(f"/api/models/{repository}/tree/"):
                self._answer(json.dumps(_tree(folder)).encode())
            elif path.startswith(f"/api/models/{repository}"):
                self._answer(json.dumps(_listing(repository, folder)).encode())
            elif path.startswith(marker) and (folder / path.removeprefix(marker)).is_file():
                asked.append(path.removeprefix(marker))
                self._answer((folder / path.removeprefix(marker)).read_bytes())
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.end_headers()

        do_HEAD = do_GET

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def _files(folder: Path) -> dict[str, Path]:
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {f.relative_to(folder).as_posix(): f for f in files}


def _listing(repository: str, folder: Path) -> dict:
    siblings = [{"rfilename": name} for name in _files(folder)]
    return {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}


def _tree(folder: Path) -> list[dict]:
    return [
        {"type": "file", "path": name, "size": file.stat().st_size, "oid": name}
        for name, file in _files(folder).items()
    ]
