"""A local Ray, for the tests of what runs on it."""

from collections.abc import Iterator

import pytest

from tests.project import ROOT


@pytest.fixture(scope="package")
def ray() -> Iterator:
    import ray

    from pipeline.runtime.ray_cluster import join_ray

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # where workers find the tests
        join_ray()
    yield ray
    ray.shutdown()
