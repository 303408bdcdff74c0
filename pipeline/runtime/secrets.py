"""Removes passwords from addresses and messages."""

import os
import re
from urllib.parse import quote, unquote, unquote_plus, urlsplit

SHORTEST = 4  # shorter secrets are replaced only in addresses
# Databases accept a slash or an @ in a password, so the longest match is taken as the password.
_PASSWORD = re.compile(r"(://[^/@]*?):(?:\S*|[^/]*)@")
_NO_SCHEME = re.compile(r"^([\w.+-]+):(?!//)\S*@")
_TOKEN = re.compile(r"(https?://)[^/@:\s]+@")
_IN_QUERY = re.compile(
    r"([?&;](?:(?:[^=&;\s]*[_.-])?(?:\w*pass(?:word|wd|phrase)?|pwd|\w*token|\w*secret|"
    r"(?:api|access|secret)_?key|sig|signature|odbc_connect)|key)=)([^&;\s]*)",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Replace passwords and tokens in a text, for example in addresses, with ***."""
    text = _NO_SCHEME.sub(r"\1:***@", _PASSWORD.sub(r"\1:***@", text))
    text = _IN_QUERY.sub(r"\1***", _TOKEN.sub(r"\1***@", text))
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets() -> set[str]:
    """MLflow's passwords and tokens, plain and URL-encoded, since messages contain both forms."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    secrets = [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    secrets += [value for _, value in _IN_QUERY.findall(uri)]
    secrets += re.findall(r"://[^/@]*?:(.*)@", uri)
    secrets += [spell(secret) for secret in secrets for spell in (unquote, unquote_plus)]
    secrets += [quote(secret, "") for secret in secrets]
    return {secret for secret in secrets if len(secret) >= SHORTEST}


def server_of(uri: str) -> tuple[str, int] | None:
    """Host and port of an http(s) address; None for other addresses."""
    try:
        url = urlsplit(uri)
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:  # the port is not a number, or a bracket is missing
        return None
    return (url.hostname, port) if url.scheme in ("http", "https") and url.hostname else None
