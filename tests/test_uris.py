"""A password in the address of a tracking server, however it is written there."""

from pathlib import Path

import pytest
from pipeline.runtime.uris import (
    OWN,
    is_place,
    recorded_uri,
    redacted,
    scrubbed,
    shown_uri,
    tracking_uri,
)

from pipeline.runtime.errors import UserError


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:s3cr%2Ft@host:1/a", "http://user:***@host:1/a"),
        ("postgresql://user:s3cr%2Ft@host/db", "postgresql://user:***@host/db"),
        ("user:s3cr%2Ft@host:1", "user:***@host:1"),
        (
            "postgresql://host/db?user=me&password=s3cr%2Ft",
            "postgresql://host/db?user=me&password=***",
        ),
        (
            "postgresql://host/db?sslPassword=s3cr%2Ft&a=b#c",
            "postgresql://host/db?sslPassword=***&a=b#c",
        ),
        ("mysql://host/db?access_token=s3cr%2Ft", "mysql://host/db?access_token=***"),
        ("mysql://host/db?user=me;pwd=s3cr%2Ft", "mysql://host/db?user=me;pwd=***"),
        ("http://host/?sv=1&sig=s3cr%2Ft", "http://host/?sv=1&sig=***"),
        ("mssql://?odbc_connect=DRIVER%3DX%3BPWD%3Ds3cr%2Ft", "mssql://?odbc_connect=***"),
        ("https://s3cr%2Ft@host:1/a", "https://***@host:1/a"),
        ("sqlite:////tmp/a.db?key=s3cr%2Ft", "sqlite:////tmp/a.db?key=***"),
        ("sqlite:////tmp/a.db?mode=ro", "sqlite:////tmp/a.db?mode=ro"),
        (
            "http://host/?keyspace=a&monkey=b&passive=1",
            "http://host/?keyspace=a&monkey=b&passive=1",
        ),
    ],
)
def test_it_is_never_shown(uri, shown, monkeypatch):
    assert redacted(uri) == shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if shown != uri and "odbc" not in uri and "//s3" not in uri:
        assert scrubbed(f"cannot reach {uri} with s3cr%2Ft or s3cr/t") == (
            f"cannot reach {shown} with *** or ***"
        )


@pytest.mark.parametrize("password", ["s3/cr3t", "a@b/s3cr3t", "/s3cr3t", "12/s3cr3t"])
@pytest.mark.parametrize("uri", ["postgresql://user:{}@host/db", "http://user:{}@h", "user:{}@h:1"])
def test_whatever_its_characters_are(uri, password, monkeypatch):
    """A database takes a slash; and in HTTP, where it has to be %2F, somebody may forget that."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(password))
    assert redacted(uri.format(password)) == uri.format("***")
    assert scrubbed(f"no '{uri.format(password)}': {password}") == f"no '{uri.format('***')}': ***"


@pytest.mark.parametrize(
    "uri", ["http://host:5000/a", "sqlite:////a:b/c.db", "file:///a", "./mlruns"]
)
def test_what_has_none_stays_as_it_is(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert redacted(uri) == uri
    assert scrubbed(f"no '{uri}', ask me@host: it's off") == f"no '{uri}', ask me@host: it's off"


def test_a_short_one_takes_no_words_out_of_errors(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://host/db?password=no")
    assert scrubbed("there is no host") == "there is no host"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_what_mlflow_is_given_besides_is_not_shown_either(name, monkeypatch):
    monkeypatch.setenv(name, "s3cr/t")
    assert scrubbed("refused: s3cr/t") == "refused: ***"


@pytest.mark.parametrize("folder", ["a?b", "x%41", 'a"b'])
def test_a_project_whose_folder_no_address_can_have(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    with pytest.raises(UserError, match="rename the folder, or set MLFLOW_TRACKING_URI"):
        tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri() == "http://127.0.0.1:5000"


def test_what_http_makes_of_a_password_is_not_shown_either(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cr%2Ft@127.0.0.1:5000")
    assert scrubbed("you sent Basic bWU6czNjci90 to it") == "you sent Basic *** to it"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr/t")
    assert scrubbed("you sent Basic bWU6czNjci90 to it") == "you sent Basic *** to it"


def test_a_long_token_in_a_users_place_is_not_shown_either(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://s3cr%2Fts3cr%2Ft@host")
    assert scrubbed("401 for s3cr/ts3cr/t at https://s3cr%2Fts3cr%2Ft@host") == (
        "401 for *** at https://***@host"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user@host")
    assert scrubbed("no such user") == "no such user"


def test_a_blank_address_is_none(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " ")
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", " http://127.0.0.1:5000 ")
    assert tracking_uri() == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    "given",
    [
        "sqlite:///mlflow.db",
        "sqlite:///logs/a.db?timeout=5",
        "sqlite:///./a.db",
        "sqlite:///b//a.db",
    ],
)
def test_a_database_by_a_relative_path_lies_in_the_project(given, tmp_path, monkeypatch):
    """In a copy of it too (`dvc exp run --temp`), which is deleted in the end."""
    (tmp_path / "project").mkdir()
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    plain = given.replace("./", "").replace("b//a", "b/a")
    absolute = plain.replace(":///", f":///{tmp_path}/project/")
    assert tracking_uri() == absolute
    # What an earlier version recorded goes there too.
    assert is_place(given, absolute, tmp_path / "project/runs/outbox")
    assert not is_place("sqlite:///c.db", absolute, tmp_path / "project/runs/outbox")


@pytest.mark.parametrize(
    "given",
    ["sqlite:///file:a.db?mode=rw&uri=true", "sqlite://", "sqlite:///:memory:", "http://a/b"],
)
def test_what_has_no_path_in_the_project_stays_as_it_is(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking_uri() == given
    (tmp_path / "a?b").mkdir()
    monkeypatch.chdir(tmp_path / "a?b")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    assert tracking_uri() == "sqlite:///a.db"


def test_records_that_were_moved_to_another_disk_are_of_the_project_that_links_to_them(
    tmp_path, monkeypatch
):
    for name in ("project", "disk/runs/outbox"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "project/params.yaml").touch()
    (tmp_path / "project/runs").symlink_to(tmp_path / "disk/runs")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    outbox = Path("runs/outbox").absolute()
    assert is_place(OWN, tracking_uri(), outbox)
    # Others may link to it too: new ones name the database.
    assert recorded_uri(outbox) == f"sqlite:///{tmp_path}/project/mlflow.db"
    assert shown_uri(OWN, outbox) == f"sqlite:///{tmp_path}/project/mlflow.db"
