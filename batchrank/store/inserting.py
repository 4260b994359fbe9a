"""
Many rows into a table of SQLite by one statement.

Python's sqlite3 lets go of the interpreter at every statement, and has to wait until it is free
again: beside a busy event loop that takes longer than the rows themselves. Owns how many rows a
statement has, so that every one stays prepared, and what fills it up. Knows no table, and begins
and ends no transaction.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

_ROWS = (*range(1, 8), *range(8, 16, 2), *range(16, 32, 4), *range(32, 64, 8), *range(64, 129, 16))
"""
How many rows one statement may insert: few enough lengths that every statement stays prepared, and
close enough that less than a fifth of one is filling.
"""

_FILLING = -1
"""Stands in every column of a row that fills a statement up; no position is below zero."""

STATEMENTS_KEPT = 256
"""So many prepared statements a connection should keep: those of all lengths, and some."""


def insert(
    connection: sqlite3.Connection, into: str, rows: Sequence[Sequence[Any]], clause: str = ""
) -> None:
    """
    Insert *rows* by one statement (by several, if they are very many).

    *into* is the table and its columns, the first of which is never -1. *clause* ends each
    statement.
    """
    for at in range(0, len(rows), _ROWS[-1]):
        some = rows[at : at + _ROWS[-1]]
        width, size = len(some[0]), _ROWS[bisect_left(_ROWS, len(some))]
        values = list(chain.from_iterable(some))
        values += [_FILLING] * (width * (size - len(some)))
        connection.execute(_statement(into, width, size, clause), values)


@cache
def _statement(into: str, width: int, size: int, clause: str) -> str:
    """
    What inserts *size* rows of *width* columns, but for those that are filling.

    OR FAIL: what fails is rolled back with its whole transaction, so SQLite need not keep copies of
    the pages before each statement (above 64 KB it writes them to a file).
    """
    row = f"({', '.join('?' * width)})"
    rows = f"SELECT * FROM (VALUES {', '.join([row] * size)})"
    return f"INSERT OR FAIL INTO {into} {rows} WHERE column1 <> {_FILLING} {clause}"
