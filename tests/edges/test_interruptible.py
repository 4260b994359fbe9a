"""
DuckDB at work, and a signal: what its handler raises arrives, and nothing is at work any more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import duckdb
import pytest

from batchrank.errors import Signalled
from batchrank.interruptible import interruptible

FOREVER = "SELECT sum(a.range + b.range) FROM range(10000000) a, range(10000000) b"


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """
    A database in memory, in a process in which a signal raises, as in ours.
    """

    def hear(number: int, _frame: object) -> None:
        raise Signalled(signal.Signals(number).name)

    before = signal.signal(signal.SIGUSR1, hear)
    try:
        with duckdb.connect() as connection:
            yield connection
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_was_asked_comes_back(connection: duckdb.DuckDBPyConnection) -> None:
    """
    Answers, and errors as they are.
    """
    ask = connection.execute

    assert [(42,)] == interruptible(connection, lambda: ask("SELECT 42").fetchall())
    with pytest.raises(duckdb.ParserException):
        interruptible(connection, lambda: ask("SELECT FROM WHERE"))


def test_a_signal_ends_the_work_and_is_what_is_raised(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """
    DuckDB alone says `RuntimeError: Query interrupted`. The connection is idle afterwards.
    """

    def work() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        connection.execute(FOREVER).fetchall()

    for _ in range(5):
        with pytest.raises(Signalled, match="SIGUSR1"):
            interruptible(connection, work)
        assert [(1,)] == connection.execute("SELECT 1").fetchall()
