"""The project's default DVC remote, through which data travel where no folder is shared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import read_yaml
from pipeline.runtime.secrets import SHORTEST, redacted

SECRETS = ("key", "secret", "token", "pass", "connection_string")  # in names of DVC's settings


class Remote(NamedTuple):
    """A DVC remote."""

    name: str
    settings: Mapping[str, Any]  # as all of DVC's files together have them: its URL, perhaps keys

    @property
    def url(self) -> str:
        return self.settings["url"]

    def __repr__(self) -> str:
        return f"Remote({self.name!r}, {redacted(self.url)!r})"  # an error may show it

    def without_secrets(self, text: str) -> str:
        """A text with *** in place of the settings' keys and passwords."""
        named = (v for k, v in self.settings.items() if any(word in k for word in SECRETS))
        secrets = {v for v in named if isinstance(v, str) and len(v) >= SHORTEST}
        for secret in sorted(secrets | {quote(v, safe="") for v in secrets}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return redacted(text)


class Output(NamedTuple):
    """What a stage that has finished made, as it lies in the remote."""

    remote: Remote
    md5: str  # as dvc.lock has it; a folder's ends with ".dir"


def default_remote(folder: Path = Path()) -> Remote | None:
    """The default remote of the project in a folder; None where it has none.

    Raises:
        UserError: DVC's files do not say which it is.
    """
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        config = Config(str(folder / ".dvc"))
        name = config["core"].get("remote")
        return Remote(name, _plain(config["remote"][name])) if name else None
    except (DvcException, KeyError) as error:
        raise UserError(
            f"the default DVC remote cannot be read: {in_a_line(error)}; `dvc remote list` shows "
            f"those that there are"
        ) from error


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Paths, of which DVC has classes of its own, as text."""
    return {k: str(v) if isinstance(v, str) else v for k, v in settings.items()}


def output_at(folder: Path, path: str) -> Output | None:
    """What a project has at a path, as it lies in the default remote; None where no stage that has
    finished made it, or there is no remote, or dvc.lock does not say."""
    try:
        remote, stages = default_remote(folder), read_yaml(folder / "dvc.lock")["stages"].values()
        made = {out["path"]: out.get("md5") for stage in stages for out in stage.get("outs", [])}
    except (UserError, LookupError, AttributeError, TypeError):
        return None
    return Output(remote, made[path]) if remote and made.get(path) else None
