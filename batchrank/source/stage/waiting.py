"""
Waiting for DuckDB in a way that signals can end.

Owns the thread in which DuckDB works meanwhile. Python handles signals in its main thread only, and
not while that is inside DuckDB, which looks for them in some places and calls them errors of its
own. Whatever ends the waiting ends the work: nothing runs on behind somebody's back.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

T = TypeVar("T")


class Interruptible(Protocol):
    """
    What of a connection is needed here.
    """

    def interrupt(self) -> None:
        """
        End what it is doing; nothing if it does nothing.
        """


def waited(connection: Interruptible, work: Callable[[], T]) -> T:
    """
    Do *work* with the connection in another thread, and return what it returns or raise what it
    raises; an exception that a signal raises here interrupts it.
    """
    with ThreadPoolExecutor(1, "duckdb") as worker:
        return waited_in(worker, connection, work)


def waited_in(worker: ThreadPoolExecutor, connection: Interruptible, work: Callable[[], T]) -> T:
    """
    The same in a thread that is there.
    """
    future = worker.submit(work)
    try:
        return future.result()
    finally:
        while not future.done():  # once would be lost if it has not begun yet
            connection.interrupt()
            wait([future], timeout=0.05)
