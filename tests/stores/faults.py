"""
A reverse proxy on loopback that breaks what a test tells it to break, and remembers what passed.

It stands between a client and a store that speaks HTTP/1.1, one thread a connection. A test arms
faults by method and by a pattern of path and query; each falls on the n-th such request after it
was armed. What is not armed passes as it came, the Host header too, which S3's signature covers;
only `Expect` and `Connection` are the proxy's own, as HTTP has it.

It runs in a thread of the test's process: pyarrow's S3 and Azure clients let go of the interpreter
while they wait for it, but Google's does not, so that such a client has to be in another process.

Owns the connections, the faults that are armed and the log. Never retries, never reads a body for
its meaning, never speaks TLS.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

STORE_SECONDS = 10
"""So long the proxy waits for the store's next bytes."""

OWN_HEADERS = {"connection", "expect", "keep-alive"}
"""Between two neighbours only; a proxy does not pass them on."""

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>{message}</Message><RequestId>fault</RequestId></Error>"""


class Fault(Enum):
    """
    What can happen to a request.
    """

    CUT_BEFORE = "cut before anything is forwarded"
    CUT_IN_REQUEST = "half the body reaches the store, then both connections are cut"
    CUT_AFTER = "the store applies it, and its answer is lost"
    CUT_IN_REPLY = "the store's answer is cut in the middle of its body"
    SLOW_DOWN = "503 SlowDown, nothing forwarded"
    INTERNAL_ERROR = "500 InternalError, nothing forwarded"
    ACCESS_DENIED = "403 AccessDenied, nothing forwarded"
    SILENT = "silence for some seconds, and only then forwarded, whether the client left or not"


REFUSALS = {
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.INTERNAL_ERROR: (500, "InternalError", "We encountered an internal error."),
    Fault.ACCESS_DENIED: (403, "AccessDenied", "Access Denied"),
}


@dataclass
class Seen:
    """
    One request; it stands in the log from its arrival, its answers are filled in as they come.
    """

    method: str
    path: str
    """Percent-decoded, with the bucket: `/bucket/dt=2026-11-18/part-00000.parquet`."""

    query: str
    """As it came."""

    fault: Fault | None = None
    applied: int | None = None
    """The status that the store answered with; None while it was not asked or has not answered."""

    status: int | None = None
    """The status that the client was sent; None if it was sent none, or a cut answer."""

    @property
    def target(self) -> str:
        """
        What patterns are searched in.
        """
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass
class _Armed:
    fault: Fault
    method: str
    pattern: re.Pattern[str]
    skip: int
    times: int
    seconds: float

    def falls_on(self, seen: Seen) -> bool:
        """
        Count a request that fits, and tell whether it is one to break.
        """
        if not _fits(seen, self.method, self.pattern):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


def _fits(seen: Seen, method: str, pattern: re.Pattern[str]) -> bool:
    return method in ("*", seen.method) and bool(pattern.search(seen.target))


class FaultProxy:
    """
    The proxy's dials and its log, for any thread; `proxied` starts one.
    """

    def __init__(self, url: str, store: str) -> None:
        self.url = url
        self.store = store
        self._spoken = threading.Event()
        self._lock = threading.Lock()
        self._armed: list[_Armed] = []
        self._log: list[Seen] = []

    @property
    def log(self) -> list[Seen]:
        """
        What has come since the last `reset`, in order of arrival.
        """
        with self._lock:
            return list(self._log)

    def seen(self, method: str = "*", pattern: str = "") -> list[Seen]:
        """
        The part of the log that fits, as `arm` would have it.
        """
        return [seen for seen in self.log if _fits(seen, method, re.compile(pattern))]

    @property
    def waiting(self) -> int:
        """
        How often the armed faults have yet to fall: 0 tells that a test broke what it meant to.
        """
        with self._lock:
            return sum(armed.times for armed in self._armed)

    def arm(
        self,
        fault: Fault,
        method: str = "*",
        pattern: str = "",
        *,
        nth: int = 1,
        times: int = 1,
        seconds: float = 1,
    ) -> None:
        """
        Break the *nth* request from now on that fits, and the next ones that do: *times* in all.

        *pattern* is a regular expression, searched for in `path?query` (`Seen.target`). A request
        that two faults wait for goes to the one armed first, and only that one counts it.
        *seconds* are for `SILENT` alone.
        """
        with self._lock:
            self._armed.append(_Armed(fault, method, re.compile(pattern), nth - 1, times, seconds))

    def reset(self) -> None:
        """
        Forget the faults and the log.
        """
        with self._lock:
            self._armed.clear()
            self._log.clear()

    def end_silence(self) -> None:
        """
        Let those who are silent go on now, and whoever would be silent from now on.
        """
        self._spoken.set()

    def silence(self, seconds: float) -> None:
        """
        Say nothing for so long, or until `end_silence`.
        """
        self._spoken.wait(seconds)

    def arrived(self, seen: Seen) -> float:
        """
        Write a request down with the fault that falls on it; return how long it is to be silent.
        """
        with self._lock:
            fallen = next((armed for armed in self._armed if armed.falls_on(seen)), None)
            self._armed = [armed for armed in self._armed if armed.times]
            self._log.append(seen)
        if fallen is None:
            return 0
        seen.fault = fallen.fault
        return fallen.seconds if fallen.fault is Fault.SILENT else 0


@contextmanager
def proxied(store: str) -> Iterator[FaultProxy]:
    """
    Stand before *store*, such as `http://127.0.0.1:5000`, until the block ends.
    """
    with _Listener(("127.0.0.1", 0), _Connection) as listener:
        listener.proxy = FaultProxy(f"http://127.0.0.1:{listener.server_port}", store)
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield listener.proxy
        finally:
            listener.proxy.end_silence()
            listener.shutdown()
            thread.join()
            listener.hang_up()


class _Listener(ThreadingHTTPServer):
    daemon_threads = False  # whoever leaves the block leaves no thread behind
    request_queue_size = 128
    proxy: FaultProxy

    def __init__(self, *args: Any) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(*args)

    def hang_up(self) -> None:
        """
        End the connections that clients keep for their next request.
        """
        for connection in list(self.open):
            with suppress(OSError):  # it has just ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """
        Report our own mistakes only: clients leave when they like, and so may the store.
        """
        if not isinstance(sys.exception(), (OSError, HTTPException)):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    """
    One client's connection. What raises in here ends it, which is how it is cut.
    """

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base's
        """
        Print nothing: the proxy's log is for tests.
        """

    def _pass_on(self) -> None:
        url = urlsplit(self.path)
        seen = Seen(self.command, unquote(url.path), url.query)
        silence = self.server.proxy.arrived(seen)
        self.server.proxy.silence(silence)
        if seen.fault is Fault.CUT_BEFORE:
            raise ConnectionAbortedError(seen.fault)
        if seen.fault in REFUSALS:
            self._refuse(seen, *REFUSALS[seen.fault])
            return
        with closing(self._asked(seen)) as store:
            reply = store.getresponse()
            seen.applied = reply.status
            self._answer(seen, reply, reply.read())

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _pass_on  # noqa: N815  the base's

    def _asked(self, seen: Seen) -> HTTPConnection:
        """
        Put the request to the store on a connection of its own, as it came.
        """
        store = HTTPConnection(urlsplit(self.server.proxy.store).netloc, timeout=STORE_SECONDS)
        store.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in OWN_HEADERS:
                store.putheader(name, value)
        if seen.fault is Fault.CUT_IN_REQUEST:
            store.endheaders(self._body(part=0.5))
            store.close()
            raise ConnectionAbortedError(seen.fault)
        store.endheaders(self._body())
        return store

    def _refuse(self, seen: Seen, status: int, code: str, message: str) -> None:
        self._body()
        body = ERROR.format(code=code, message=message).encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        seen.status = status
        self.wfile.write(_head(status, code, headers) + (b"" if self.command == "HEAD" else body))

    def _answer(self, seen: Seen, reply: HTTPResponse, body: bytes) -> None:
        if seen.fault is Fault.CUT_AFTER:
            raise ConnectionAbortedError(seen.fault)
        headers = [h for h in reply.getheaders() if h[0].lower() not in OWN_HEADERS]
        if reply.chunked:  # read whole, so its length can be told
            headers = [h for h in headers if h[0].lower() != "transfer-encoding"]
            headers.append(("Content-Length", str(len(body))))
        raw = _head(reply.status, reply.reason, headers) + body
        if seen.fault is Fault.CUT_IN_REPLY:
            self.wfile.write(raw[: len(raw) - len(body) // 2 - 1])
            raise ConnectionAbortedError(seen.fault)
        seen.status = reply.status  # before the client can go on and read the log
        self.wfile.write(raw)

    def _body(self, part: float = 1) -> bytes:
        """
        Read the request's body, or about a *part* of it; chunks stay framed as they came.
        """
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self._bytes(int(int(self.headers.get("Content-Length", 0)) * part))
        read = []
        while size := int((line := self._line()).split(b";")[0], 16):
            read += [line, self._bytes(int((size + 2) * part))]
            if part < 1:
                return b"".join(read)
        read.append(line)
        while (line := self._line()).strip():  # trailers
            read.append(line)
        return b"".join([*read, line])

    def _bytes(self, size: int) -> bytes:
        read = self.rfile.read(size)
        if len(read) < size:
            raise ConnectionResetError("the client left in the middle of its body")
        return read

    def _line(self) -> bytes:
        if not (line := self.rfile.readline()):
            raise ConnectionResetError("the client left between two chunks")
        return line


def _head(status: int, reason: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
