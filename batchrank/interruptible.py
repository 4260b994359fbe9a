"""
DuckDB at work in another thread, so that a signal ends it.

Owns the wait. In the thread that hears signals DuckDB looks for them itself, drops whatever their
handlers raise, and fails with an error of its own: whoever asked it would take the person's wish
for a bug. Knows no SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import Protocol, TypeVar

T = TypeVar("T")

LOOK_S = 0.05
"""Seconds between two interruptions: one would be lost if the work has not begun yet."""


class Connection(Protocol):
    """
    What of a connection is needed here.
    """

    def interrupt(self) -> None:
        """
        End what it is doing; nothing if it does nothing.
        """


def interruptible(connection: Connection, work: Callable[[], T]) -> T:
    """
    What *work* on the connection returns. Whatever ends the waiting ends the work, and is raised;
    then the connection is idle.
    """
    future: Future[T] = Future()

    def do() -> None:
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                future.set_exception(error)

    try:
        Thread(target=do, name="duckdb").start()
        return future.result()
    finally:
        # Not a pool's: it forgets a thread if a signal comes while it starts.
        while not future.cancel() and not future.done():
            connection.interrupt()
            wait([future], timeout=LOOK_S)
