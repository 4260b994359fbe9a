"""
The rehearsal server as an ASGI application: routes, the reading of bodies, the sending of replies.

Rerank is at OpenRouter's path, and at Cohere's for whoever speaks as Cohere does (see `cohere`).
Owns the doing: what `desk` decides is waited for, sent, dripped, cut off or withheld here. `GET
/admin` and `/admin/arrivals` show what has happened, `POST /admin/reset` forgets it, and `POST
/admin/dials` turns dials in mid-run (names and values as in `dials`).

Knows nothing of sockets but what ASGI cannot say: to close a connection without a word it asks the
transport that `server.Connection` leaves in the scope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from batchrank.errors import JobError
from batchrank.rehearsal import cohere
from batchrank.rehearsal.desk import GONE, Call, Desk, Fate, refusal
from batchrank.rehearsal.dials import turned
from batchrank.rehearsal.faults import Manner

RERANK = "/api/v1/rerank"

SPOKEN: Mapping[str, Callable[[Fate], Fate]] = {
    RERANK: lambda fate: fate,
    cohere.RERANK: cohere.spoken,
}
"""How what the desk decides is said, by path."""

DRIPS = 20
"""In so many pieces a slow body comes."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Rehearsal:
    """
    The application around one desk.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._in_flight = 0
        self._hung: set[asyncio.Transport] = set()
        self._admin: Mapping[tuple[str, str], Callable[[bytes], object]] = {
            ("GET", "/admin"): self._shows,
            ("GET", "/admin/arrivals"): self._shows_arrivals,
            ("POST", "/admin/reset"): self._resets,
            ("POST", "/admin/dials"): self._turns,
        }
        self._methods = {path: method for method, path in self._admin} | dict.fromkeys(
            SPOKEN, "POST"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Answer one request, or do what the dials say instead.
        """
        try:
            if scope["path"] in SPOKEN and scope["method"] == "POST":
                await self._reranks(scope, receive, send)
            else:
                await _send(send, await self._other(scope, receive))
        except asyncio.CancelledError:
            if "transport" not in scope.get("state", ()):
                raise
            # Only the leaving server cancels. To let this pass is a traceback and a 500 in uvicorn.
            _transport(scope).abort()

    def release(self) -> None:
        """
        Close the connections of calls that would hang for ever.
        """
        for transport in self._hung:
            transport.abort()

    # --- rerank -----------------------------------------------------------------------------------

    async def _reranks(self, scope: Scope, receive: Receive, send: Send) -> None:
        tally, at_s = self._desk.tally, self._desk.clock()
        self._in_flight += 1
        number = tally.arrive(self._in_flight)
        try:
            body = await _body(receive, self._desk.dials.body_bytes_max)
            if body is None:
                fate = GONE
            else:
                fate = self._desk.fate(
                    Call(number, at_s, self._in_flight, dict(scope["headers"]), body)
                )
            tally.decided(number, at_s, fate.status, fate.fault, body or b"")
            await self._meets(SPOKEN[scope["path"]](fate), scope, receive, send)
        finally:
            self._in_flight -= 1

    async def _meets(self, fate: Fate, scope: Scope, receive: Receive, send: Send) -> None:
        if fate.wait_s:
            await asyncio.sleep(fate.wait_s)
        match fate.manner:
            case Manner.WHOLE if fate.status:
                await _send(send, fate)
            case Manner.WHOLE:
                pass  # gone already
            case Manner.DRIPPING:
                await _drip(send, fate, self._desk.dials.slow_body_s, _transport(scope))
            case Manner.CUT:
                await _start(send, fate)
                await _piece(send, fate.body[: len(fate.body) // 2], more=True)
                _transport(scope).close()  # once what was written is out
                await _gone(receive)
            case Manner.DROPPED:
                _transport(scope).abort()
                await _gone(receive)
            case Manner.HUNG:
                await self._hangs(_transport(scope), receive)

    async def _hangs(self, transport: asyncio.Transport, receive: Receive) -> None:
        self._hung.add(transport)
        try:
            await _gone(receive)
        finally:
            self._hung.discard(transport)

    # --- everything else --------------------------------------------------------------------------

    async def _other(self, scope: Scope, receive: Receive) -> Fate:
        path, method = scope["path"], scope["method"]
        if path not in self._methods:
            self._desk.tally.strays += 1
            return refusal(404, "Resource not found", "not_found")
        if method != self._methods[path]:
            allow = ((b"allow", self._methods[path].encode()),)
            return refusal(405, "Method not allowed", "invalid_request", headers=allow)
        body = await _body(receive, self._desk.dials.body_bytes_max)
        shown = self._admin[method, path](body or b"")
        return shown if isinstance(shown, Fate) else Fate(200, msgspec.json.encode(shown))

    def _shows(self, _body: bytes) -> object:
        return {**self._desk.tally.as_json(), "in_flight": self._in_flight}

    def _shows_arrivals(self, _body: bytes) -> object:
        return self._desk.tally.arrivals.columns()

    def _resets(self, body: bytes) -> object:
        self._desk.reset()
        return self._shows(body)

    def _turns(self, body: bytes) -> object:
        try:
            changes = msgspec.json.decode(body, type=dict[str, Any])
            self._desk.dials = turned(self._desk.dials, changes)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return refusal(400, f"expected a JSON object of dials: {error}", "invalid_request")
        except JobError as error:
            return refusal(400, str(error), "invalid_request")
        return {"turned": sorted(changes)}


# --- ASGI -----------------------------------------------------------------------------------------


async def _body(receive: Receive, bytes_max: int) -> bytes | None:
    """
    The whole body, None if the caller left; of one that is too large only the excess is not read.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        whole: bytes = message["body"]
        return whole
    read = bytearray()
    while message["type"] == "http.request":
        read += message["body"]
        if not message.get("more_body") or len(read) > bytes_max:
            return bytes(read)
        message = await receive()
    return None


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, fate: Fate) -> None:
    await _start(send, fate)
    await _piece(send, fate.body)


async def _start(send: Send, fate: Fate) -> None:
    headers = [*fate.headers, (b"content-length", b"%d" % len(fate.body))]
    await send({"type": "http.response.start", "status": fate.status, "headers": headers})


async def _piece(send: Send, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _drip(send: Send, fate: Fate, over_s: float, transport: asyncio.Transport) -> None:
    await _start(send, fate)
    size = -(-len(fate.body) // DRIPS)
    for begin in range(0, len(fate.body), size):
        if transport.is_closing():
            return
        await _piece(send, fate.body[begin : begin + size], more=True)
        await asyncio.sleep(over_s / DRIPS)
    await _piece(send, b"")


def _transport(scope: Scope) -> asyncio.Transport:
    transport: asyncio.Transport = scope["state"]["transport"]
    return transport
