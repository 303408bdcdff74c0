"""An object store of one bucket that talks S3, and what lies in it."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.project import SECRET

ADDRESS = "s3://store/some/where"
RUN = "train_transformer/0123456789abcdef"


@contextmanager
def bucket_at(url: str) -> Iterator[Any]:
    """The bucket of the server at a URL, emptied in the end; the environment says where it is."""
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        bucket = boto3.resource("s3", endpoint_url=url).Bucket("store")
        yield bucket
        bucket.objects.all().delete()


def names(objects: Any) -> set[str]:
    return {o.key for o in objects.objects.all() if not o.key.endswith("/")}


def named(path: str, content: bytes, changed: int) -> str:
    """The name of a copy."""
    digest = hashlib.sha256(content).hexdigest()
    return f"some/where/{path}@{changed}-{len(content)}-{digest}"


def lay(folder: Path, content: bytes, changed: int, name: str = "checkpoint.pt") -> Path:
    """A file as it was written at some time."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / ".aside"
    aside.write_bytes(content)
    os.utime(aside, ns=(changed, changed))
    return aside.rename(folder / name)


def wait_for(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert true()
