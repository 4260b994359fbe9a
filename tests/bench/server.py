"""
The server of the benchmarks: OpenRouter's rerank, and as little else as it takes.

Owns a bare `asyncio.Protocol` on uvloop, plain or TLS, and the replies: each document scores the
CRC-32 of its own bytes, so that whoever has the source can prove an output without asking us. A
reply is computed once and from then on answered from memory.
`GET /stats` tells what came and what it cost in CPU, `GET /arrivals` when, `POST /reset` forgets
both. The embedded server has dials, faults and a bill; this one has none, and is several times as
fast.

Never checks a key, never refuses, and reads only requests whose length is told: it is for clients
of ours alone. `python -m tests.bench.server` prints one line of JSON once it listens, and leaves
when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import threading
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import msgspec
import uvloop

REMEMBERED_BYTES_MAX = 2**30
"""Of bodies and replies together; later ones are computed each time."""

KEY_BYTES = 256
"""By so much of its beginning a body is looked up: it holds the query, which has a number."""

ARRIVALS_MAX = 1_000_000
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
SCORES = 2**32
"""A CRC-32 divided by this is a score from 0 up to 1."""

COST_USD = 0.001


def score_of(text: str) -> float:
    """
    The score of a document; it depends on nothing else.
    """
    return crc32(text.encode()) / SCORES


class _Asked(msgspec.Struct, gc=False):
    model: str
    documents: list[str]


_decode = msgspec.json.Decoder(_Asked).decode
_encode = msgspec.json.Encoder().encode


def reply_to(body: bytes) -> bytes:
    """
    The body of the reply: as OpenRouter's, results by relevance, every document echoed.
    """
    asked = _decode(body)
    scores = [score_of(text) for text in asked.documents]
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return _encode(
        {
            "id": f"gen-bench-{crc32(body):08x}",
            "model": asked.model,
            "provider": "Cohere",
            "results": [
                {
                    "index": index,
                    "relevance_score": scores[index],
                    "document": {"text": asked.documents[index]},
                }
                for index in order
            ],
            "usage": {"search_units": -(-len(scores) // 100), "cost": COST_USD},
        }
    )


def http(body: bytes) -> bytes:
    """
    A whole 200 around *body*.
    """
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


class Memory:
    """
    Replies by the body that asked, up to a size.

    A body is looked up by its beginning and compared whole: to hash 50 kB takes as long as to send
    them. Of several bodies that begin alike the latest is remembered.
    """

    def __init__(self, bytes_max: int = REMEMBERED_BYTES_MAX) -> None:
        self._left = bytes_max
        self._known: dict[bytes, tuple[bytes, bytes]] = {}

    def reply(self, request: bytes, start: int) -> bytes:
        """
        The whole HTTP reply to *request*, whose body begins at *start*.
        """
        key = request[start : start + KEY_BYTES]
        body, reply = self._known.get(key, (b"", b""))
        if len(body) == len(request) - start and request.endswith(body):
            return reply
        body = request[start:]
        reply = http(reply_to(body))
        if (size := len(body) + len(reply)) <= self._left:
            self._left -= size
            self._known[key] = body, reply
        return reply


@dataclass(slots=True)
class Tally:
    """
    What came since the server began or was reset. *busy_s* is the integral of calls in flight.
    """

    requests: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    busy_s: float = 0.0
    changed_at: float = field(default_factory=time.monotonic)
    began_cpu_s: float = field(default_factory=time.process_time)
    arrivals: array[float] = field(default_factory=lambda: array("d"))

    def came(self) -> None:
        """
        Count a call that has just been read.
        """
        self._moved(1)
        self.requests += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        if len(self.arrivals) < ARRIVALS_MAX:
            self.arrivals.append(self.changed_at)

    def left(self) -> None:
        """
        Count a call that is answered.
        """
        self._moved(-1)

    def _moved(self, by: int) -> None:
        now = time.monotonic()
        self.busy_s += self.in_flight * (now - self.changed_at)
        self.changed_at = now
        self.in_flight += by

    def as_json(self) -> dict[str, float]:
        """
        The counts, the seconds from the first call to the last reply, and this process's CPU.
        """
        first = self.arrivals[0] if self.arrivals else self.changed_at
        length_s = self.changed_at - first
        return {
            "requests": self.requests,
            "span_s": length_s,
            "in_flight_max": self.in_flight_max,
            "in_flight_mean": self.busy_s / length_s if length_s else 0.0,
            "cpu_s": time.process_time() - self.began_cpu_s,
        }


class Desk:
    """
    What all connections share: the memory, the counts, how long an answer takes.
    """

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.memory = Memory()
        self.tally = Tally()

    def told(self, path: bytes) -> bytes:
        """
        The reply to anything but rerank.
        """
        if path.startswith(b"/stats"):
            return http(_encode(self.tally.as_json()))
        if path.startswith(b"/arrivals"):
            return http(_encode(list(self.tally.arrivals)))
        if path.startswith(b"/reset"):
            self.tally = Tally(in_flight=self.tally.in_flight)
            return http(b"{}")
        return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


class Connection(asyncio.Protocol):
    """
    One connection: finds requests in what arrives, and answers in turn.
    """

    def __init__(self, desk: Desk, later: Callable[..., object]) -> None:
        self._desk = desk
        self._later = later
        self._pieces: list[bytes] = []
        self._lacking = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Begin.
        """
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        """
        Take what came; a large body comes in pieces, and is joined once.
        """
        if self._pieces:
            self._pieces.append(data)
            self._lacking -= len(data)
            if self._lacking > 0:
                return
            data = b"".join(self._pieces)
            self._pieces = []
        while data:
            size = self._size(data)
            if len(data) < size or not size:
                self._pieces = [data]
                self._lacking = size - len(data)
                return
            self._answer(data[:size] if len(data) > size else data)
            data = data[size:]

    def _size(self, data: bytes) -> int:
        """
        How long the first request in *data* is; 0 if its head is not whole.
        """
        end = data.find(HEAD_END)
        if end < 0:
            return 0
        head = data[:end].lower()
        at = head.find(LENGTH)
        if at < 0:
            return end + len(HEAD_END)
        stop = head.find(b"\r", at)
        length = int(head[at + len(LENGTH) : stop if stop > 0 else None])
        return end + len(HEAD_END) + length

    def _answer(self, request: bytes) -> None:
        desk = self._desk
        path = request[: request.find(b" HTTP/")].split(b" ", 1)[1]
        if not path.endswith(b"/rerank"):
            self._transport.write(desk.told(path))
            return
        desk.tally.came()
        reply = desk.memory.reply(request, request.find(HEAD_END) + len(HEAD_END))
        if desk.latency_s:
            self._later(desk.latency_s, self._send, reply)
        else:
            self._send(reply)

    def _send(self, reply: bytes) -> None:
        self._transport.write(reply)
        self._desk.tally.left()


# --- the process ----------------------------------------------------------------------------------


async def serve(latency_s: float, tls: ssl.SSLContext | None) -> None:
    """
    Serve on a free port until standard input ends.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    desk = Desk(latency_s)
    listener = await loop.create_server(
        lambda: Connection(desk, loop.call_later), "127.0.0.1", 0, ssl=tls, backlog=4096
    )
    threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    said = {"port": listener.sockets[0].getsockname()[1]}
    print(json.dumps(said), flush=True)
    await stop.wait()
    listener.close()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(stop.set)


def _tls(chain: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["http/1.1"])
    return context


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Serve as the command line says.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench.server")
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--tls", type=Path, metavar="PEM", help="key and certificates, one file")
    wanted: Any = parser.parse_args(arguments)
    uvloop.run(serve(wanted.latency, _tls(wanted.tls) if wanted.tls else None))


if __name__ == "__main__":
    main()
