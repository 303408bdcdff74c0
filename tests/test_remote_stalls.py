"""A DVC remote that is slow, silent or refuses files: how long a node waits for it."""

import hashlib
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest

from pipeline.runtime import remote_files as module
from pipeline.runtime.home import Stamp
from pipeline.runtime.remote import Output, default_remote, output_at
from pipeline.runtime.remote_files import RemoteFiles
from tests.pushed_project import MADE, configure, pushed_project


@pytest.fixture
def folder(objects, tmp_path, monkeypatch) -> Path:
    """The project, which is the working directory."""
    pushed_project(tmp_path / "project", monkeypatch)
    return tmp_path / "project"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("name", ["data/images", "data/table.csv"])
def test_a_remote_that_does_not_answer_is_waited_for_no_longer_than_it_may(
    folder, monkeypatch, capsys, silent, name
):
    """Neither for the list of a folder's files nor for a file."""
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    configure(endpointurl=silent)
    output, files, began = output_at(folder, name), RemoteFiles(), time.monotonic()
    for _ in range(2):  # and is asked once
        assert files.fetched(output, folder.parent / "there", {"": Stamp(8, 1)}) == []
    assert time.monotonic() - began < 10
    assert capsys.readouterr().out.count("nothing came in 1 s") == 1


def test_an_answer_that_stops_in_the_middle_is_no_longer_waited_for(folder, monkeypatch, capsys):
    stored = module._Stored(output_at(folder, "data/images"))
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    monkeypatch.setattr(module, "_Stored", lambda output: stored)

    def stops(place: str, path: str, callback: Any, **options: Any) -> None:
        callback.relative_update(1)
        if place == stored._objects.oid_to_path(stored.hashes["a.bin"]):
            Path(path).write_bytes(b"pixels")
        else:
            time.sleep(60)

    monkeypatch.setattr(stored._files, "get_file", stops)
    wanted = {name: Stamp(len(content), 1) for name, content in MADE.items()}
    began, there = time.monotonic(), folder.parent / "there"
    found = RemoteFiles().fetched(output_at(folder, "data/images"), there, wanted)
    assert found == ["a.bin"] and time.monotonic() - began < 10


class Slow(BaseHTTPRequestHandler):
    """Gives a file of 120 MiB at 60 MB/s."""

    size, line = 120 * 2**20, Lock()

    def do_HEAD(self) -> None:
        self._begin(200, self.size)

    def do_GET(self) -> None:
        whole = f"bytes=0-{self.size - 1}"
        first, last = map(int, re.findall(r"\d+", self.headers.get("Range", whole)))
        left = min(last, self.size - 1) - first + 1
        self._begin(206, left)
        with suppress(OSError):
            while left > 0:
                left -= self.wfile.write(bytes(min(left, 2**20)))
                with self.line:
                    time.sleep(2**20 / 60e6)

    def _begin(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_large_file_that_comes_slowly_is_waited_for(folder, monkeypatch):
    """S3's client would fetch parts of 50 MiB side by side, and tell when all are there."""
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    there, md5 = folder.parent / "there", hashlib.md5(bytes(Slow.size)).hexdigest()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        configure(endpointurl=f"http://127.0.0.1:{server.server_port}")
        output = Output(default_remote(), md5)
        found = RemoteFiles().fetched(output, there, {"": Stamp(Slow.size, 1)})
        server.shutdown()
    assert found == [""] and there.stat().st_size == Slow.size


@pytest.mark.parametrize("how", ["set_size", "relative_update", "absolute_update"])
def test_however_a_store_tells_of_what_came_it_has(how):
    arrivals = module._arrivals()
    arrivals.last = 0
    getattr(arrivals, how)(5)
    assert arrivals.last > 0


def refusing(stored: Any, names: set[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the remote refuse files; which it was asked for."""
    fetch, asked = stored.fetch, list[str]()

    def refuses(name: str, *rest: Any) -> None:
        asked.append(name)
        if name in names:
            raise module.NotGiven("503: slow down")
        fetch(name, *rest)

    monkeypatch.setattr(stored, "fetch", refuses)
    monkeypatch.setattr(module, "_Stored", lambda output: stored)
    return asked


def test_a_file_that_is_refused_is_no_end_of_the_others(folder, monkeypatch, capsys):
    output = output_at(folder, "data/images")
    asked = refusing(module._Stored(output), {"a.bin"}, monkeypatch)
    wanted = {name: Stamp(len(content), 1) for name, content in MADE.items()}
    files = RemoteFiles()
    assert sorted(files.fetched(output, folder.parent / "there", wanted)) == ["empty", "in/b ü.bin"]
    assert sorted(asked) == sorted(MADE) and not files.away
    assert "503: slow down" in capsys.readouterr().out


def test_a_remote_that_refuses_one_after_the_other_is_asked_no_more(folder, monkeypatch, capsys):
    output = output_at(folder, "data/images")
    stored, wanted = module._Stored(output), {f"{number}": Stamp(1, 1) for number in range(200)}
    stored.hashes = dict.fromkeys(wanted, "0" * 32)
    asked, files = refusing(stored, set(wanted), monkeypatch), RemoteFiles()
    assert files.fetched(output, folder.parent / "there", wanted) == [] and files.away
    assert module.REFUSED <= len(asked) < module.REFUSED + module.AT_ONCE
    assert len(capsys.readouterr().out.splitlines()) == 1
