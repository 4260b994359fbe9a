"""
Stores for tests: one S3 server a worker, started by the first test that asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores.faults import FaultProxy, proxied
from tests.stores.s3 import Bucket, S3Store, running


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Store]:
    """
    A real S3 implementation on loopback.
    """
    with running() as store:
        yield store


@pytest.fixture
def bucket(s3: S3Store) -> Bucket:
    """
    An empty bucket in it, of this test alone.
    """
    return s3.bucket()


@pytest.fixture
def faults(s3: S3Store) -> Iterator[FaultProxy]:
    """
    A way to the store on which a test can break what it likes; `faults.url` is its endpoint.
    """
    with proxied(s3.url) as proxy:
        yield proxy
