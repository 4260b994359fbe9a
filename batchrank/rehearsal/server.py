"""
The rehearsal server's socket: listen, serve until told to stop, be gone quickly.

Owns the life of the server. uvicorn reads and writes the HTTP of each connection (its httptools
protocol, no access log); its own server loop, which polls and takes over signals, is not used.

Knows nothing of reranking: that is `app`'s business. A stop waits a moment for calls under way, a
cancellation for nothing; calls that hang hold up neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from batchrank.errors import PortInUse
from batchrank.rehearsal.app import Rehearsal
from batchrank.rehearsal.desk import Desk
from batchrank.rehearsal.dials import Dials
from batchrank.rehearsal.scorers import Score

GRACE_S = 1.0
"""How long a stop waits for calls under way; what hangs is dropped at once."""

KEEP_ALIVE_S = 75
"""How long an idle connection stays open, as nginx has it."""

BACKLOG = 2048

ANOTHER_PORT = "choose another port: 0 is any that is free"
ANOTHER_HOST = "choose another host: 127.0.0.1 is this machine alone, 0.0.0.0 all its addresses"

NO_PLACE: Mapping[int | None, tuple[str, str]] = {
    errno.EADDRINUSE: (
        "another program listens there already",
        f"stop that program, or {ANOTHER_PORT}",
    ),
    errno.EACCES: ("this user may not listen there", ANOTHER_PORT),
    errno.EADDRNOTAVAIL: ("this machine does not have that address", ANOTHER_HOST),
}
"""Why nobody can listen somewhere, and what to do, by the system's number for it."""


class Connection(HttpToolsProtocol):
    """
    uvicorn's HTTP connection, which leaves its transport in the state of every scope.

    ASGI has no word for "close without answering"; this is the one place that supplies it.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """
        Begin a connection.
        """
        super().connection_made(transport)
        self.app_state = {"transport": transport}


async def serve(
    dials: Dials,
    score: Score,
    host: str = "127.0.0.1",
    port: int = 0,
    ready: Callable[[int], object] = lambda _port: None,
    *,
    stop: asyncio.Event | None = None,
    until_stdin_closes: bool = False,
    grace_s: float = GRACE_S,
) -> None:
    """
    Serve until *stop* is set, standard input ends (if asked for), or the task is cancelled.

    *ready* is told the port once connections are accepted; port 0 is any free one. *score* is asked
    for every reply's numbers. Once told to stop, calls under way get *grace_s* to come home.

    Raises:
        PortInUse: if the server cannot listen there.
    """
    app = Rehearsal(Desk(dials, score))
    state = ServerState()
    listener = await _listen(app, state, host, port)
    stop = stop or asyncio.Event()
    if until_stdin_closes:
        _watch_stdin(asyncio.get_running_loop(), stop)
    try:
        ready(listener.sockets[0].getsockname()[1])
        await _keep_time(state, stop)
        listener.close()
        for connection in list(state.connections):
            connection.shutdown()
        app.release()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=grace_s)
    finally:
        listener.close()
        for connection in list(state.connections):
            connection.transport.abort()
        for task in state.tasks:
            task.cancel()


def run(dials: Dials, score: Score, **more: Any) -> None:
    """
    Serve from a process of its own, on uvloop, until SIGINT or SIGTERM; arguments are `serve`'s.
    """
    import uvloop  # only here: a server within somebody's loop takes the loop as it is

    uvloop.run(_until_signalled(dials, score, **more))


async def _until_signalled(dials: Dials, score: Score, **more: Any) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(dials, score, stop=stop, **more)


async def _listen(app: Rehearsal, state: ServerState, host: str, port: int) -> asyncio.Server:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
    )
    config.load()
    return await asyncio.get_running_loop().create_server(
        lambda: Connection(config, state, {}), sock=_bound(host, port), backlog=BACKLOG
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where = f"cannot listen on {host} port {port}"
    if not 0 <= port < 65_536:
        raise PortInUse(f"{where}: ports go from 0 to 65535", ANOTHER_PORT)
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        why, remedy = _no_place(error)
        raise PortInUse(f"{where}: {why}", remedy) from error


def _no_place(error: OSError | UnicodeError) -> tuple[str, str]:
    # `create_server` raises a plain OSError for a name that is not known, with a number from DNS.
    if isinstance(error, UnicodeError) or isinstance(error.__context__, socket.gaierror):
        return "no host of that name is known", ANOTHER_HOST
    return NO_PLACE.get(error.errno, (os.strerror(error.errno or 0), ANOTHER_PORT))


async def _keep_time(state: ServerState, stop: asyncio.Event) -> None:
    """
    Keep the Date header right, until *stop*.
    """
    while not stop.is_set():
        state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """
    Set *stop* when standard input ends: whoever started this process is gone.
    """

    def watch() -> None:
        # Not sys.stdin: its lock, held by a thread, would make the interpreter's own end fail. An
        # input that cannot be read (closed from the start) has ended too.
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=watch, name="stdin", daemon=True).start()
