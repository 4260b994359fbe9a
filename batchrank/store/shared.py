"""
The budget that the jobs of one machine share, by UTC day and month: one small SQLite file.

Owns what each output holds on each day: what it has spent and what it may still spend before it
asks again. A row is raised before anything is sent, set to what was spent at an orderly end, and
stays as it is after a kill until the same output's next run lowers it. No row is ever deleted: so
a clock that jumps, forwards or back, makes no day's budget new.

A rollback journal, and not the write-ahead log of the ledger: here several processes write, and
SQLite 3.7.0 to 3.51.2 can lose committed rows where two of them race for the start of a new log.
The journal is truncated, because with `synchronous=FULL` that is followed by an fsync, and the
deletion of one is not: after a power cut it could come back and undo what was committed. What may
be had is decided in `policy.budget`. It is used from one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from batchrank.errors import OutputError, StorageError
from batchrank.policy.amounts import COUNTED, NOTHING, Amount
from batchrank.policy.budget import Borrow, Full, SharedCaps, granted, month_of
from batchrank.store.disk import identity_of, make_folder, refuse_network, sync_folder
from batchrank.store.reading import ledger_error

APPLICATION_ID = 0x62726267
"""Tells this file from any other of SQLite's ("brbg")."""

VERSION = 1

BUSY_S_MAX = 20.0
"""So long it is waited for whoever writes, in seconds: a write takes some milliseconds."""

SCHEMA = """
CREATE TABLE held (
    day TEXT NOT NULL, output TEXT NOT NULL,
    nano_usd INTEGER NOT NULL, requests INTEGER NOT NULL, search_units INTEGER NOT NULL,
    PRIMARY KEY (day, output)
) WITHOUT ROWID
"""

SUM = "SELECT " + ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTED) + " FROM held"


class SharedBudget:
    """
    The share of one *output* in the budget at *path*, under the caps that its job file tells.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, output: str, caps: SharedCaps
    ) -> None:
        self._connection = connection
        self._path = path
        self._output = output
        self._caps = caps
        self._file = identity_of(path)

    @classmethod
    def open(cls, path: Path, output: str, caps: SharedCaps) -> Self:
        """
        Open the file, making it if it is not there. *output* is a name that no other output has.

        Raises:
            OutputError: it cannot be written where it is to lie, or would lie on a network.
            StorageError: it is damaged, or some other file.
        """
        remedy = "name a file on a local disk with budget.shared in the job file"
        refuse_network(path, "the shared budget", remedy)
        if path.is_dir():
            raise OutputError(f"budget.shared is a folder: {path}", "name a file in it")
        make_folder(path.parent)
        try:
            connection = sqlite3.connect(
                path, timeout=BUSY_S_MAX, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise _translated("open", path, error) from error
        try:
            _prepare(connection, path)
            sync_folder(path.parent)
        except BaseException:  # interrupted, too: nobody else holds this connection
            connection.close()
            raise
        return cls(connection, path, output, caps)

    @property
    def where(self) -> str:
        """
        The file.
        """
        return str(self._path)

    def close(self) -> None:
        """
        Let go of the file.
        """
        self._connection.close()

    def borrow(self, asked: Borrow, /) -> Amount | Full:
        """
        Hold durably what is asked for, or less but enough; returns how much, or why not.

        Raises:
            StorageError: nobody knows how much is held.
        """
        with self._transaction():
            for day, exactly in asked.others.items():
                self._put(day, exactly)
            whose = asked.day, self._output
            own = _sum(self._connection, "day = ? AND output = ?", *whose)
            on_day, in_month = (held - own for held in _held(self._connection, asked.day))
            answer = granted(asked, self._caps, on_day, in_month)
            if isinstance(answer, Amount):
                self._put(asked.day, answer)
        return answer

    def held(self) -> dict[str, Amount]:
        """
        What this output holds, by day.
        """
        with self._reading():
            rows = self._connection.execute(
                "SELECT day, nano_usd, requests, search_units FROM held WHERE output = ?",
                (self._output,),
            )
            return {day: Amount(*amounts) for day, *amounts in rows}

    def settle(self, days: Mapping[str, Amount]) -> None:
        """
        Hold exactly so much on these days from now on: what was spent.
        """
        with self._transaction():
            for day, exactly in days.items():
                self._put(day, exactly)

    # --- rows -------------------------------------------------------------------------------------

    def _put(self, day: str, amount: Amount) -> None:
        self._connection.execute(
            "INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?)",
            (day, self._output, amount.nano_usd, amount.requests, amount.search_units),
        )

    # --- transactions -----------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._check_there()  # SQLite's own words for it would mislead
        with self._reading():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:  # interrupted, too: a transaction ends whole or not at all
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._check_there()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translated("use", self._path, error) from error

    def _check_there(self) -> None:
        """
        Refuse to go on with a file that nobody else will find: they would count without us.
        """
        if identity_of(self._path) != self._file:
            raise StorageError(
                f"the shared budget {self._path} was removed or replaced while it was in use",
                "put it back if you can, and run again: without it nobody knows what was spent",
            )


def taken(path: Path, day: str) -> dict[str, Amount]:
    """
    What all outputs together have spent of the budget at *path*, or hold, on *day* and in its
    month, by "day" and "month". Nothing where there is no file: none is made.

    Raises:
        StorageError: it cannot be read, or is some other file.
    """
    if not path.exists():
        return {"day": NOTHING, "month": NOTHING}
    try:
        # Not mode=ro: what a kill has cut short must be undone before anybody can read.
        with closing(
            sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=BUSY_S_MAX)
        ) as connection:
            _check(connection, path)
            on_day, in_month = _held(connection, day)
    except sqlite3.Error as error:
        raise _translated("read", path, error) from error
    return {"day": on_day, "month": in_month}


def _held(connection: sqlite3.Connection, day: str) -> tuple[Amount, Amount]:
    month = month_of(day)
    return (
        _sum(connection, "day = ?", day),
        _sum(connection, "day BETWEEN ? AND ?", f"{month}-01", f"{month}-31"),
    )


def _sum(connection: sqlite3.Connection, where: str, *values: str) -> Amount:
    return Amount(*connection.execute(f"{SUM} WHERE {where}", values).fetchone())


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """
    Make the table where there is none; refuse what is no such file, and leave it as it is.
    """
    run = connection.execute
    try:
        run("PRAGMA synchronous = FULL")
        run("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves it in the drive's cache
        run("BEGIN IMMEDIATE")  # two that begin at once do not both make it
        if not _one(connection, "SELECT count(*) FROM sqlite_schema"):
            run(SCHEMA)
            run(f"PRAGMA application_id = {APPLICATION_ID}")
            run(f"PRAGMA user_version = {VERSION}")
        run("COMMIT")
        _check(connection, path)
        run("PRAGMA journal_mode = TRUNCATE")
    except sqlite3.Error as error:
        raise _translated("open", path, error) from error


def _check(connection: sqlite3.Connection, path: Path) -> None:
    found = _one(connection, "PRAGMA application_id"), _one(connection, "PRAGMA user_version")
    if found != (APPLICATION_ID, VERSION):
        raise StorageError(
            f"{path} is no shared budget of this version of batchrank",
            "name another file with budget.shared in the job file",
        )


def _one(connection: sqlite3.Connection, sql: str) -> Any:
    return connection.execute(sql).fetchone()[0]


def _translated(what: str, path: Path, error: sqlite3.Error) -> StorageError:
    without = "or name another one with budget.shared: what was spent so far does not count there"
    return ledger_error(f"cannot {what} the shared budget {path}", error, without)
