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
        ("sqlite:////tmp/a.db?mode=ro", "sqlite:////tmp/a.db?mode=ro"),
    ],
)
def test_it_is_never_shown(uri, shown, monkeypatch):
    assert redacted(uri) == shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    if shown != uri:  # an error repeats it alone, and decoded
        assert scrubbed(f"cannot reach {uri} with s3cr%2Ft or s3cr/t") == (
            f"cannot reach {shown} with *** or ***"
        )


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"])
def test_what_mlflow_is_given_besides_is_not_shown_either(name, monkeypatch):
    monkeypatch.setenv(name, "s3cr/t")
    assert scrubbed("refused: s3cr/t") == "refused: ***"
