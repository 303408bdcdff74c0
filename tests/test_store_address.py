"""Addresses of object stores as `ray.storage_path`."""

import pytest

from pipeline.config import values


@pytest.mark.parametrize("given", ["s3://bucket", "s3://my.bucket-1/a/b_c=d+e/", "gs://bu_cket/x"])
def test_an_address_is_a_storage_path(given):
    assert values._storage(given) == given


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("s3://Bucket/a", "docs/cluster.md"),
        ("s3://bucket/a b", "docs/cluster.md"),
        ("s3://bucket//a", "docs/cluster.md"),
        ("s3://key:secret@bucket/a", "docs/cluster.md"),
        ("s3://bucket/a?secret_key=secret", "docs/cluster.md"),
        ("s3://", "docs/cluster.md"),
        ("s3://a..b/runs", "of dots"),
        ("s3://bucket/.../x", "of dots"),
        ("s3://bucket/../x", "of dots"),
    ],
)
def test_other_addresses_are_refused_without_their_secrets(given, words):
    with pytest.raises(ValueError, match=words) as error:
        values._storage(given)
    assert ":secret" not in str(error.value) and "=secret" not in str(error.value)
