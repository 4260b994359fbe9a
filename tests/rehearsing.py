"""
A rehearsal server in a thread of this process, and a client that sees bytes as they come.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import uvloop

from batchrank.rehearsal import Dials, Score, hashed_scores, serve, turned

RERANK = "/api/v1/rerank"
MODEL = "cohere/rerank-v3.5"
KEY = "sk-or-v1-for-tests-only"


@dataclass(frozen=True)
class Got:
    """
    A reply as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """
        The body as JSON.
        """
        return json.loads(self.body)

    @property
    def scores(self) -> dict[int, float]:
        """
        The scores by index.
        """
        return {r["index"]: r["relevance_score"] for r in self.json["results"]}


def asked(
    query: str = "what", documents: Sequence[object] = ("a", "b", "c"), **more: object
) -> Any:
    """
    A rerank request.
    """
    return {"model": MODEL, "query": query, "documents": list(documents), **more}


class Server:
    """
    A running server, and ways to call it.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Got:
        """
        Send a request on a connection of its own and read the reply.
        """
        client = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            client.request(method, path, body, dict(headers or {}))
            reply = client.getresponse()
            named = {name.lower(): value for name, value in reply.getheaders()}
            return Got(reply.status, named, reply.read())
        finally:
            client.close()

    def rerank(self, request: object = None, key: str = KEY) -> Got:
        """
        Ask for scores; bytes are sent as they are.
        """
        request = asked() if request is None else request
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        return self.send("POST", RERANK, body, headers)

    def begin(self, request: object = None) -> socket.socket:
        """
        Send a rerank request, and do not wait for what comes.
        """
        body = json.dumps(asked() if request is None else request).encode()
        head = (
            f"POST {RERANK} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        connection.sendall(head.encode() + body)
        return connection

    def admin(self) -> Any:
        """
        What the server counted.
        """
        return self.send("GET", "/admin").json

    def arrivals(self) -> list[dict[str, Any]]:
        """
        The log of calls, by their numbers.
        """
        columns = self.send("GET", "/admin/arrivals").json
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return sorted(rows, key=lambda row: row["call"])

    def reset(self) -> None:
        """
        Make the server forget what it counted.
        """
        assert 200 == self.send("POST", "/admin/reset").status

    def turn(self, **dials: object) -> Got:
        """
        Turn dials.
        """
        return self.send("POST", "/admin/dials", json.dumps(dials).encode())


@contextmanager
def running(score: Score = hashed_scores, **dials: object) -> Iterator[Server]:
    """
    A server with *dials* as texts, stopped at the end.
    """
    ports: Future[int] = Future()
    stops: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        stops.set_result((asyncio.get_running_loop(), stop))
        await serve(turned(Dials(), dials), score, ready=ports.set_result, stop=stop)

    thread = threading.Thread(target=uvloop.run, args=(main(),))
    thread.start()
    loop, stop = stops.result(5)
    try:
        yield Server(ports.result(5))
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        assert not thread.is_alive()


def until_closed(connection: socket.socket) -> bytes:
    """
    Everything that comes on *connection* before the other side closes it.
    """
    pieces = []
    try:
        while piece := connection.recv(65_536):
            pieces.append(piece)
    except ConnectionResetError:
        pass  # closed without a word
    return b"".join(pieces)
