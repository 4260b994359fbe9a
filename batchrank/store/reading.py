"""
Questions to a ledger, through a connection that cannot write.

Everybody but the one runner reads this way: `status` and `verify` beside a running job, and the
publishing thread of the run itself. Owns the SQL of questions; `ledger` owns that of statements.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from batchrank.domain import (
    CostSource,
    Positions,
    Ranked,
    Rejected,
    RejectKind,
    Scored,
    Served,
    Share,
    Slice,
    SourceFile,
)
from batchrank.errors import StorageError
from batchrank.policy.amounts import COUNTED, Amount
from batchrank.store.tables import SCHEMA_VERSION, unpack_scores, unpack_shares

READER_WAIT_S = 10.0

CALLS_TOGETHER = 100_000
"""So many calls are summed at once: a fifth of a second, and their sorting fits into memory."""

_BOOKED = """
SELECT served, route, CAST(sent_at / 86400 AS INTEGER), cost_source, failure,
       position IN (SELECT position FROM rejects),
       count(*), sum(attempt > 1), sum(probe), sum(stop - start), total(search_units),
       coalesce(sum(total_tokens), 0), sum(cost_nano_usd)
FROM calls
WHERE rowid >= ? AND rowid < ? AND sent_at >= ? AND sent_at < ?
GROUP BY 1, 2, 3, 4, 5, 6
"""

AUTHORISED, LOST = "authorised", "lost"
"""What the ledger covers, and what killed runs may have spent: by `named`, in `meta`."""

UNITS_ESTIMATED = "search_units_estimated"
"""In `tally`: search units that are booked and that no reply has told."""


def named(prefix: str, amount: Amount) -> dict[str, int]:
    """
    What the parts of *amount* are called in `meta` and, behind a UTC day, in `tally`.
    """
    return {f"{prefix}_{name}": getattr(amount, name) for name in COUNTED}


def amount_of(prefix: str, table: Mapping[str, float]) -> Amount:
    """
    The inverse of `named`; what is not there is 0.
    """
    return Amount(*(int(table.get(f"{prefix}_{name}", 0)) for name in COUNTED))


class RankedRow(NamedTuple):
    """
    A ranked group as the ledger has it; *shares* are pairs of (stop, served id), packed.
    """

    position: int
    served: int | None
    scores: bytes
    shares: bytes | None

    def outcome(self, who: Mapping[int, Served]) -> Ranked:
        """
        The same as a value, but for the documents that were cut; *who* are those that have scored.
        """
        scores = tuple(unpack_scores(self.scores))
        shares = unpack_shares(self.shares) if self.shares else []
        if self.served is not None:
            shares = [(len(scores), self.served)]
        return Ranked(self.position, scores, tuple(Share(stop, who[by]) for stop, by in shares))


@dataclass(frozen=True, slots=True)
class PartRow:
    """
    A part that has its final name. Complete up to position *through*; *stale*: to render again.
    """

    number: int
    file: str
    through: int
    rows: int
    groups: int
    sha256: str
    stale: bool


class BookedRow(NamedTuple):
    """
    Calls that are alike, summed. *day* counts from 1970 in UTC; *rejected*: their groups are;
    *failure* is None for those that brought scores.
    """

    served: int | None
    route: int
    day: int
    cost_source: str
    failure: str | None
    rejected: bool
    calls: int
    repeated: int
    probes: int
    candidates: int
    search_units: float
    total_tokens: int
    nano_usd: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """
    One run of the job, as the ledger knows it. Times are seconds since the epoch.
    """

    id: int
    started_at: float
    pid: int
    host: str
    done_before: int
    target: int
    beat_at: float | None
    note: str | None
    ended_at: float | None
    exit_code: int | None
    reason: str | None


_GOOD_CALLS_OF = "calls WHERE failure IS NULL AND position IN (SELECT value FROM json_each(?))"


def _listed(positions: Sequence[int]) -> str:
    return json.dumps([*positions])


class LedgerReader:
    """
    A connection with which nothing can be changed; reads are brief, so that the log can be folded.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """
        Open the ledger at *path* for reading; usable from any one thread at a time.

        Raises:
            StorageError: there is none, or it is damaged or of another version.
        """
        try:
            connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro",
                uri=True,
                timeout=READER_WAIT_S,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.Error as error:
            raise ledger_error(f"cannot read the ledger {path}", error) from error
        reader = cls(connection)
        try:
            check_version(reader._one("PRAGMA user_version"), path)
        except StorageError:
            reader.close()
            raise
        return reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        Close the connection.
        """
        self.connection.close()

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """
        Ask. A damaged file is told as that, at whichever row it comes to light.
        """
        try:
            # `yield from` would close the cursor of whoever stops early, perhaps after the ledger.
            for row in self.connection.execute(sql, values):  # noqa: UP028 - see above
                yield row
        except sqlite3.Error as error:
            raise ledger_error("cannot read the ledger", error) from error

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """
        Ask for all rows at once, where they are not many.
        """
        try:
            return self.connection.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise ledger_error("cannot read the ledger", error) from error

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """
        Ask for one value.
        """
        for row in self._rows(sql, values):
            return row[0]
        raise StorageError("the ledger lacks what every output begins with", "use --restart")

    # --- what the output is -----------------------------------------------------------------------

    def meta(self) -> dict[str, Any]:
        """
        What the output began with.
        """
        rows = self._rows("SELECT key, value FROM meta")
        return {key: json.loads(value) for key, value in rows}

    def source_files(self) -> list[SourceFile]:
        """
        The source's files, as the outcomes know them.
        """
        rows = self._rows(
            "SELECT path, size_bytes, footer_sha256, row_groups FROM source_files ORDER BY number"
        )
        return [
            SourceFile(path, size, footer, tuple(json.loads(groups)))
            for path, size, footer, groups in rows
        ]

    def tally(self) -> Mapping[str, float]:
        """
        The running totals, by name; a name that never occurred is missing.
        """
        return dict(self._rows("SELECT name, value FROM tally"))

    def runs(self) -> list[RunRow]:
        """
        Every run, the oldest first.
        """
        rows = self._rows(
            "SELECT id, started_at, pid, host, done_before, target, beat_at, note, ended_at,"
            " exit_code, reason FROM runs ORDER BY id"
        )
        return [RunRow(*row) for row in rows]

    def served(self) -> dict[int, Served]:
        """
        Who has scored, by the number under which rows refer to it.
        """
        rows = self._rows("SELECT id, model, provider FROM served")
        return {number: Served(model, provider) for number, model, provider in rows}

    def routes(self) -> dict[int, str]:
        """
        The names of the routes that calls have taken, by the number under which rows refer to them.
        """
        return dict(self._rows("SELECT id, name FROM routes"))

    # --- positions --------------------------------------------------------------------------------

    def done(self, total: int) -> Positions:
        """
        Every position that has an outcome.

        Published parts stand for their whole range, so that ten million rows need not be read.
        """
        done = Positions(total)
        for number, through in self._rows("SELECT number, through FROM parts"):
            done.add_range(number * self.part_groups(), through)
        first = next(done.missing(0, total), total)
        for table in ("ranked", "rejects", "empties"):
            rows = self._rows(f"SELECT position FROM {table} WHERE position >= ?", (first,))
            for (position,) in rows:
                done.add(position)
        return done

    def part_groups(self) -> int:
        """
        How many positions one part covers.
        """
        return int(self._one("SELECT value FROM meta WHERE key = 'part_groups'"))

    def rejected_positions(self) -> list[int]:
        """
        The positions of rejected groups, in order.
        """
        rows = self._rows("SELECT position FROM rejects ORDER BY position")
        return [position for (position,) in rows]

    def flawed_positions(self) -> list[int]:
        """
        Those of them that nobody was asked about: the source is at fault.
        """
        rows = self._rows("SELECT position FROM rejects WHERE kind = ?", (RejectKind.FLAWED.value,))
        return [position for (position,) in rows]

    def rejects_before(self, at: float, stop: int) -> int:
        """
        How many groups below position *stop* were rejected before *at*.
        """
        return int(
            self._one(
                "SELECT count(*) FROM rejects WHERE rejected_at < ? AND position < ?", (at, stop)
            )
        )

    def equals(self, stop: int) -> Iterator[tuple[int, int]]:
        """
        Groups below *stop* that take another's outcome, and whose, in order.
        """
        return self._rows(
            "SELECT position, leader FROM equals WHERE position < ? ORDER BY position", (stop,)
        )

    def followers(self, leader: int, after: int, most: int) -> list[tuple[int, int]]:
        """
        The first so many groups beyond *after* that take the outcome of *leader*, each with how
        many of its documents were cut.
        """
        return self._all(
            "SELECT position, cut FROM equals WHERE leader = ? AND position > ?"
            " ORDER BY position LIMIT ?",
            (leader, after, most),
        )

    def rejected(self, position: int) -> Rejected | None:
        """
        The reject at *position*, if there is one.
        """
        rows = self._all(
            "SELECT query_id, kind, message, status, code, attempts FROM rejects"
            " WHERE position = ?",
            (position,),
        )
        for query_id, kind, message, status, code, attempts in rows:
            why = RejectKind(kind)
            return Rejected(position, query_id, why, message, status, code, attempts)
        return None

    def size_bytes(self) -> int:
        """
        The room that the ledger takes, without its log and without what is free in it.
        """
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return int(pages * self._one("PRAGMA page_size"))

    def reject_counts(self) -> list[tuple[str, int, str, str]]:
        """
        For each kind of reject: kind, how many, and one example's query id and message.
        """
        rows = self._rows(
            "SELECT kind, count(*), query_id, message, min(position) FROM rejects GROUP BY kind"
            " ORDER BY count(*) DESC, kind"
        )
        return [(kind, count, query_id, message) for kind, count, query_id, message, _ in rows]

    def cost_of_rejects(self) -> int:
        """
        What is booked for the calls of groups that are rejected, in 10^-9 USD. Reads every call.
        """
        return int(
            self._one(
                "SELECT coalesce(sum(cost_nano_usd), 0) FROM calls"
                " WHERE position IN (SELECT position FROM rejects)"
            )
        )

    def slices(self) -> Iterator[Scored]:
        """
        The scored slices of groups that have others still to come.
        """
        served = self.served()
        rows = self._rows(
            "SELECT position, start, stop, served, scores FROM slices ORDER BY position, start"
        )
        for position, start, stop, who, scores in rows:
            part = Slice(position, start, stop)
            yield Scored(part, tuple(unpack_scores(scores)), served[who])

    def known(self, start: int, stop: int) -> list[Ranked]:
        """
        What earlier outputs have of some pairs of the groups `start <= position < stop`.
        """
        rows = self._all(
            "SELECT position, served, scores, shares FROM known"
            " WHERE position >= ? AND position < ? ORDER BY position",
            (start, stop),
        )
        who = self.served() if rows else {}
        return [RankedRow._make(row).outcome(who) for row in rows]

    def known_documents(self, total: int) -> Iterator[tuple[int, int]]:
        """
        The positions before *total* of which earlier outputs have some pairs, and how many.
        """
        yield from self._rows("SELECT position, documents FROM known WHERE position < ?", (total,))

    def calls_since(self, at: float) -> int:
        """
        How many of the latest hundred thousand calls were sent at or after *at*.
        """
        return int(
            self._one(
                "SELECT count(*) FROM (SELECT sent_at FROM calls ORDER BY rowid DESC LIMIT 100000)"
                " WHERE sent_at >= ?",
                (at,),
            )
        )

    def booked(
        self, since: float, until: float, together: int = CALLS_TOGETHER
    ) -> Iterator[BookedRow]:
        """
        The calls sent at `since <= at < until` (seconds since the epoch), summed where they are
        alike; rows that are alike may come several times. What is committed meanwhile is left out.
        """
        # No call is ever deleted: what is there keeps its place, and what comes is behind it.
        last = self._one("SELECT coalesce(max(rowid), 0) FROM calls")
        for start in range(1, last + 1, together):
            stop = min(start + together, last + 1)
            yield from map(BookedRow._make, self._all(_BOOKED, (start, stop, since, until)))

    def called(self, positions: Sequence[int]) -> set[int]:
        """
        Those of *positions* that somebody was asked about, with success.
        """
        rows = self._rows(f"SELECT DISTINCT position FROM {_GOOD_CALLS_OF}", (_listed(positions),))
        return {position for (position,) in rows}

    def billed(self, positions: Sequence[int]) -> dict[int, tuple[int, bool]]:
        """
        What the calls that scored the ranked groups among *positions* cost, in 10^-9 US dollars,
        and whether all of it is known from the replies.
        """
        rows = self._rows(
            "SELECT position, sum(cost_nano_usd), min(cost_source IN (?, ?))"
            f" FROM {_GOOD_CALLS_OF} AND position IN (SELECT position FROM ranked)"
            " GROUP BY position",
            (CostSource.REPORTED.value, CostSource.PRICED.value, _listed(positions)),
        )
        return {position: (int(cost), bool(known)) for position, cost, known in rows}

    def outcomes_twice(self) -> int:
        """
        How many positions have more than one final word; it is a bug if there is one.
        """
        pairs = (("ranked", "rejects"), ("ranked", "empties"), ("rejects", "empties"))
        return sum(
            self._one(f"SELECT count(*) FROM {few} WHERE position IN (SELECT position FROM {many})")
            for many, few in pairs
        )

    def sends(self) -> dict[tuple[int, int, int], tuple[int, int]]:
        """
        For each slice that has failed and has no outcome: its attempts, and the unthrottled ones.
        """
        rows = self._rows(
            "SELECT position, start, stop, count(*),"
            " sum(failure NOT IN ('throttled', 'never_sent'))"
            " FROM calls INDEXED BY failed_calls WHERE failure IS NOT NULL"
            " AND position NOT IN (SELECT position FROM ranked)"
            " GROUP BY position, start, stop"
        )
        return {(p, start, stop): (every, sent) for p, start, stop, every, sent in rows}

    # --- parts ------------------------------------------------------------------------------------

    def parts(self) -> list[PartRow]:
        """
        Every part that has its final name, in order.
        """
        rows = self._rows(
            "SELECT number, file, through, rows, groups, sha256, stale FROM parts ORDER BY number"
        )
        return [PartRow(*row) for row in rows]

    def published(self) -> int:
        """
        How many positions lie in parts that have their final name and need not be rendered again.
        """
        sql = "SELECT coalesce(sum(through - number * ?), 0) FROM parts WHERE NOT stale"
        return int(self._one(sql, (self.part_groups(),)))

    def ranked(self, start: int, stop: int) -> list[RankedRow]:
        """
        The ranked groups of `start <= position < stop`, in order.
        """
        rows = self._all(
            "SELECT position, served, scores, shares FROM ranked"
            " WHERE position >= ? AND position < ? ORDER BY position",
            (start, stop),
        )
        return [RankedRow._make(row) for row in rows]

    def count_ranked(self, start: int, stop: int) -> int:
        """
        How many groups of `start <= position < stop` are ranked.
        """
        return int(
            self._one(
                "SELECT count(*) FROM ranked WHERE position >= ? AND position < ?", (start, stop)
            )
        )

    def count_outcomes(self, start: int, stop: int) -> int:
        """
        How many groups of `start <= position < stop` have an outcome of any kind.
        """
        found = 0
        for table in ("ranked", "rejects", "empties"):
            found += self._one(
                f"SELECT count(*) FROM {table} WHERE position >= ? AND position < ?", (start, stop)
            )
        return found

    def carried(self, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """
        The packed columns that cover `start <= position < stop`: position, rows, body, in order.
        """
        rows = self._rows(
            "SELECT position, rows, body FROM carried WHERE position < ? AND position + rows > ?"
            " AND position >= ? - (SELECT max(rows) FROM carried) ORDER BY position",
            (stop, start, start),
        )
        return iter(list(rows))  # brief: nothing is held open while blocks are unpacked

    def carried_after(self, position: int, most: int) -> list[tuple[int, int, bytes]]:
        """
        The first so many blocks of packed columns that begin beyond *position*.
        """
        return self._all(
            "SELECT position, rows, body FROM carried WHERE position > ? ORDER BY position LIMIT ?",
            (position, most),
        )


def ledger_error(
    what: str, error: sqlite3.Error, without: str = "or use --restart"
) -> StorageError:
    """
    An error of SQLite's in our tree, told apart by whether the disk is full. *without* is what to
    do about a damaged file of which there is no copy.
    """
    primary = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    full = primary == sqlite3.SQLITE_FULL
    damaged = f"the file is damaged: restore it from a copy, {without}"
    hints = {
        sqlite3.SQLITE_FULL: "make room and run again: what was paid for is kept",
        sqlite3.SQLITE_BUSY: "another program holds the file locked: close it, then run again",
        sqlite3.SQLITE_IOERR: "see what the system's log says of this disk, then run again",
        sqlite3.SQLITE_READONLY: "make the file and its folder writable, then run again",
        sqlite3.SQLITE_CANTOPEN: "make the file and its folder writable, then run again",
        sqlite3.SQLITE_CORRUPT: damaged,
        sqlite3.SQLITE_NOTADB: damaged,
    }
    return StorageError(f"{what}: {error}", hints.get(primary, ""), out_of_space=full)


def check_version(version: int, path: Path) -> None:
    """
    Refuse a ledger that another version of batchrank wrote.

    Raises:
        StorageError: saying which.
    """
    if version != SCHEMA_VERSION:
        raise StorageError(
            f"the ledger {path} has schema {version}, this batchrank knows {SCHEMA_VERSION}",
            "use the version of batchrank that began this output, or begin anew with --restart",
        )
