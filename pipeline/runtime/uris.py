"""Where runs are logged to, and how that is shown: a password in it is for the server alone."""

import base64
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, unquote_plus, urlsplit

from pipeline.runtime.dag import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.project import in_project

# A password of a database may also be a parameter of its address, by names such as these.
_NAMES = (
    r"(?:[^=&;\s]*[_.-])?(?:\w*pass(?:word|wd|phrase)?|pwd|\w*token|\w*secret|"
    r"(?:api|access|secret)_?key|sig|signature|odbc_connect)"
)
_IN_QUERY = re.compile(rf"([?&;](?:{_NAMES}|key)=)([^&;\s]*)", re.IGNORECASE)
# Whatever is in it: databases take a slash too, and someone may forget to write it as %2F, or the
# scheme before it all.
_PASSWORD = re.compile(r"(://[^/@]*?):(?:\S*|[^/]*)@")
_NO_SCHEME = re.compile(r"^([\w.+-]+):(?!//)\S*@")
_TOKEN = re.compile(r"(https?://)([^/@:\s]+)@")  # in a user's place
UNSPEAKABLE = '?%"'  # characters of a path that an address means, or MLflow reads, otherwise
DATABASE = "mlflow.db"  # of a project
OWN = "own"  # in records: the database of the project that they lie in
SHORTEST = 4  # characters of such a parameter that are looked for by themselves
NO_NAME = 12  # characters of what stands in a user's place, and is a token and no name then
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, else an SQLite file in the project; a file's is absolute, since workers
    and copies of the project (`dvc exp run --temp`) have other working directories.

    Raises:
        UserError: the project's folder has a name that no address of a database can have.
    """
    file = str(in_project(DATABASE))
    if not _given() and (odd := next((c for c in UNSPEAKABLE if c in file), None)):
        raise UserError(
            f"{file}: MLflow finds no database in a folder with {odd} in its name; rename the "
            f"folder, or set MLFLOW_TRACKING_URI"
        )
    return _absolute(_given()) or own_database()


def recorded_uri(folder: Path) -> str:
    """Where records in that folder go, as they name it: those for the database of the project that
    they lie in follow it when it is moved or copied."""
    uri, place = tracking_uri(), Path(os.path.realpath(folder))
    return OWN if _is_file(uri, _database_of(place)) else redacted(uri)


def shown_uri(recorded: str, folder: Path) -> str:
    """The address of a record in that folder as people read it, and MLFLOW_TRACKING_URI takes
    it."""
    return f"sqlite:///{_database_of(folder)}" if recorded == OWN else redacted(recorded)


def own_database() -> str:
    """The address of this project's database."""
    return f"sqlite:///{in_project(DATABASE)}"


def _absolute(uri: str) -> str:
    """The address of a database file with its whole path; a relative one begins at the project.
    What has no such address stays as it is."""
    before, _, path = uri.partition(":///")
    path, mark, query = path.partition("?")
    whole = str(in_project(path))
    if sqlite_file(uri) is None or path.startswith("file:") or set(whole) & set(UNSPEAKABLE):
        return uri
    return f"{before}:///{whole}{mark}{query}"


def _database_of(folder: Path) -> Path | None:
    """The database of the project that a folder lies in, by what links lead to, or else by its name
    (`runs` may be a link to another disk), whatever the working directory is; None where it lies in
    none."""
    around = (*Path(os.path.realpath(folder)).parents, *Path(os.path.abspath(folder)).parents)
    return next((each / DATABASE for each in around if (each / PARAMS_FILE).exists()), None)


def _is_file(uri: str, file: Path | None) -> bool:
    named = sqlite_file(uri)
    if file is None or named is None:
        return False
    return os.path.realpath(file) == os.path.realpath(named)


def is_place(recorded: str, uri: str, folder: Path) -> bool:
    """Whether the address of a record in that folder is that one, or was: that of the project's own
    database before the project was moved here."""
    if recorded == OWN:
        return _is_file(uri, _database_of(folder))
    if _absolute(recorded) == redacted(uri):
        return True
    before = sqlite_file(recorded)
    moved = before is not None and before.name == DATABASE and not before.parent.exists()
    return moved and not _given()


def _given() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip()


def redacted(uri: str) -> str:
    """The URI with *** in place of a password; what is shown and written is this one."""
    shown = _NO_SCHEME.sub(r"\1:***@", _PASSWORD.sub(r"\1:***@", uri))
    return _IN_QUERY.sub(r"\1***", _TOKEN.sub(r"\1***@", shown))


def scrubbed(text: str) -> str:
    """The text without the secrets that MLflow is given, which its errors repeat."""
    found = re.search(r"(?:://|^)([^/@]*?):(?!//)(.*)@", _given())
    user, password = found.groups() if found else ("", "")
    tokens = [t for _, t in _TOKEN.findall(_given()) if len(t) >= NO_NAME]
    in_query = [v for _, v in _IN_QUERY.findall(_given()) if len(v) >= SHORTEST]
    secrets = {
        spelled
        for secret in (password, *tokens, *in_query)
        for spelled in (
            *(secret, unquote(secret), unquote_plus(secret)),
            quote(unquote(secret), safe=""),
        )
    }
    secrets |= {os.environ.get(name, "") for name in SECRETS}
    if password:  # as HTTP sends them
        secrets.add(_basic(unquote(user), unquote(password)))
    if password := os.environ.get("MLFLOW_TRACKING_PASSWORD"):
        secrets.add(_basic(os.environ.get("MLFLOW_TRACKING_USERNAME", ""), password))
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return redacted(text)


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode(errors="replace")).decode()


def server_of(uri: str) -> tuple[str, int] | None:
    """Host and port of an http(s) address; None if it is none."""
    try:
        url = urlsplit(uri)
        port = url.port or (443 if url.scheme == "https" else 80)
    except ValueError:  # a port that is no number, half a bracket
        return None
    return (url.hostname, port) if url.scheme in ("http", "https") and url.hostname else None


def is_local(uri: str) -> bool:
    """Whether it names a file of this machine, which answers as fast as the machine."""
    return uri.partition(":")[0] == "sqlite"


def sqlite_file(uri: str) -> Path | None:
    """The database file that it names, if it names one and not the process's memory."""
    path = uri.partition(":///")[2].partition("?")[0]
    return Path(path) if is_local(uri) and path not in ("", ":memory:") else None
