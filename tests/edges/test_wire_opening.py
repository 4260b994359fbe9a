"""
What becomes of a connection that ends while it is being opened.
"""

from __future__ import annotations

import asyncio
import ssl

import pytest

from batchrank.wire.connection import Connection
from batchrank.wire.opening import NotOpened, Opener, Step
from batchrank.wire.routes import Route, parsed
from tests.edges.carriers import LOOPS, PATIENCE_S
from tests.edges.wild_server import WildServer, ok

pytestmark = pytest.mark.anyio


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """
    Both loops: each closes in its own way.
    """
    return request.param


class ResetAtOnce(Connection):
    """
    A connection that closes as soon as it is there; it hears of its end only later.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Begin, and end.
        """
        super().connection_made(transport)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """
        Hear of it when somebody has already begun to use it.
        """
        asyncio.get_running_loop().call_later(0.05, super().connection_lost, exc)


async def test_a_connection_that_closes_before_its_tls_begins_has_sent_nothing() -> None:
    """
    The loop is not asked to encrypt what is closing: uvloop raises then where nobody can catch it.
    """
    loop = asyncio.get_running_loop()
    untold: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _loop, context: untold.append(context))
    opener = Opener(loop, lambda: ResetAtOnce(loop, 10_000), ssl.create_default_context)

    with WildServer([ok]) as server:
        url = server.url("127.0.0.1").replace("http:", "https:")
        opening = asyncio.wait_for(opener.open(Route(parsed(url, "a test"))), PATIENCE_S)
        with pytest.raises(NotOpened) as raised:
            await opening
    await asyncio.sleep(0.1)

    assert raised.value.step is Step.TLS
    assert untold == []
