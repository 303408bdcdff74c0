"""Files that stages made, fetched from the DVC remote by a node that does not see the project."""

import hashlib
import json
import os
import platform
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from pipeline.runtime.errors import FULL, one_line
from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import atomic_file, remove_temporary
from pipeline.runtime.home import Stamp
from pipeline.runtime.limits import JSON_BYTES
from pipeline.runtime.patience import LOOK, unless_late
from pipeline.runtime.remote import Output
from pipeline.runtime.secrets import redacted

AT_ONCE = 8  # files that are fetched beside one another
REFUSED = 16  # files in a row that are not given: nor are others
PATIENCE = 30.0  # seconds in which something arrives, or the node does not reach the remote
LARGE = 2**30  # bytes from which a line says that they are on their way


class NotGiven(Exception):
    """The remote cannot be read."""


class Lacking(Exception):
    """It can, and has a file with other content, or not at all."""


class RemoteFiles:
    """What a process fetches from the remote. Once that is away it is not asked again."""

    def __init__(self) -> None:
        self.away = False

    def fetched(self, output: Output, path: Path, files: Mapping[str, Stamp]) -> list[str]:
        """Fetch files of an output; returns the names of those that are here then. A line says why
        others are not.

        Args:
            path: where the output lies here.
            files: as they are at home, by relative name; an output that is a file has an empty one.

        Raises:
            UserError: a file cannot be written here.
        """
        if self.away:
            return []
        here = list[str]()
        # Of a process that was killed. What a thread that nobody waits for writes is gone with it,
        # which harms nothing: it would have become the same file.
        remove_temporary(path.parent, path.name)
        remove_temporary(path, below=True)
        try:
            asked = time.monotonic()
            stored = unless_late(
                lambda: _Stored(output), lambda: time.monotonic() - asked > PATIENCE
            )
            size = sum(stamp.size for stamp in files.values())
            if size > LARGE:
                _say(f"gets {path.name} from the DVC remote: {size / 1e9:.1f} GB")
            reason = _Fetching(stored, path, files, here).run()
        except Lacking:
            reason = "it lacks the list of its files"
        except TimeoutError:
            self.away, reason = True, f"nothing came in {PATIENCE:g} s"
        except NotGiven as error:
            self.away, reason = True, str(error)
        if len(here) < len(files):
            _say(
                f"does not get all of {path.name} from the DVC remote {redacted(output.remote.url)}"
                f", but from the stage's own node: {output.remote.without_secrets(reason)}"
            )
        return list(here)  # a thread that nobody waits for may add to it


def _say(text: str) -> None:
    print(f"{platform.node()} {one_line(text)}", flush=True)


def _arrivals() -> Any:
    """DVC's callback for what is fetched, which knows when something came."""
    from dvc.fs.callbacks import Callback

    class Arrivals(Callback):
        last = time.monotonic()

        def call(self, hook_name: str | None = None, **kwargs: Any) -> None:
            self.last = time.monotonic()  # however a store tells of it

    return Arrivals()


class _Stored:
    """An output in the remote.

    Attributes:
        hashes: MD5 of each file by its relative name.

    Raises:
        Lacking, NotGiven: the remote does not give the list of the output's files.
    """

    def __init__(self, output: Output):
        name, settings = output.remote.name, output.remote.settings
        try:
            from dvc.cachemgr import CacheManager
            from dvc.fs import get_cloud_fs
            from dvc_data.hashfile.db import get_odb

            kind, own, root = get_cloud_fs({"remote": {name: dict(settings)}}, name=name)
            self._files = kind(**own)
            # Of parts that come side by side S3's client tells when all are there.
            side_by_side = hasattr(self._files.fs, "max_concurrency")
            self._options = {"max_concurrency": 1} if side_by_side else {}
            place = self._files.join(root, CacheManager.FILES_DIR, "md5")
            self._objects = get_odb(self._files, place, hash_name="md5")
            self.hashes = {"": output.md5}
            if output.md5.endswith(".dir"):
                with self._files.open(self._objects.oid_to_path(output.md5), "rb") as file:
                    listing = file.read(JSON_BYTES)
                if hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir" != output.md5:
                    raise Lacking
                self.hashes = {each["relpath"]: each["md5"] for each in json.loads(listing)}
        except (Lacking, FileNotFoundError):
            raise Lacking from None
        except Exception as error:  # each kind of store has errors of its own
            raise NotGiven(in_a_line(error)) from error

    def fetch(self, name: str, path: Path, stamp: Stamp, moved: Any) -> None:
        """Write a file as it is at home.

        Raises:
            Lacking, NotGiven: the remote does not give it.
            UserError: it cannot be written here.
        """
        from dvc_data.hashfile.hash import file_md5

        known = self.hashes[name]
        with atomic_file(path, durable=False) as temporary:
            try:
                place = self._objects.oid_to_path(known)
                self._files.get_file(place, str(temporary), callback=moved, **self._options)
            except FileNotFoundError:
                raise Lacking from None
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                raise NotGiven(in_a_line(error)) from error
            found = file_md5(str(temporary), callback=moved)
            if (found, temporary.stat().st_size) != (known, stamp.size):
                raise Lacking
            os.utime(temporary, ns=(stamp.changed, stamp.changed))


class _Fetching:
    """Files on their way, in threads that nobody waits for once nothing arrives.

    Args:
        here: gets the name of each file that has come.
    """

    def __init__(self, stored: _Stored, path: Path, files: Mapping[str, Stamp], here: list[str]):
        self._stored, self._path, self._files, self._here = stored, path, files, here
        self._waiting = deque(each for each in files.items() if each[0] in stored.hashes)
        self._moved, self._error = _arrivals(), list[BaseException]()
        self._refused = 0  # files since one has come
        self._reason = ""

    def run(self) -> str:
        """Fetch what the remote has; returns why others have not come.

        Raises:
            TimeoutError: nothing arrived in `PATIENCE`.
            NotGiven: nor did any of the last files.
            UserError: as `_Stored.fetch`.
        """
        count = min(AT_ONCE, len(self._waiting))
        threads = [Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            while alive := [thread for thread in threads if thread.is_alive()]:
                alive[0].join(LOOK)
                if time.monotonic() - self._moved.last > PATIENCE:
                    raise TimeoutError
        finally:
            self._waiting.clear()
        for error in self._error:
            raise error
        return (
            self._reason
            or f"it lacks {len(self._files) - len(self._here)} of {len(self._files)} files"
        )

    def _work(self) -> None:
        while self._waiting and not self._error:
            with suppress(IndexError):  # another thread was first
                name, stamp = self._waiting.popleft()
                try:
                    self._stored.fetch(name, self._path / name, stamp, self._moved)
                    self._here.append(name)
                    self._refused = 0
                    self._moved.call()
                except Lacking:
                    continue
                except NotGiven as error:
                    self._refused, self._reason = self._refused + 1, str(error)
                    if self._refused >= REFUSED:
                        self._error.append(error)
                except BaseException as error:
                    self._error.append(error)
