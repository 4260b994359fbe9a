"""
The pool of connections for SDKs that are built on httpx.
"""

from __future__ import annotations

import httpx

from tests.bench.peers.task import TIMEOUT_S

CONNECTIONS_MIN = 100
CONNECTIONS_KEPT = 20
"""httpx's own defaults. A pool that keeps all that is in flight is several times slower."""


def pool(in_flight: int) -> httpx.AsyncClient:
    """
    The pool that httpx has by itself, but large enough for what is in flight.
    """
    limits = httpx.Limits(
        max_connections=max(in_flight, CONNECTIONS_MIN),
        max_keepalive_connections=CONNECTIONS_KEPT,
    )
    return httpx.AsyncClient(limits=limits, timeout=TIMEOUT_S)
