"""Passwords and tokens in addresses and messages."""

import pytest

from pipeline.runtime.secrets import redacted, server_of


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:s3cr%2Ft@host:1/a", "http://user:***@host:1/a"),
        ("postgresql://user:a@b/s3cr%2Ft@host/db", "postgresql://user:***@host/db"),
        ("user:s3cr%2Ft@host:1", "user:***@host:1"),
        ("mysql://host/db?user=me;pwd=s3cr%2Ft", "mysql://host/db?user=me;pwd=***"),
        ("mysql://host/db?access_token=s3cr%2Ft&a=b#c", "mysql://host/db?access_token=***&a=b#c"),
        ("mssql://?odbc_connect=DRIVER%3DX%3BPWD%3Ds3cr%2Ft", "mssql://?odbc_connect=***"),
        ("https://s3cr%2Ft@host:1/a", "https://***@host:1/a"),
        ("http://host/?keyspace=a&monkey=b", "http://host/?keyspace=a&monkey=b"),
        ("sqlite:////a:b/c.db", "sqlite:////a:b/c.db"),
    ],
)
def test_an_address_is_shown_without_its_password(uri, shown):
    assert redacted(uri) == shown


@pytest.mark.parametrize("uri", ["http://me:s3cr%2Ft@host", "mysql://host/db?password=s3cr%2Ft"])
def test_a_message_is_shown_without_the_password_of_the_tracking_server(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert redacted("refused s3cr%2Ft and s3cr/t") == "refused *** and ***"
    assert redacted(f"no {uri}") == f"no {redacted(uri)}"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_a_message_is_shown_without_what_the_environment_holds(name, monkeypatch):
    monkeypatch.setenv(name, "s3cr/t")
    assert redacted("refused: s3cr/t") == "refused: ***"
    monkeypatch.setenv(name, "no")  # too short to be told from a word
    assert redacted("there is no host, ask me@host") == "there is no host, ask me@host"


def test_the_host_of_an_address():
    assert server_of("http://me:x@host:5000/a") == ("host", 5000)
    assert server_of("https://host") == ("host", 443)
    for uri in ("http://host:port", "http://[host", "http://", "sqlite:///a.db", "host:1"):
        assert server_of(uri) is None
