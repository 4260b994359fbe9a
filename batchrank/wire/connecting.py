"""
Connections, and the moment in which one is handed out: from then on a request may have been sent.

Owns that knowledge, and two mendings: a kept connection that has spoken out of turn is dropped, and
a descriptor that uvloop closes by itself is not closed twice. Sends nothing, translates nothing.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import aiohttp

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


@dataclass(slots=True)
class Progress:
    """
    How far one call has come. *queued*: every place was taken when it began.
    """

    queued: bool
    sockets: list[socket.socket] = field(default_factory=list)
    tried: bool = False
    connected: bool = False
    reused: bool = False


PROGRESS: ContextVar[Progress] = ContextVar("progress")
"""The call that the running task makes; nothing else leads from a connector to its caller."""


class Connector(aiohttp.TCPConnector):
    """
    Notes when a connection is handed out, and hands out none that has spoken out of turn.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(socket_factory=_noted_socket, **settings)
        self._known: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """
        Hand out a connection for the one sending of *req*.
        """
        progress = PROGRESS.get()
        if progress.tried:
            # aiohttp would send a GET again when a kept connection turns out to be closed.
            raise aiohttp.ServerDisconnectedError
        progress.tried = True
        try:
            connection = await super().connect(req, traces, timeout)
            while (reused := connection.protocol in self._known) and _is_stale(connection):
                connection.close()
                connection = await super().connect(req, traces, timeout)
        except BaseException:  # cancelled, too
            _disown(progress.sockets)
            raise
        if not reused and connection.protocol is not None:
            self._known.add(connection.protocol)
        progress.reused = reused
        progress.connected = True
        return connection


def _noted_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    PROGRESS.get().sockets.append(made)
    return made


def _disown(sockets: Iterable[socket.socket]) -> None:
    """
    Take the descriptors from the sockets of a connection that failed, under uvloop.

    uvloop closes such a descriptor itself. Where TLS is reset as it begins, it leaves a socket that
    believes to own it (29 times in 100, uvloop 0.23), and which as garbage closes whatever file has
    that number by then: the ledger's, for one.
    """
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        for made in sockets:
            made.detach()


def _is_stale(connection: Connection) -> bool:
    """
    Tell whether a kept connection holds bytes, read or unread: a farewell, or somebody's reply.

    aiohttp asks only whether it is connected, and takes such bytes for the reply to come.
    """
    if connection.protocol is None or connection.transport is None:
        return True
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return connection.protocol.should_close or bool(poll.poll(0))
