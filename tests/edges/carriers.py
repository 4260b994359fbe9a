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
import httpx
import pytest

from batchrank.domain import Failure, FailureKind
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire.auth import Bearer, Secret
from batchrank.wire.exchange import Wire
from batchrank.wire.failures import TRANSLATED
from batchrank.wire.transport import AiohttpTransport

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
        reply_bytes_max: int = ...,
        trust: ssl.SSLContext | None = ...,
        proxy_of: Callable[[str], str | None] | None = ...,
    ) -> httpx.AsyncBaseTransport:
        """
        A transport that has not been used.
        """


CARRIERS = [pytest.param(AiohttpTransport, id="aiohttp")]


def no_proxy(_url: str) -> None:
    """
    Go there directly, whatever this machine's settings say.
    """


class Witness(httpx.AsyncBaseTransport):
    """
    A transport that remembers what the transport within it raised last.
    """

    def __init__(self, carrier: httpx.AsyncBaseTransport) -> None:
        self._carrier = carrier
        self.raised: type[Exception] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Pass everything on, both ways.
        """
        try:
            return await self._carrier.handle_async_request(request)
        except TRANSLATED as error:
            self.raised = type(error)
            raise

    async def aclose(self) -> None:
        """
        Close the transport within.
        """
        await self._carrier.aclose()


@asynccontextmanager
async def carried(
    carrier: Carrier, *, connections_max: int = 1, **settings: Any
) -> AsyncIterator[Witness]:
    """
    A transport of *carrier* with one connection: a place that is lost is missed at once.
    """
    settings.setdefault("proxy_of", no_proxy)
    transport = Witness(carrier(connections_max=connections_max, **settings))
    try:
        yield transport
    finally:
        await transport.aclose()


async def send(
    transport: httpx.AsyncBaseTransport,
    url: str,
    *,
    body: bytes = b"{}",
    method: str = "POST",
    connect_timeout_s: float = PATIENCE_S,
    timeout_s: float = PATIENCE_S,
) -> HttpReply | Failure:
    """
    Send one call as the program does.
    """
    wire = Wire(
        transport,
        Bearer(Secret(KEY)),
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
    )
    return await wire.exchange(HttpCall(method, url, (("content-type", "application/json"),), body))


async def many(
    transport: httpx.AsyncBaseTransport, url: str, count: int, timeout_s: float = PATIENCE_S
) -> list[HttpReply | Failure]:
    """
    Send *count* calls at once.
    """
    answers: list[HttpReply | Failure] = []

    async def one() -> None:
        answers.append(await send(transport, url, timeout_s=timeout_s))

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    return answers


def said(answer: HttpReply | Failure) -> tuple[FailureKind, str | None] | int:
    """
    What a table can compare: class and code of a failure, the status of a reply.
    """
    return answer.status if isinstance(answer, HttpReply) else (answer.kind, answer.code)
