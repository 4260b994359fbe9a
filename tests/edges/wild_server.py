"""
An HTTP server that misbehaves to order, on real sockets of this machine.

Each request is answered by the next play of a list (the last one repeats); a play gets the
connection and does with it what it likes. Threads with blocking sockets, so that a play reads as
what happens on the wire, and so that nothing of the client's event loop takes part.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

BODY = b'{"results":[]}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """
    One request as it came: its head (lower case names), its body, and on which connection.
    """

    line: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass(slots=True)
class Peer:
    """
    The server's end of one connection. *over* is set when the test ends.
    """

    socket: socket.socket
    number: int
    over: threading.Event
    rest: bytes = b""

    def request(self, whole: bool = True) -> Seen | None:
        """
        Read one request, or its head alone; None when the client has gone.
        """
        while b"\r\n\r\n" not in self.rest:
            if not self._more():
                return None
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = {n.lower(): v for n, _, v in (text.partition(": ") for text in lines)}
        length = int(headers.get("content-length", 0)) if whole else 0
        while len(self.rest) < length:
            if not self._more():
                return None
        body, self.rest = self.rest[:length], self.rest[length:]
        return Seen(line, headers, body, self.number)

    def _more(self) -> bool:
        block = self.socket.recv(65_536)
        self.rest += block
        return bool(block)

    def send(self, data: bytes) -> None:
        """
        Send all of *data*.
        """
        self.socket.sendall(data)

    def close(self) -> None:
        """
        End the connection with a FIN.
        """
        self.socket.close()

    def reset(self) -> None:
        """
        End the connection with an RST.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def hang(self) -> None:
        """
        Do nothing more for as long as the test lasts.
        """
        self.over.wait(PATIENCE_S)


Play = Callable[[Peer], None]


@dataclass
class WildServer:
    """
    Serves *plays* on a port of its own, with TLS if a context is given, until the block ends.

    Without *reads_bodies* it answers when the head is there, and each connection has one request.
    """

    plays: Sequence[Play]
    tls: ssl.SSLContext | None = None
    reads_bodies: bool = True
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    busy: int = 0
    busy_max: int = 0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for accepted in tuple(self._open):
            with suppress(OSError):  # it may have ended by itself
                accepted.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def url(self, host: str = "127.0.0.1") -> str:
        """
        Where a request goes.
        """
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/v1/rerank"

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return  # the block has ended
            self.connections += 1
            thread = threading.Thread(
                target=self._serve, args=(accepted, self.connections), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, accepted: socket.socket, number: int) -> None:
        accepted.settimeout(PATIENCE_S)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.tls:
                accepted = self.tls.wrap_socket(accepted, server_side=True)
            self._open.add(accepted)
            self._answer(Peer(accepted, number, self._over))
        except OSError:
            pass  # the client has gone: its good right, and most plays provoke it
        finally:
            self._open.discard(accepted)
            accepted.close()

    def _answer(self, peer: Peer) -> None:
        while peer.socket.fileno() >= 0 and (seen := peer.request(self.reads_bodies)):
            with self._lock:
                play = self.plays[min(len(self.seen), len(self.plays) - 1)]
                self.seen.append(seen)
                self.busy += 1
                self.busy_max = max(self.busy_max, self.busy)
            play(peer)
            with self._lock:
                self.busy -= 1
            if not self.reads_bodies:
                return


# --- plays ----------------------------------------------------------------------------------------


def says(*pieces: bytes) -> Play:
    """
    Send *pieces* and go on with the connection.
    """

    def play(peer: Peer) -> None:
        for piece in pieces:
            peer.send(piece)

    return play


def breaks(*pieces: bytes, how: Play = Peer.close) -> Play:
    """
    Send *pieces*, then end the connection: *how* is `Peer.close`, `Peer.reset` or `Peer.hang`.
    """

    def play(peer: Peer) -> None:
        says(*pieces)(peer)
        how(peer)

    return play


def drips(head: bytes, drop: bytes, every_s: float) -> Play:
    """
    Send *head*, then *drop* again and again, for as long as somebody listens.
    """

    def play(peer: Peer) -> None:
        peer.send(head)
        while not peer.over.wait(every_s):
            peer.send(drop)

    return play


def waits(wait_s: float, then: Play) -> Play:
    """
    Let *wait_s* pass first.
    """

    def play(peer: Peer) -> None:
        time.sleep(wait_s)
        then(peer)

    return play


ok = says(OK)


# --- a proxy is a server with these plays ---------------------------------------------------------


def tunnels(port: int) -> Play:
    """
    Grant a CONNECT, wherever it leads, and join it to *port* of this machine.
    """

    def play(peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as onward:
            onward.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_copy, args=(onward, peer.socket), daemon=True)
            back.start()
            _copy(peer.socket, onward)
            back.join(PATIENCE_S)

    return play


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # one side has gone; the other is told below
        while block := source.recv(65_536):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
