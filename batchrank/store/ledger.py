"""
The ledger: the durable record of outcomes, attempts and money of one output, in SQLite.

Owns the one connection that writes, and the promise that what `commit` was given is on the disk
when it returns, whole or not at all. Write-ahead log with `synchronous=FULL`: a killed process
loses nothing that was committed, a power cut neither. Renders nothing and decides nothing: what is
an outcome is decided in `engine`.

It is used from one thread at a time. Everybody else reads through `LedgerReader`.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from math import isnan
from pathlib import Path
from typing import Any

from batchrank.domain import (
    Call,
    CostSource,
    Empty,
    Failure,
    FailureKind,
    Outcome,
    Positions,
    Ranked,
    Rejected,
    Scored,
    Served,
    SourceFile,
)
from batchrank.errors import StorageError
from batchrank.policy.amounts import Amount
from batchrank.store.blocks import cut
from batchrank.store.disk import identity_of, storage_error, sync_folder
from batchrank.store.inserting import STATEMENTS_KEPT, insert
from batchrank.store.reading import (
    AUTHORISED,
    LOST,
    UNITS_ESTIMATED,
    LedgerReader,
    PartRow,
    check_version,
    ledger_error,
    named,
)
from batchrank.store.tables import SCHEMA, SCHEMA_VERSION, pack_scores, pack_shares

NEVER_SENT = FailureKind.NEVER_SENT

_COLUMNS = {
    "meta": 2,
    "source_files": 5,
    "rejects": 8,
    "empties": 1,
    "slices": 5,
    "carried": 3,
    "equals": 3,
    "parts": 7,
}
"""How many columns the tables have that get few rows a commit; `tables` says which."""

_CALLS = (
    "calls (position, start, stop, attempt, probe, sent_at, latency_s, status, request_id, served,"
    " search_units, total_tokens, cost_nano_usd, cost_source, route"
)
_FAILED_CALLS = f"{_CALLS}, failure, code, message, reply_bytes, reply_sha256)"
_GOOD_CALLS = f"{_CALLS})"
_SHARED = "ranked (position, served, scores, shares)"
_RANKED = "ranked (position, served, scores)"
"""
The tables that get a row for every group. What is null in all rows of a commit, as it is nearly
always, is not named: Python's sqlite3 takes ten times as long to bind None as a number.
"""

LOCKED_S_MAX = 120.0
"""So long a commit waits for whoever locks the ledger (a backup, a curious person), in seconds."""


@dataclass(slots=True)
class Records:
    """
    What one commit makes durable, all of it or nothing.

    *carried* are packed columns: position, rows, body. *authorised* is the total that may be spent
    before the next commit that says so, *models* those that serve this job, by the key of `meta`
    for each route, *note* a word for `status` ("" takes it back). *reused*: so many of the outcomes
    are another output's scores; *equal*: so many are those of an equal group. *known* are groups
    that earlier outputs have some scores of. *at* is seconds since the epoch.
    """

    at: float = 0.0
    calls: list[Call] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    slices: list[Scored] = field(default_factory=list)
    known: list[Ranked] = field(default_factory=list)
    carried: list[tuple[int, int, bytes]] = field(default_factory=list)
    parts: list[PartRow] = field(default_factory=list)
    authorised: Amount | None = None
    models: dict[str, str] = field(default_factory=dict)
    note: str | None = None
    reused: int = 0
    equal: int = 0

    def __bool__(self) -> bool:
        return bool(
            self.calls
            or self.outcomes
            or self.slices
            or self.known
            or self.carried
            or self.parts
            or self.authorised is not None
            or self.models
            or self.note is not None
        )


class Ledger(LedgerReader):
    """
    The one connection that writes.
    """

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        super().__init__(connection)
        self._path = path
        self._file: tuple[int, int] | None = None
        self._run = 0
        # What is in the tables, so that a commit need not look.
        self._served: dict[tuple[str, str | None], int] = {}
        self._routes: dict[str, int] = {}
        self._rejected: set[int] = set()
        self._sliced: set[int] = set()

    @classmethod
    def create_or_open(cls, path: Path | None) -> Ledger:
        """
        Open the ledger at *path*, making it if it is not there; None is one in memory, for tests.

        Raises:
            StorageError: it is damaged, of another version, or the disk does not let us.
        """
        if path is None:
            return cls._opened(":memory:")
        if not path.exists() or not path.stat().st_size:
            cls._create(path)
        return cls._opened(str(path))

    @classmethod
    def _create(cls, path: Path) -> None:
        """
        Make a ledger under another name first: one that is half made is never found.
        """
        aside = path.with_name(f".{path.name}.new")
        try:
            # A log without its file would be taken for the new one's.
            for name in (path.name, aside.name):
                for end in ("", "-journal", "-wal", "-shm"):
                    path.with_name(name + end).unlink(missing_ok=True)
            cls._opened(str(aside)).close()
            aside.replace(path)
        except OSError as error:
            raise storage_error(f"cannot make the ledger {path}", error) from error
        sync_folder(path.parent)

    @classmethod
    def _opened(cls, where: str) -> Ledger:
        ledger = cls(_connect(where), where)
        try:
            with ledger._translated("open"):
                ledger._prepare()
                ledger._remember()
                ledger._file = identity_of(where)
        except BaseException:  # interrupted, too: nobody else holds this connection
            ledger.close()
            raise
        return ledger

    def _prepare(self) -> None:
        run = self.connection.execute
        run("PRAGMA synchronous = FULL")
        run("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves it in the drive's cache
        run("PRAGMA checkpoint_fullfsync = ON")
        version = run("PRAGMA user_version").fetchone()[0]
        if version == 0 and not run("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self.connection.executescript(
                f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        else:
            check_version(version, Path(self._path))
        # After the tables: what lies in the log alone would not be renamed with the file.
        run("PRAGMA journal_mode = WAL")

    def _remember(self) -> None:
        self._served = {(who.model, who.provider): n for n, who in self.served().items()}
        self._routes = {name: number for number, name in self.routes().items()}
        self._rejected = set(self.rejected_positions())
        sliced = self.connection.execute("SELECT DISTINCT position FROM slices")
        self._sliced = {position for (position,) in sliced}

    # --- the output as a whole --------------------------------------------------------------------

    def begin(self, meta: Mapping[str, Any], files: Sequence[SourceFile]) -> None:
        """
        Write down what the output begins with, or replace what may change on a started one.
        """
        with self._transaction() as run:
            self._set_meta(meta)
            run("DELETE FROM source_files")
            self._insert(
                "source_files",
                (
                    (n, f.path, f.size_bytes, f.footer_sha256, json.dumps(f.row_groups))
                    for n, f in enumerate(files)
                ),
            )

    def set_meta(self, meta: Mapping[str, Any]) -> None:
        """
        Set some of what the output is known by.
        """
        with self._transaction():
            self._set_meta(meta)

    def _set_meta(self, meta: Mapping[str, Any]) -> None:
        pairs = ((key, json.dumps(value)) for key, value in meta.items())
        self._insert("meta", pairs, "OR REPLACE")

    def start_run(self, at: float, pid: int, host: str, *, done_before: int, target: int) -> int:
        """
        Note that a run has begun; returns its number.
        """
        with self._transaction() as run:
            cursor = run(
                "INSERT INTO runs (started_at, pid, host, done_before, target)"
                " VALUES (?, ?, ?, ?, ?)",
                (at, pid, host, done_before, target),
            )
            self._run = int(cursor.lastrowid or 0)
        return self._run

    def end_run(self, at: float, exit_code: int, reason: str) -> None:
        """
        Note how the run ended.
        """
        with self._transaction() as run:
            run(
                "UPDATE runs SET ended_at = ?, exit_code = ?, reason = ?, note = NULL WHERE id = ?",
                (at, exit_code, reason, self._run),
            )

    def count_lost(self, lost: Amount, days: Mapping[str, Amount]) -> None:
        """
        Note that killed runs may have spent *lost* in all that no call tells of; *days* is what of
        that is new, by the UTC days of a shared budget.
        """
        with self._transaction():
            self._set_meta(named(LOST, lost))
            new = [named(day, amount) for day, amount in days.items()]
            self._add_up({name: amount for amounts in new for name, amount in amounts.items()})

    def relayout(
        self,
        meta: Mapping[str, Any],
        carried: Iterable[tuple[int, int, bytes]] | None,
        before_commit: Callable[[], object],
    ) -> None:
        """
        Take all parts for unpublished, because they are to look otherwise; *carried* are the packed
        columns, where those are others now. *before_commit* is called when nothing but the disk can
        go wrong any more.
        """
        with self._transaction() as run:
            self._set_meta(meta)
            run("DELETE FROM parts")
            if carried is not None:
                run("DELETE FROM carried")
                self._insert("carried", carried)
            before_commit()

    def forget_carried(self, kept: Positions) -> None:
        """
        Drop the packed columns of positions that are not in *kept*: they are read anew, from a file
        that was mended.
        """
        with self._transaction() as run:
            for position, rows in run("SELECT position, rows FROM carried").fetchall():
                end = position + rows
                if kept.count(position, end) < rows:
                    ((body,),) = run("SELECT body FROM carried WHERE position = ?", (position,))
                    self._delete("carried", [position])
                    for start, stop in _runs(kept, position, end):
                        piece = cut(body, start - position, stop - position)
                        self._insert("carried", [(start, stop - start, piece)])

    def forget_slices(self, start: int, stop: int) -> None:
        """
        Drop scored slices of `start <= position < stop` whose groups have others still to come, and
        what earlier outputs have of groups that are not ranked.
        """
        where = "WHERE position >= ? AND position < ?"
        open_still = f"{where} AND position NOT IN (SELECT position FROM ranked)"
        with self._transaction() as run:
            run(f"DELETE FROM slices {where}", (start, stop))
            known = run(f"SELECT total(documents) FROM known {open_still}", (start, stop))
            self._add_up({"documents_reused": -known.fetchone()[0]})
            run(f"DELETE FROM known {open_still}", (start, stop))

    def put_equals(
        self, rows: Iterable[tuple[int, int, int]], meta: Mapping[str, Any] | None = None
    ) -> None:
        """
        Note which groups take whose outcome: position, leader, and documents that were cut. *meta*
        is set along with them.
        """
        with self._transaction():
            self._insert("equals", rows, "OR REPLACE")
            self._set_meta(meta or {})

    def forget_equals(self) -> None:
        """
        Let no group take another's outcome any more: what they ask may be something else now.
        """
        with self._transaction() as run:
            run("DELETE FROM equals")
            run("DELETE FROM meta WHERE key = 'looked_up'")

    def mark_stale(self, numbers: Iterable[int]) -> None:
        """
        Note that the parts *numbers* have to be rendered again.
        """
        with self._transaction():
            self.connection.executemany(
                "UPDATE parts SET stale = 1 WHERE number = ?", ((number,) for number in numbers)
            )

    def prune(self) -> int:
        """
        Delete what only rendering needs, and give the room back; returns the groups concerned.

        Rejects stay, and calls: they are the account of the money. From here on no part can be
        rendered again, and the ledger says so.
        """
        with self._transaction() as run:
            gone = int(run("DELETE FROM ranked").rowcount)
            run("DELETE FROM carried")
            run("DELETE FROM equals")
            run("DELETE FROM known")
            self._set_meta({"pruned": True})
        with self._translated("compact"):
            self.connection.execute("VACUUM")
            self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return gone

    # --- one commit -------------------------------------------------------------------------------

    def commit(self, records: Records) -> None:
        """
        Make *records* durable.

        Raises:
            StorageError: nothing of it was stored. With `out_of_space` it may be tried again.
        """
        tally: dict[str, float] = defaultdict(float)
        with self._transaction() as run:
            self._put_calls(records.calls, tally)
            self._count_by_route(records, tally)
            self._put_slices(records.slices)
            self._put_known(records.known, tally)
            self._put_outcomes(records.outcomes, records.at, tally)
            tally["reused"] += records.reused
            tally["equal"] += records.equal
            self._put_carried(records.carried)
            self._insert("parts", [astuple(part) for part in records.parts], "OR REPLACE")
            if records.authorised is not None:
                self._set_meta(named(AUTHORISED, records.authorised))
            if records.models:
                self._set_meta(records.models)
            if records.note is not None:
                run("UPDATE runs SET note = ? WHERE id = ?", (records.note or None, self._run))
            run("UPDATE runs SET beat_at = ? WHERE id = ?", (records.at, self._run))
            self._add_up(tally)

    def _put_calls(self, calls: Sequence[Call], tally: dict[str, float]) -> None:
        failed = Counter(call.failure.kind for call in calls if call.failure)
        if failed:
            rows = [(*self._call_row(call), *_failure_row(call.failure)) for call in calls]
            insert(self.connection, _FAILED_CALLS, rows)
        else:
            insert(self.connection, _GOOD_CALLS, [self._call_row(call) for call in calls])
        for kind, count in failed.items():
            tally[f"calls.{kind.value}"] += count
        tally["calls.ok"] += len(calls) - failed.total()
        for source in {call.cost_source for call in calls}:
            costs = [call.cost_nano_usd for call in calls if call.cost_source is source]
            tally[f"cost_nano_usd.{source.value}"] += sum(costs)
            if source is CostSource.UNKNOWN:
                tally["calls.cost_unknown"] += len(costs)
        tally["calls.repeated"] += sum(call.attempt > 1 for call in calls)
        tally["search_units"] += sum(call.usage.search_units or 0.0 for call in calls)
        tally["total_tokens"] += sum(call.usage.total_tokens or 0 for call in calls)
        tally[UNITS_ESTIMATED] += sum(
            max(0.0, call.search_units - (call.usage.search_units or 0.0)) for call in calls
        )
        for day in {call.day for call in calls if call.day}:
            for name, amount in named(day, _spent_on(day, calls)).items():
                tally[name] += amount

    def _count_by_route(self, records: Records, tally: dict[str, float]) -> None:
        """
        Add up what each route was asked and paid, and the groups whose last scores came by it.
        """
        count, cost = Counter[str](), Counter[str]()
        last: dict[int, str] = {}
        for call in records.calls:
            count[call.route] += 1
            cost[call.route] += call.cost_nano_usd
            if call.failure is None:
                last[call.slice.position] = call.route
        ended = (one.position for one in records.outcomes if isinstance(one, Ranked))
        groups = Counter(last[position] for position in ended if position in last)
        for what, held in (("calls", count), ("cost_nano_usd", cost), ("groups", groups)):
            for name, number in held.items():
                tally[f"route.{what}.{name}"] += number

    def _call_row(self, call: Call) -> tuple[Any, ...]:
        part, usage, failure = call.slice, call.usage, call.failure
        return (
            part.position,
            part.start,
            part.stop,
            call.attempt,
            1 if call.probe else 0,
            call.sent_at,
            call.latency_s,
            failure.status if failure else 200,
            call.request_id,
            self._served_id(call.served) if call.served else None,
            usage.search_units,
            usage.total_tokens,
            call.cost_nano_usd,
            str(call.cost_source),
            self._route_id(call.route),
        )

    def _put_slices(self, slices: Sequence[Scored]) -> None:
        self._insert(
            "slices",
            (
                (
                    scored.slice.position,
                    scored.slice.start,
                    scored.slice.stop,
                    self._served_id(scored.served),
                    pack_scores(scored.scores),
                )
                for scored in slices
            ),
        )
        self._sliced.update(scored.slice.position for scored in slices)

    def _put_known(self, known: Sequence[Ranked], tally: dict[str, float]) -> None:
        """
        Keep scores that need not be paid for. What a group has stays: a slice of it that was asked
        about since lacks these very documents.
        """
        rows = (
            (*self._ranked_row(one), self._shares(one), sum(not isnan(s) for s in one.scores))
            for one in known
        )
        insert = "INSERT OR IGNORE INTO known (position, served, scores, shares, documents)"
        for row in rows:
            taken = self.connection.execute(f"{insert} VALUES (?, ?, ?, ?, ?)", row).rowcount
            tally["documents_reused"] += taken * row[-1]

    def _put_outcomes(
        self, outcomes: Sequence[Outcome], at: float, tally: dict[str, float]
    ) -> None:
        """
        Write final words. One that follows a reject overrules it; nothing else may come twice.
        """
        if self._rejected:
            overruled = [o.position for o in outcomes if o.position in self._rejected]
            self._overrule(overruled)
            tally["rejected"] -= len(overruled)
        ranked = [o for o in outcomes if isinstance(o, Ranked)]
        self._put_ranked(ranked, tally)
        if len(ranked) < len(outcomes):
            self._put_unranked(outcomes, at, tally)

    def _put_unranked(
        self, outcomes: Sequence[Outcome], at: float, tally: dict[str, float]
    ) -> None:
        rejected = [o for o in outcomes if isinstance(o, Rejected)]
        self._insert("rejects", (_reject_row(o, at) for o in rejected))
        self._rejected.update(o.position for o in rejected)
        empty = [(o.position,) for o in outcomes if isinstance(o, Empty)]
        self._insert("empties", empty)
        tally["rejected"] += len(rejected)
        tally["empty"] += len(empty)

    def _overrule(self, positions: Sequence[int]) -> None:
        """
        Take rejects back; the parts they lie in have to be rendered again.
        """
        self._delete("rejects", positions)
        self._rejected.difference_update(positions)
        groups = self.part_groups()
        self.connection.executemany(
            "UPDATE parts SET stale = 1 WHERE number = ?", ((p // groups,) for p in positions)
        )

    def _put_carried(self, carried: Iterable[tuple[int, int, bytes]]) -> None:
        """
        Keep the packed columns of positions that have none yet: those that are there belong to
        what was scored, whatever the source holds now.
        """
        for position, rows, body in carried:
            end = position + rows
            for start, stop in list(self._uncarried(position, end)):
                whole = (start, stop) == (position, end)
                piece = body if whole else cut(body, start - position, stop - position)
                self._insert("carried", [(start, stop - start, piece)])

    def _uncarried(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """
        Yield the ranges of `start <= position < stop` of which no packed columns are kept.
        """
        run = self.connection.execute
        before = run(
            "SELECT position, rows FROM carried WHERE position <= ? ORDER BY position DESC LIMIT 1",
            (start,),
        )
        inside = run(
            "SELECT position, rows FROM carried WHERE position > ? AND position < ?"
            " ORDER BY position",
            (start, stop),
        )
        for position, rows in [*before, *inside]:
            if start < position:
                yield start, position
            start = max(start, position + rows)
        if start < stop:
            yield start, stop

    def _put_ranked(self, ranked: Sequence[Ranked], tally: dict[str, float]) -> None:
        if any(len(outcome.shares) > 1 for outcome in ranked):
            rows = [(*self._ranked_row(outcome), self._shares(outcome)) for outcome in ranked]
            insert(self.connection, _SHARED, rows)
        else:
            insert(self.connection, _RANKED, [self._ranked_row(outcome) for outcome in ranked])
        if self._sliced:
            whole = [outcome.position for outcome in ranked if outcome.position in self._sliced]
            self._delete("slices", whole)
            self._sliced.difference_update(whole)
        tally["ranked"] += len(ranked)
        tally["candidates"] += sum(len(outcome.scores) for outcome in ranked)
        tally["documents_cut"] += sum(outcome.cut for outcome in ranked)

    def _ranked_row(self, ranked: Ranked) -> tuple[Any, ...]:
        shares = ranked.shares
        one = self._served_id(shares[0].served) if len(shares) == 1 else None
        return ranked.position, one, pack_scores(ranked.scores)

    def _shares(self, ranked: Ranked) -> bytes | None:
        if len(ranked.shares) < 2:
            return None
        return pack_shares((share.stop, self._served_id(share.served)) for share in ranked.shares)

    def _served_id(self, served: Served) -> int:
        who = served.model, served.provider
        number = self._served.get(who)
        if number is None:
            cursor = self.connection.execute(
                "INSERT INTO served (model, provider) VALUES (?, ?)", who
            )
            number = self._served[who] = cursor.lastrowid or 0
        return number

    def _route_id(self, name: str) -> int:
        number = self._routes.get(name)
        if number is None:
            cursor = self.connection.execute("INSERT INTO routes (name) VALUES (?)", (name,))
            number = self._routes[name] = cursor.lastrowid or 0
        return number

    def _add_up(self, tally: dict[str, float]) -> None:
        insert(
            self.connection,
            "tally",
            [(name, value) for name, value in tally.items() if value],
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        )

    # --- statements and transactions --------------------------------------------------------------

    def _insert(self, table: str, rows: Iterable[Sequence[Any]], clause: str = "") -> None:
        marks = ", ".join("?" * _COLUMNS[table])
        self.connection.executemany(f"INSERT {clause} INTO {table} VALUES ({marks})", rows)

    def _delete(self, table: str, positions: Iterable[int]) -> None:
        self.connection.executemany(
            f"DELETE FROM {table} WHERE position = ?",
            ((position,) for position in positions),
        )

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._translated("write"):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection.execute
                self.connection.execute("COMMIT")
                self._check_there()
            except BaseException:  # interrupted, too: a transaction ends whole or not at all
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                self._remember()
                raise

    def _check_there(self) -> None:
        """
        Refuse to go on with a file that nobody will find again: SQLite writes it all the same.
        """
        if identity_of(self._path) != self._file:
            raise StorageError(
                f"the ledger {self._path} was removed or replaced while it was being written",
                "put it back if you can, and run again: without it everything is paid again",
            )

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise  # two final words on one group: a bug of ours, and nothing else
        except sqlite3.Error as error:
            raise ledger_error(f"cannot {what} the ledger {self._path}", error) from error


def _connect(where: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            where,
            timeout=LOCKED_S_MAX,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS_KEPT,
        )
    except sqlite3.Error as error:
        raise ledger_error(f"cannot open the ledger {where}", error) from error


def _runs(kept: Positions, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """
    Yield the ranges of `start <= position < stop` that are wholly in *kept*.
    """
    for gap in (*kept.missing(start, stop), stop):
        if start < gap:
            yield start, gap
        start = gap + 1


def _spent_on(day: str, calls: Sequence[Call]) -> Amount:
    counted = [call for call in calls if call.day == day]
    unsent = sum(c.failure is not None and c.failure.kind is NEVER_SENT for c in counted)
    return Amount(
        sum(call.cost_nano_usd for call in counted),
        len(counted) - unsent,
        sum(call.search_units for call in counted),
    )


def _failure_row(failure: Failure | None) -> tuple[Any, ...]:
    if failure is None:
        return (None,) * 5
    return (
        failure.kind.value,
        failure.code,
        failure.message,
        failure.reply_bytes,
        failure.reply_sha256,
    )


def _reject_row(rejected: Rejected, at: float) -> tuple[Any, ...]:
    return (
        rejected.position,
        str(rejected.query_id),
        rejected.kind.value,
        rejected.status,
        rejected.code,
        rejected.message,
        rejected.attempts,
        at,
    )
