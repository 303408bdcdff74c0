"""An object store of one bucket that talks S3, and what lies in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

from tests.project import SECRET

ADDRESS = "s3://store/some/where"


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
