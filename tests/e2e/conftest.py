"""
The embedded server that many files' jobs are run against.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rehearsing import Server, running


@pytest.fixture(scope="module")
def rehearsal() -> Iterator[Server]:
    """
    One server for all tests of a file.
    """
    with running() as server:
        yield server


@pytest.fixture
def server(rehearsal: Server) -> Iterator[Server]:
    """
    The server, with nothing on its bill; its dials are turned back at the end.
    """
    rehearsal.reset()
    yield rehearsal
    rehearsal.turn(faults=[], latency=None, retry_after=None, price=None, usage="all")
    rehearsal.turn(keys=None, credit_usd=None, key_expires_at=None, models=None)
