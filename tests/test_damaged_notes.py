"""What an outbox notes of what was sent, and the folder of all outboxes, damaged."""

import json
from pathlib import Path

import pytest
from pipeline.runtime.delivery import Delivery
from pipeline.runtime.sending import NOTHING, sent_part
from pipeline.runtime.sync import sync

from pipeline.runtime.errors import UserError
from tests.tracking_server import FakeServer, check_everything, fake_server, log_everything


@pytest.fixture
def server(monkeypatch, tmp_path) -> FakeServer:
    return fake_server(monkeypatch, tmp_path, "http://127.0.0.1:5000")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "outbox"


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b'{"run_id": 7}', b"\xff\0\0"])
def test_a_damaged_note_of_what_was_sent_stops_nothing_and_doubles_nothing(server, folder, content):
    log_everything(folder)
    sync(folder)
    for note in folder.glob("*/sent.json"):
        note.write_bytes(content)
        assert sent_part(note.parent) == NOTHING
    sync(folder)
    check_everything(server)
    assert len(server.runs) == 2


@pytest.mark.parametrize("size", [10**19, 2**62])
def test_a_note_of_more_bytes_than_the_log_has_ends_no_stage(server, folder, size):
    log_everything(folder)
    server.fails = lambda request: "down"
    for log in folder.glob("*/log.jsonl"):
        log.with_name("sent.json").write_text(
            json.dumps({"run_id": "x", "bytes": size, "database": 1})
        )
    assert "records are still to be sent" in Delivery(folder).close(patience=0.1)
    with pytest.raises(UserError, match="records are still to be sent"):
        sync(folder)


@pytest.mark.parametrize("what", ["file", "link to nowhere", "link to itself"])
def test_outboxes_that_cannot_be_listed_are_not_taken_for_none(server, folder, what):
    if what == "file":
        folder.touch()
    else:
        folder.symlink_to(folder if what.endswith("itself") else folder.with_name("none"))
    with pytest.raises(UserError, match=r"outbox cannot be read \(.*; change its"):
        sync(folder)
