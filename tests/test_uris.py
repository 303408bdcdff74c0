"""A password in the address of a tracking server, however it is written there."""

import pytest

from pipeline.runtime.uris import redacted, scrubbed


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:s3cr%2Ft@host:1/a", "http://user:***@host:1/a"),
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
    if shown != uri and "odbc" not in uri:  # an error repeats it alone, and decoded
        assert scrubbed(f"cannot reach {uri} with s3cr%2Ft or s3cr/t") == (
            f"cannot reach {shown} with *** or ***"
        )


def test_a_short_one_takes_no_words_out_of_errors(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://host/db?password=no")
    assert scrubbed("there is no host") == "there is no host"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_what_mlflow_is_given_besides_is_not_shown_either(name, monkeypatch):
    monkeypatch.setenv(name, "s3cr/t")
    assert scrubbed("refused: s3cr/t") == "refused: ***"
