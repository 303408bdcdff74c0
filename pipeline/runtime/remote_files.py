"""Files that stages made, fetched from the DVC remote by a node that does not see the project."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from pipeline.runtime.failures import in_a_line
from pipeline.runtime.files import atomic_file
from pipeline.runtime.home import Stamp
from pipeline.runtime.patience import unless_late
from pipeline.runtime.remote import Output
from pipeline.runtime.uris import redacted

AT_ONCE = 8  # files that are fetched beside one another
PATIENCE = 30.0  # seconds in which the remote answers, or the node does not reach it


class NotGiven(Exception):
    """The remote does not give a file, or not this one."""


def fetched(output: Output, path: Path, files: Mapping[str, Stamp]) -> list[str]:
    """Fetch files of an output from the remote; returns the names of those that are here then.
    Where the remote does not give one, a line says why, and no more come.

    Args:
        path: where the output lies here.
        files: as they are at home, by relative name; an output that is a file has an empty one.

    Raises:
        UserError: a file cannot be written here.
    """
    began, here = time.monotonic(), list[str]()
    try:
        stored = unless_late(lambda: _Stored(output), lambda: time.monotonic() - began > PATIENCE)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            coming = {
                pool.submit(stored.fetch, name, path / name, stamp): name
                for name, stamp in files.items()
                if name in stored.hashes
            }
            try:
                for future in as_completed(coming):
                    future.result()
                    here.append(coming[future])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    except (NotGiven, TimeoutError) as error:
        reason = str(error) or f"it did not answer in {PATIENCE:g} s"
        print(
            f"{platform.node()} does not get {path.name} from the DVC remote "
            f"{redacted(output.remote.url)}, but from the stage's own node: {redacted(reason)}",
            flush=True,
        )
    return here


class _Stored:
    """An output in the remote.

    Attributes:
        hashes: MD5 of each file by its relative name.

    Raises:
        NotGiven: the remote cannot be opened, or does not have the output.
    """

    def __init__(self, output: Output):
        from dvc.cachemgr import CacheManager
        from dvc.fs import get_cloud_fs
        from dvc_data.hashfile.db import get_odb

        name, settings = output.remote
        try:
            kind, own, root = get_cloud_fs({"remote": {name: dict(settings)}}, name=name)
            self._files = kind(**own)
            place = self._files.join(root, CacheManager.FILES_DIR, "md5")
            self._objects = get_odb(self._files, place, hash_name="md5")
            self.hashes = {"": output.md5}
            if output.md5.endswith(".dir"):
                with self._files.open(self._objects.oid_to_path(output.md5)) as file:
                    self.hashes = {each["relpath"]: each["md5"] for each in json.load(file)}
        except Exception as error:  # each kind of store has errors of its own
            raise NotGiven(in_a_line(error)) from error

    def fetch(self, name: str, path: Path, stamp: Stamp) -> None:
        """Write a file as it is at home.

        Raises:
            NotGiven: the remote does not give it, or with other content.
        """
        known = self.hashes[name]
        with atomic_file(path, durable=False) as temporary:
            try:
                self._files.get_file(self._objects.oid_to_path(known), str(temporary))
                with open(temporary, "rb") as file:
                    found = hashlib.file_digest(file, "md5").hexdigest()
            except Exception as error:
                raise NotGiven(in_a_line(error)) from error
            if (found, temporary.stat().st_size) != (known, stamp.size):
                raise NotGiven(f"what it has of {name or path.name} has another hash or size")
            os.utime(temporary, ns=(stamp.changed, stamp.changed))
