"""
The carriers that the contract tests run against, and how a test sends through one.

Whoever adds a carrier adds it here, and every test of the contract holds for it, on every loop.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
import pytest

from batchrank.domain import Failure, FailureKind
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire import carrier as port
from batchrank.wire.auth import Bearer, Secret
from batchrank.wire.carrier import Lines
from batchrank.wire.exchange import Wire
from batchrank.wire.failures import TRANSLATED
from batchrank.wire.transport import HttpCarrier

KEY = "sk-canary-0123456789"
PATIENCE_S = 10.0
"""Longer than anything takes on a busy machine; what is to time out says so itself."""

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
]


class Carrier(Protocol):
    """
    How a carrier is made.
    """

    def __call__(
        self,
        *,
        connections_max: int,
        connect_timeout_s: float,
        timeout_s: float,
        reply_bytes_max: int = ...,
        kept_s: float = ...,
        trust: ssl.SSLContext | None = ...,
        proxy_of: Callable[[str], str | None] | None = ...,
    ) -> port.Carrier:
        """
        A carrier that has not been used.
        """


CARRIERS = [pytest.param(HttpCarrier, id="own")]


def no_proxy(_url: str) -> None:
    """
    Go there directly, whatever this machine's settings say.
    """


class Witness:
    """
    A carrier that remembers what the carrier within it raised last.
    """

    def __init__(self, carrier: port.Carrier) -> None:
        self._carrier = carrier
        self.raised: type[Exception] | None = None

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        Pass everything on, both ways.
        """
        try:
            return await self._carrier.carry(method, url, headers, body)
        except TRANSLATED as error:
            self.raised = type(error)
            raise

    async def aclose(self) -> None:
        """
        Close the carrier within.
        """
        await self._carrier.aclose()


@asynccontextmanager
async def carried(
    carrier: Carrier, *, connections_max: int = 1, **settings: Any
) -> AsyncIterator[Witness]:
    """
    A carrier with one connection: a place that is lost is missed at once.
    """
    given: dict[str, Any] = {"proxy_of": no_proxy}
    given |= {"connect_timeout_s": PATIENCE_S, "timeout_s": PATIENCE_S}
    made = Witness(carrier(connections_max=connections_max, **(given | settings)))
    try:
        yield made
    finally:
        await made.aclose()


async def send(
    carrier: port.Carrier, url: str, *, body: bytes = b"{}", method: str = "POST"
) -> HttpReply | Failure:
    """
    Send one call as the program does.
    """
    call = HttpCall(method, url, (("content-type", "application/json"),), body)
    return await Wire(carrier, Bearer(Secret(KEY))).exchange(call)


async def many(carrier: port.Carrier, url: str, count: int) -> list[HttpReply | Failure]:
    """
    Send *count* calls at once.
    """
    answers: list[HttpReply | Failure] = []

    async def one() -> None:
        answers.append(await send(carrier, url))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    return answers


def said(answer: HttpReply | Failure) -> tuple[FailureKind, str | None] | int:
    """
    What a table can compare: class and code of a failure, the status of a reply.
    """
    return answer.status if isinstance(answer, HttpReply) else (answer.kind, answer.code)
