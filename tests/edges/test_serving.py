"""
The client of an embedded server's admin.
"""

from __future__ import annotations

import pytest

from batchrank.errors import RehearsalError
from batchrank.operate.serve import Server
from tests.rehearsing import running


def test_whoever_started_a_server_asks_and_tells_its_admin() -> None:
    """
    What came, when, and the dials; past any proxy that the environment names.
    """
    with running() as there, pytest.MonkeyPatch.context() as patch:
        patch.setenv("http_proxy", "http://127.0.0.1:1")
        server = Server(f"http://127.0.0.1:{there.port}/api/v1", _admin(there.port))
        server.turn(faults=["500@1"])
        statuses = [there.rerank().status for _ in range(2)]
        account, arrivals = server.account(), server.arrivals()
        server.reset()
        afterwards = server.account()

    assert [500, 200] == statuses == sorted(arrivals["status"], reverse=True)
    assert (2, 0) == (account["calls"], afterwards["calls"])


def test_a_dial_that_is_refused_is_told_with_the_servers_words() -> None:
    """
    And a server that is gone is told as that.
    """
    with running() as there:
        server = Server("", _admin(there.port))
        with pytest.raises(RehearsalError, match=r"refuses /dials: .*latncy: there is no such"):
            server.turn(latncy=1)

    with pytest.raises(RehearsalError, match="is gone"):
        server.account()


def _admin(port: int) -> str:
    return f"http://127.0.0.1:{port}/admin"
