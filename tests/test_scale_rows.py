"""The file of rows of `scale`: what is one, and who adds to it."""

import os
from pathlib import Path

import pytest

from pipeline.runtime.errors import UserError
from pipeline.tools.scale.rows import CELL, RUN, Rows, rows_of


def test_a_file_that_ends_within_its_header_is_begun_anew(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("network,tok")
    assert Rows(path).columns == [] and path.read_text() == ""
    with pytest.raises(UserError, match="holds no rows"):
        path.write_text("network,tokens\n")
        Rows(path)


def test_a_last_row_without_an_end_is_named(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    whole = ",".join((*CELL, RUN)) + "\n"
    path.write_text(whole + "cosine,1")
    Rows(path)
    assert path.read_text() == whole
    assert (
        "rows.csv: its last line has no end, as after a kill, and is removed"
        in capsys.readouterr().out
    )


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none/rows.csv", Path("/proc/rows.csv")):
        with pytest.raises(UserError, match="name another"), rows_of(path):
            pass


def test_a_file_of_something_else_stays_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    header = ",".join((*CELL, RUN, "nll"))
    others = (
        *(b"mine\nwithout a last line end", b"mine", b"\x89PNG"),
        *(header.encode() + end for end in (b"\rcosine,1\r", b"\r")),  # as of old Macs
        *(b"n", b"network", b"networks", b"network passwords of the office", b"network,tokens,x"),
        f"{header}\n{'x' * 200_000},1\n".encode(),  # a field that csv does not take
    )
    for content in others:
        path.write_bytes(content)
        with pytest.raises(UserError, match="holds no rows"):
            Rows(path)
        assert path.read_bytes() == content


def test_a_second_process_and_another_extractor_are_told_before_anything_is_trained(tmp_path):
    path = tmp_path / "rows.csv"
    with rows_of(path) as rows:
        rows.append(dict.fromkeys((*CELL, RUN), 1) | {"fid_classifier": 2.0})
        with pytest.raises(UserError, match="another process adds to"), rows_of(path):
            pass
    wanted = [*CELL, RUN, "fid_inception"]
    with rows_of(path) as rows, pytest.raises(UserError, match="has no fid_inception: its cells"):
        rows.require(wanted)
    assert path.read_text().count("network") == 1
