"""A local S3 server with one bucket, `store`."""

from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from moto.server import ThreadedMotoServer

from tests.project import SECRET


@contextmanager
def s3_store() -> Iterator[dict[str, str]]:
    """Yield the environment variables that lead S3 clients to the server and its keys."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "me", "aws_secret_access_key": SECRET}
    client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="store")
    try:
        yield {name.upper(): value for name, value in keys.items()} | {"AWS_ENDPOINT_URL": url}
    finally:
        server.stop()
