"""
The ledger on real SQLite: what was committed is there after a crash, nothing else is.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace as remade

from batchrank.domain import (
    UNSCORED,
    Call,
    CostSource,
    Empty,
    FailureKind,
    Outcome,
    Ranked,
    Rejected,
    RejectKind,
    Scored,
    Served,
    Slice,
    Usage,
)
from batchrank.errors import Exit, StorageError
from batchrank.policy.amounts import Amount
from batchrank.store.blocks import opened
from batchrank.store.ledger import Ledger, Records
from batchrank.store.reading import AUTHORISED, LedgerReader, PartRow, named
from batchrank.store.tables import (
    SCHEMA_VERSION,
    pack_scores,
    pack_shares,
    unpack_scores,
    unpack_shares,
)
from tests.edges.ledgers import (
    BY,
    FILES,
    begun,
    call,
    for_now,
    limit_pages,
    pages,
    ranked,
    readonly,
)
from tests.laws import law

TOTAL = 24
WHO = [BY, Served("v/m", None), Served("v/m-20260101", "Other"), Served("", "")]


def part(number: int, **more: object) -> PartRow:
    """
    A part as if it had been published.
    """
    row = PartRow(number, f"part-{number:05}.parquet", number * 8 + 8, 9, 8, "ab", stale=False)
    return replace(row, **more)  # type: ignore[arg-type] # the names are the fields' own


# --- the law --------------------------------------------------------------------------------------

kinds = st.none() | st.sampled_from(FailureKind)
calls = st.builds(
    call,
    st.integers(0, TOTAL - 1),
    kinds,
    attempt=st.integers(1, 3),
    cost=st.integers(0, 10**13),
    source=st.sampled_from(CostSource),
    usage=st.builds(Usage, st.none() | st.integers(0, 9), st.none() | st.integers(0, 10**9)),
    served=st.none() | st.sampled_from(WHO),
    route=st.sampled_from(["first", "second"]),
)
ranges = st.lists(st.tuples(st.integers(0, TOTAL), st.integers(1, 9)), max_size=3)
scores = st.lists(st.floats(allow_infinity=False), max_size=4)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def marked(mark: int, rows: int) -> bytes:
    """
    A block of which every row says where it is from.
    """
    columns, sink = (
        pa.RecordBatch.from_pydict({"documents": [mark] * rows}),
        pa.BufferOutputStream(),
    )
    with pa.ipc.new_stream(sink, columns.schema) as stream:
        stream.write_batch(columns)
    return bytes(sink.getvalue().to_pybytes())


def marks_in(ledger: LedgerReader) -> dict[int, int]:
    """
    For every position that has packed columns, the mark of its row; each is covered once.
    """
    found: dict[int, int] = {}
    for position, rows, body in ledger.carried(0, 1000):
        marks = opened(body).column("documents").to_pylist()
        assert rows == len(marks)
        assert found.keys().isdisjoint(range(position, position + rows))
        found |= dict(enumerate(marks, position))
    return found


SERVED = ("served_model", "served_model.cohere.m")
"""What the models that serve routes are kept under."""


class LedgerMachine(RuleBasedStateMachine):
    """
    Commits of anything that may happen; crashes and reopenings at any moment.

    The model is what `commit` has returned for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledger.sqlite"
        self.ledger = begun(self.path)
        self.outcomes: dict[int, Outcome] = {}
        self.candidates = 0
        self.slices: dict[tuple[int, int], Scored] = {}
        self.calls: list[Call] = []
        self.groups_by_route: Counter[str] = Counter()
        self.carried: dict[int, int] = {}  # by position: which commit it came with
        self.commits = 0
        self.parts: dict[int, PartRow] = {}
        self.meta: dict[str, object] = {}

    def teardown(self) -> None:
        """
        Leave nothing behind.
        """
        self.ledger.close()
        shutil.rmtree(self.folder)

    # --- what happens -----------------------------------------------------------------------------

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """
        Outcomes of groups that have none, or a reject; slices of groups that have no scores.
        """
        records = Records(at=5.0, calls=data.draw(st.lists(calls, max_size=4)))
        records.outcomes = [self._outcome(data, p) for p in self._open_positions(data)]
        ended = {outcome.position for outcome in records.outcomes}
        records.slices = self._new_slices(data, ended)
        self.commits += 1
        records.carried = [
            (position, rows, marked(self.commits, rows)) for position, rows in data.draw(ranges)
        ]
        records.authorised = data.draw(st.none() | st.builds(Amount, st.integers(0, 10**15)))
        records.models = data.draw(st.dictionaries(st.sampled_from(SERVED), words))
        self.ledger.commit(records)
        self._remember(records)

    def _open_positions(self, data: st.DataObject) -> list[int]:
        done = {p for p, o in self.outcomes.items() if not isinstance(o, Rejected)}
        left = sorted(set(range(TOTAL)) - done)
        return sorted(data.draw(st.sets(st.sampled_from(left), max_size=6))) if left else []

    def _outcome(self, data: st.DataObject, position: int) -> Outcome:
        held = tuple(data.draw(scores))
        many = [(n + 1, who) for n, who in enumerate(WHO[: len(held)])]
        choices: list[Outcome] = [
            ranked(position, held),
            remade(ranked(position, held), shares=()),
            ranked(position, held, *many) if len(many) > 1 else ranked(position, held),
            Rejected(position, data.draw(words), RejectKind.UNKNOWN, data.draw(words), 500, "c", 3),
        ]
        if position not in self.outcomes:
            choices.append(Empty(position))
        return data.draw(st.sampled_from(choices))

    def _new_slices(self, data: st.DataObject, ended: set[int]) -> list[Scored]:
        places = st.sets(st.tuples(st.integers(0, TOTAL - 1), st.integers(0, 3)), max_size=3)
        return [
            Scored(Slice(p, start, start + 1), (0.5 + start,), data.draw(st.sampled_from(WHO)))
            for p, start in sorted(data.draw(places))
            if p not in ended and p not in self.outcomes and (p, start) not in self.slices
        ]

    def _remember(self, records: Records) -> None:
        self.calls += records.calls
        last = {c.slice.position: c.route for c in records.calls if c.failure is None}
        ended = (o.position for o in records.outcomes if isinstance(o, Ranked))
        self.groups_by_route += Counter(last[p] for p in ended if p in last)
        for scored in records.slices:
            self.slices[scored.slice.position, scored.slice.start] = scored
        for outcome in records.outcomes:
            if outcome.position in self.outcomes and outcome.position // 8 in self.parts:
                row = self.parts[outcome.position // 8]
                self.parts[row.number] = replace(row, stale=True)
            self.outcomes[outcome.position] = outcome
            if isinstance(outcome, Ranked):
                self.candidates += len(outcome.scores)
                self.slices = {k: s for k, s in self.slices.items() if k[0] != outcome.position}
        for position, rows, _ in records.carried:
            for covered in range(position, position + rows):
                self.carried.setdefault(covered, self.commits)
        if records.authorised is not None:
            self.meta |= named(AUTHORISED, records.authorised)
        self.meta |= records.models

    @rule(number=st.integers(0, 2))
    def publish(self, number: int) -> None:
        """
        A part whose positions all have outcomes gets its final name.
        """
        if all(p in self.outcomes for p in range(number * 8, number * 8 + 8)):
            self.ledger.commit(Records(at=6.0, parts=[part(number)]))
            self.parts[number] = part(number)

    @rule(start=st.integers(0, 2))
    def end_a_whole_range(self, start: int) -> None:
        """
        Every open position of a part's range ends at once.
        """
        records = Records(
            outcomes=[
                ranked(p, (0.5,)) for p in range(start * 8, start * 8 + 8) if p not in self.outcomes
            ]
        )
        self.ledger.commit(records)
        self._remember(records)

    @precondition(lambda self: any(isinstance(o, Ranked) for o in self.outcomes.values()))
    @rule(again=st.booleans())
    def refuse_what_came_twice(self, again: bool) -> None:
        """
        A second ranking of a group is a bug of ours: nothing of that commit is stored.
        """
        position = next(p for p, o in self.outcomes.items() if isinstance(o, Ranked))
        beside = [call(0), call(1)] if again else []
        with pytest.raises(sqlite3.IntegrityError):
            self.ledger.commit(Records(calls=beside, outcomes=[ranked(position, (0.1,))]))

    @rule()
    def fill_the_disk(self) -> None:
        """
        A commit that finds no room changes nothing and may be tried again.
        """
        many = Records(carried=[(1000, 1, bytes(100_000))])
        limit_pages(self.ledger, pages(self.ledger))
        with pytest.raises(StorageError) as full:
            self.ledger.commit(many)
        assert full.value.out_of_space
        limit_pages(self.ledger, 10**6)

    @rule()
    def reopen(self) -> None:
        """
        End in good order, and begin again.
        """
        self.ledger.close()
        self.ledger = Ledger.create_or_open(self.path)

    @rule(in_the_middle=st.booleans())
    def crash(self, in_the_middle: bool) -> None:
        """
        The files as they are at any moment, also within a transaction, are a whole ledger.
        """
        if in_the_middle:
            self.ledger.connection.execute("BEGIN IMMEDIATE")
            self.ledger.connection.execute("DELETE FROM ranked")
            self.ledger.connection.execute("INSERT INTO empties VALUES (999)")
        aside = self.folder / "crashed"
        aside.mkdir()
        for file in self.folder.glob("ledger.sqlite*"):
            if not file.name.endswith("-shm"):  # memory that the crash took along
                shutil.copy(file, aside / file.name)
        if in_the_middle:
            self.ledger.connection.execute("ROLLBACK")
        survivor = Ledger.create_or_open(aside / "ledger.sqlite")
        self._check(survivor)
        survivor.close()
        shutil.rmtree(aside)

    @rule()
    def read_beside(self) -> None:
        """
        A reader sees what was committed, and cannot write.
        """
        with LedgerReader.open(self.path) as reader:
            self._check(reader)
            assert readonly(reader.connection, "DELETE FROM calls")
            assert readonly(reader.connection, "PRAGMA user_version = 9")

    # --- what always holds ------------------------------------------------------------------------

    @invariant()
    def what_was_committed_is_there(self) -> None:
        """
        And nothing else.
        """
        self._check(self.ledger)

    def _check(self, ledger: LedgerReader) -> None:
        self._check_outcomes(ledger)
        self._check_tally(ledger)
        found = {(s.slice.position, s.slice.start): s for s in ledger.slices()}
        assert self.slices == found
        assert self.carried == marks_in(ledger)
        assert self.parts == {row.number: row for row in ledger.parts()}
        begun_with = {"part_groups": 8, "fingerprint": "f", "words": "Straße"}
        assert begun_with | self.meta == ledger.meta()
        assert FILES == ledger.source_files()

    def _check_outcomes(self, ledger: LedgerReader) -> None:
        done = ledger.done(TOTAL)
        assert set(self.outcomes) == {p for p in range(TOTAL) if p in done}
        rejected = sorted(p for p, o in self.outcomes.items() if isinstance(o, Rejected))
        assert rejected == ledger.rejected_positions()
        assert 0 == ledger.outcomes_twice()
        assert len(self.outcomes) == ledger.count_outcomes(0, TOTAL)
        who = ledger.served()
        for row in ledger.ranked(0, TOTAL):
            outcome = self.outcomes[row.position]
            assert isinstance(outcome, Ranked)
            assert pack_scores(outcome.scores) == row.scores
            told = unpack_shares(row.shares) if row.shares else []
            if row.served is not None:
                told = [(len(outcome.scores), row.served)]
            assert [(s.stop, s.served) for s in outcome.shares] == [
                (stop, who[number]) for stop, number in told
            ]

    def _check_tally(self, ledger: LedgerReader) -> None:
        kinds = Counter(type(outcome) for outcome in self.outcomes.values())
        expected: dict[str, float] = defaultdict(float)
        expected |= {"ranked": kinds[Ranked], "rejected": kinds[Rejected], "empty": kinds[Empty]}
        expected["candidates"] = self.candidates
        for one in self.calls:
            expected[f"calls.{one.failure.kind.value if one.failure else 'ok'}"] += 1
            expected[f"cost_nano_usd.{one.cost_source.value}"] += one.cost_nano_usd
            expected["calls.cost_unknown"] += one.cost_source is CostSource.UNKNOWN
            expected["calls.repeated"] += one.attempt > 1
            expected["search_units"] += one.usage.search_units or 0
            expected["total_tokens"] += one.usage.total_tokens or 0
            expected[f"route.calls.{one.route}"] += 1
            expected[f"route.cost_nano_usd.{one.route}"] += one.cost_nano_usd
        expected |= {f"route.groups.{name}": n for name, n in self.groups_by_route.items()}
        found = ledger.tally()
        assert {k: v for k, v in expected.items() if v} == {k: v for k, v in found.items() if v}


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = law(20, steps=18)


# --- many rows at once ----------------------------------------------------------------------------


def stored_calls(ledger: Ledger) -> list[tuple[object, ...]]:
    """
    What the calls table tells apart, in the order in which it was written.
    """
    return list(
        ledger.connection.execute(
            "SELECT position, failure, code, message, status, served, search_units, total_tokens,"
            " cost_source, probe, reply_bytes FROM calls ORDER BY rowid"
        )
    )


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 31, 33, 112, 127, 128, 129, 300])
def test_commits_of_any_size_store_every_row_once(count: int) -> None:
    """
    However many rows one statement takes: those that fill it up are not stored.
    """
    ledger = begun(None)
    positions = [(7 * n) % count if count % 7 else n for n in range(count)]
    ended = {p: ranked(p, [p / 8] * (p % 4)) for p in positions}

    ledger.commit(Records(calls=[call(p) for p in positions], outcomes=list(ended.values())))

    told = (None, None, None, 200, 1, 1.0, 7, "reported", 0, None)
    assert [(p, *told) for p in positions] == stored_calls(ledger)
    found = [(row.position, tuple(unpack_scores(row.scores)), row.shares, row.served)
             for row in ledger.ranked(0, 1000)]  # fmt: skip
    assert [(p, ended[p].scores, None, 1) for p in sorted(positions)] == found
    tally = ledger.tally()
    assert (count, count, 5 * count) == (
        tally["ranked"],
        tally["calls.ok"],
        tally["cost_nano_usd.reported"],
    )


def test_failures_and_successes_of_one_commit_keep_their_order() -> None:
    """
    As do groups that several have scored, and those that nobody has.
    """
    ledger = begun(None)
    bad = remade(call(1, FailureKind.BAD_REPLY), served=None, probe=True)
    calls = [call(0), bad, call(2, usage=Usage(), source=CostSource.UNKNOWN)]
    outcomes = [ranked(5, (0.5, 0.25), (1, BY), (2, WHO[2])), ranked(4, (0.5,)), Ranked(3, (), ())]

    ledger.commit(Records(calls=calls, outcomes=list(outcomes)))

    assert [
        (0, None, None, None, 200, 1, 1.0, 7, "reported", 0, None),
        (1, "bad_reply", "code", "it failed", 500, None, 1.0, 7, "reported", 1, None),
        (2, None, None, None, 200, 1, None, None, "unknown", 0, None),
    ] == stored_calls(ledger)
    assert [
        (3, None, None),
        (4, 1, None),
        (5, None, pack_shares([(1, 1), (2, 2)])),
    ] == [(row.position, row.served, row.shares) for row in ledger.ranked(0, 9)]


@pytest.mark.parametrize("place", [0, 57, 199])
def test_a_second_ranking_among_many_takes_the_whole_commit_back(place: int) -> None:
    """
    Also the rows of its own statement that came before it; the next commit finds nothing of it.
    """
    ledger = begun(None)
    ledger.commit(Records(outcomes=[ranked(place, (0.75,))]))
    records = Records(
        calls=[call(p, served=Served("new")) for p in range(200)],
        outcomes=[ranked(p, (0.5,)) for p in range(200)],
    )

    with pytest.raises(sqlite3.IntegrityError):
        ledger.commit(records)

    assert [place] == [row.position for row in ledger.ranked(0, 1000)]
    assert [] == stored_calls(ledger)
    assert [BY] == list(ledger.served().values())
    records.outcomes.pop(place)
    ledger.commit(records)
    assert 200 == ledger.count_ranked(0, 1000)
    assert 200 == ledger.tally()["ranked"]


# --- opening --------------------------------------------------------------------------------------


def test_a_new_ledger_is_empty_and_whole(tmp_path: Path) -> None:
    """
    No outcome, no call, no part, and the version of its schema.
    """
    ledger = begun(tmp_path / "ledger.sqlite")

    assert 0 == len(ledger.done(TOTAL))
    assert {} == dict(ledger.tally())
    assert [] == ledger.parts()
    assert [] == list(ledger.slices())
    assert (SCHEMA_VERSION,) == ledger.connection.execute("PRAGMA user_version").fetchone()
    assert ("wal",) == ledger.connection.execute("PRAGMA journal_mode").fetchone()
    assert (2,) == ledger.connection.execute("PRAGMA synchronous").fetchone()  # FULL
    ledger.close()


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be looked at. " * 40)


def _cut_off(path: Path) -> None:
    begun(path).close()
    path.write_bytes(path.read_bytes()[:5000])


def _newer(path: Path) -> None:
    begun(path).close()
    with sqlite3.connect(path) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    other.close()


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()


DAMAGED = [
    pytest.param(_garbage, "file is not a database", "restore it from a copy", id="garbage"),
    pytest.param(_cut_off, "malformed", "restore it from a copy", id="cut off"),
    pytest.param(_newer, f"has schema {SCHEMA_VERSION + 1}", "the version", id="a newer version"),
    pytest.param(_foreign, "has schema 0", "the version", id="somebody else's database"),
]


@pytest.mark.parametrize(("make", "words", "hint"), DAMAGED)
def test_what_is_no_ledger_of_ours_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], None], words: str, hint: str
) -> None:
    """
    With what to do next; not a byte of it is changed.
    """
    path = tmp_path / "ledger.sqlite"
    make(path)
    before = path.read_bytes()

    with pytest.raises(StorageError, match=words) as refused:
        Ledger.create_or_open(path)

    assert hint in refused.value.hint
    assert Exit.STORAGE is refused.value.exit_code
    assert not refused.value.out_of_space
    assert before == path.read_bytes()


@pytest.mark.parametrize(("make", "words", "hint"), DAMAGED)
def test_a_reader_refuses_it_too(
    tmp_path: Path, make: Callable[[Path], None], words: str, hint: str
) -> None:
    """
    At the latest at the first question.
    """
    path = tmp_path / "ledger.sqlite"
    make(path)

    with pytest.raises(StorageError, match=words) as refused, LedgerReader.open(path) as reader:
        reader.meta()

    assert hint in refused.value.hint


def test_a_reader_makes_no_ledger(tmp_path: Path) -> None:
    """
    Asking about an output that was never begun leaves nothing behind.
    """
    with pytest.raises(StorageError, match="cannot read the ledger"):
        LedgerReader.open(tmp_path / "ledger.sqlite")

    assert [] == list(tmp_path.iterdir())


def test_a_folder_in_its_place_is_told(tmp_path: Path) -> None:
    """
    Whatever SQLite says, it is an error of ours with the path in it.
    """
    with pytest.raises(StorageError, match=str(tmp_path)):
        Ledger.create_or_open(tmp_path)


def test_damage_in_the_middle_is_found_when_it_is_read(tmp_path: Path) -> None:
    """
    A page that was overwritten is told as damage, not as a bug.
    """
    path = tmp_path / "ledger.sqlite"
    ledger = begun(path)
    ledger.commit(Records(outcomes=[ranked(p, [0.5] * 50) for p in range(500)]))
    ledger.close()
    content = bytearray(path.read_bytes())
    content[8192 : len(content) - 8192] = b"\xaa" * (len(content) - 16_384)
    path.write_bytes(content)

    with LedgerReader.open(path) as reader, pytest.raises(StorageError) as found:
        reader.done(500)

    assert "restore it from a copy" in found.value.hint


def test_a_path_with_odd_characters_is_a_path_like_any_other(tmp_path: Path) -> None:
    """
    Readers name the file by a URI: what means something there is escaped.
    """
    folder = tmp_path / "a b?mode=rwc#x%20é"
    folder.mkdir()
    begun(folder / "ledger.sqlite").close()

    with LedgerReader.open(folder / "ledger.sqlite") as reader:
        assert "f" == reader.meta()["fingerprint"]


# --- a full disk ----------------------------------------------------------------------------------


def test_a_full_disk_is_told_as_one_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """
    The same records find their place once there is room: rejects overruled, slices and all.
    """
    ledger = begun(tmp_path / "ledger.sqlite")
    rejected = Rejected(0, "q", RejectKind.UNKNOWN, "words", attempts=3)
    first = Scored(Slice(1, 0, 1), (0.5,), BY)
    ledger.commit(Records(outcomes=[rejected], slices=[first], parts=[part(0)]))
    before = ledger.tally()
    records = Records(
        calls=[call(n) for n in range(2_000)],
        outcomes=[ranked(n, [0.5] * 9, (9, Served("new", str(n)))) for n in range(24)],
    )

    limit_pages(ledger, pages(ledger) + 2)
    with pytest.raises(StorageError) as full:
        ledger.commit(records)

    assert full.value.out_of_space
    assert "make room" in full.value.hint
    assert before == ledger.tally()
    assert [0] == ledger.rejected_positions()
    assert [first] == list(ledger.slices())
    assert [part(0)] == ledger.parts()

    limit_pages(ledger, 10**6)
    ledger.commit(records)
    assert [] == ledger.rejected_positions()
    assert [] == list(ledger.slices())
    assert 24 == ledger.count_ranked(0, TOTAL)
    assert ledger.parts()[0].stale
    ledger.close()


# --- questions ------------------------------------------------------------------------------------


def test_attempts_are_counted_by_slice_over_all_runs() -> None:
    """
    All of them, and those that reached the server; not of groups that have scores.
    """
    ledger = begun(None)
    ledger.commit(
        Records(
            calls=[
                call(0, FailureKind.UNKNOWN),
                call(0, FailureKind.THROTTLED, attempt=2),
                call(0, FailureKind.NEVER_SENT, attempt=3),
                call(0, FailureKind.BAD_REPLY, attempt=4),
                call(0, FailureKind.UNKNOWN, start=1, stop=2),
                call(1, FailureKind.UNKNOWN),
                call(1, attempt=2),
                call(2, FailureKind.THROTTLED),
            ],
            outcomes=[ranked(1, (0.5,))],
        )
    )

    assert {(0, 0, 1): (4, 2), (0, 1, 2): (1, 1), (2, 0, 1): (1, 0)} == ledger.sends()


def test_calls_are_counted_by_the_clock() -> None:
    """
    Those of the last minute, say.
    """
    ledger = begun(None)
    ledger.commit(Records(calls=[call(n, sent_at=100.0 + n) for n in range(10)]))

    assert [10, 4, 0] == [ledger.calls_since(at) for at in (0.0, 106.0, 200.0)]


def test_rejects_are_counted_by_kind_with_an_example() -> None:
    """
    The most frequent kind first; the example is the first in the source.
    """
    ledger = begun(None)
    kinds = [RejectKind.FLAWED, RejectKind.UNKNOWN, RejectKind.UNKNOWN]
    held = [Rejected(9 - n, f"q{9 - n}", kind, f"no {n}") for n, kind in enumerate(kinds)]
    ledger.commit(Records(outcomes=list(held)))

    assert [("unknown", 2, "q7", "no 2"), ("flawed", 1, "q9", "no 0")] == ledger.reject_counts()


def test_runs_are_remembered_with_their_endings() -> None:
    """
    One that was killed has no end; its last sign of life and what it said are kept.
    """
    ledger = begun(None)
    ledger.commit(Records(at=7.0, note="paused"))
    ledger.start_run(10.0, 43, "host", done_before=3, target=5)
    ledger.commit(Records(at=12.0, note="paused"))
    ledger.commit(Records(at=13.0, note=""))
    ledger.end_run(14.0, 75, "stopped by SIGTERM")

    killed, ended = ledger.runs()
    assert (7.0, "paused", None, None) == (
        killed.beat_at,
        killed.note,
        killed.ended_at,
        killed.exit_code,
    )
    assert (43, 3, 5, 13.0, None, 14.0, 75, "stopped by SIGTERM") == (
        ended.pid,
        ended.done_before,
        ended.target,
        ended.beat_at,
        ended.note,
        ended.ended_at,
        ended.exit_code,
        ended.reason,
    )


@pytest.mark.parametrize(
    ("start", "stop", "found"),
    [
        (0, 24, [0, 4, 6, 20]),
        (5, 6, [4]),
        (8, 12, [6]),
        (12, 20, []),
        (23, 24, [20]),
        (3, 5, [0, 4]),
    ],
)
def test_blocks_are_found_by_what_they_cover(start: int, stop: int, found: list[int]) -> None:
    """
    Those that reach into the range, in order, however long the longest is.
    """
    ledger = begun(None)
    ledger.commit(Records(carried=[(20, 4, b""), (0, 4, b""), (6, 6, b""), (4, 2, b"")]))

    assert found == [position for position, _, _ in ledger.carried(start, stop)]


def test_done_is_told_by_parts_after_pruning(tmp_path: Path) -> None:
    """
    Scores and carried columns go, rejects and the account of the money stay, the file shrinks.
    """
    path = tmp_path / "ledger.sqlite"
    ledger = begun(path)
    outcomes: list[Outcome] = [ranked(p, [0.5] * 500) for p in range(7)]
    rejected = Rejected(7, "q7", RejectKind.FLAWED, "flaw")
    ledger.commit(
        Records(
            calls=[call(0)],
            outcomes=[*outcomes, rejected],
            carried=[(0, 8, bytes(50_000))],
            parts=[part(0)],
        )
    )
    ledger.close()
    before, ledger = path.stat().st_size, Ledger.create_or_open(path)

    assert 7 == ledger.prune()

    assert ledger.meta()["pruned"]
    assert 8 == len(ledger.done(TOTAL))
    assert ([], [7]) == (list(ledger.carried(0, 8)), ledger.rejected_positions())
    assert 1 == ledger.tally()["calls.ok"]
    assert path.stat().st_size < before / 2
    ledger.close()


def test_another_layout_takes_all_parts_for_unpublished() -> None:
    """
    With new carried columns, if those are others now; nothing that was paid for is touched.
    """
    ledger = begun(None)
    ledger.commit(Records(outcomes=[ranked(0, (0.5,))], carried=[(0, 8, b"old")], parts=[part(0)]))

    ledger.relayout({"part_groups": 4}, None, lambda: None)
    assert ([], 4) == (ledger.parts(), ledger.part_groups())
    assert [(0, 8, b"old")] == list(ledger.carried(0, 8))

    ledger.relayout({}, [(0, 4, b"new")], lambda: None)
    assert [(0, 4, b"new")] == list(ledger.carried(0, 8))
    assert 1 == ledger.count_ranked(0, 8)


def test_stale_parts_are_marked() -> None:
    """
    Only those that are named, and only if they are there.
    """
    ledger = begun(None)
    ledger.commit(Records(parts=[part(0), part(1)]))

    ledger.mark_stale([1, 7])

    assert [False, True] == [bool(row.stale) for row in ledger.parts()]


def test_a_ledger_without_its_beginning_is_damaged() -> None:
    """
    What every output begins with is asked for by name, and its lack is told.
    """
    ledger = for_now()

    with pytest.raises(StorageError, match="lacks what every output begins with"):
        ledger.part_groups()


# --- packing --------------------------------------------------------------------------------------


def test_scores_and_shares_are_packed_for_any_machine() -> None:
    """
    Little-endian, eight bytes each, NaN and all.
    """
    assert b"\x00\x00\x00\x00\x00\x00\xf0\x3f" == pack_scores([1.0])
    assert b"\x02" + bytes(7) + b"\x05" + bytes(7) == pack_shares([(2, 5)])
    assert [(2, 5), (9, 1)] == unpack_shares(pack_shares([(2, 5), (9, 1)]))
    back = unpack_scores(pack_scores([0.1, UNSCORED, -1e300]))
    assert (0.1, -1e300) == (back[0], back[2])
    assert math.isnan(back[1])


@pytest.mark.parametrize(
    ("records", "there"),
    [
        (Records(), False),
        (Records(at=5.0), False),
        (Records(note=""), True),
        (Records(authorised=Amount()), True),
        (Records(models={"served_model": ""}), True),
        (Records(carried=[(0, 1, b"")]), True),
    ],
)
def test_records_of_nothing_need_no_commit(records: Records, there: bool) -> None:
    """
    An empty note takes one back, and zero is an amount: both are something.
    """
    assert there is bool(records)


# --- what earlier outputs have of groups ----------------------------------------------------------


def test_what_is_known_of_a_group_is_kept_as_it_was_first(tmp_path: Path) -> None:
    """
    Slices that were asked about since lack these documents; it is counted once.
    """
    path = tmp_path / "ledger.sqlite"
    first = ranked(3, [0.5, UNSCORED, 0.25], (2, BY), (3, Served("v/m", None)))
    ledger = begun(path)
    ledger.commit(Records(known=[first, ranked(9, [UNSCORED, 0.5])]))
    ledger.commit(Records(known=[ranked(3, [UNSCORED, 0.75, UNSCORED])]))
    ledger.close()

    with LedgerReader.open(path) as reader:
        assert [repr(first)] == [repr(known) for known in reader.known(0, 9)]
        assert [9] == [known.position for known in reader.known(9, 24)]
        assert 3 == reader.tally()["documents_reused"]


def test_what_is_known_is_forgotten_where_the_group_is_not_ranked() -> None:
    """
    A mended file asks something else; what was done before has been what it was.
    """
    ledger = begun(None)
    known = [ranked(p, [0.5, UNSCORED]) for p in (1, 2, 3, 8)]
    refused = Rejected(2, "q2", RejectKind.BAD_GROUP, "no")
    ledger.commit(Records(known=known, outcomes=[ranked(1, [0.5, 0.5]), refused]))

    ledger.forget_slices(0, 8)

    assert [1, 8] == [one.position for one in ledger.known(0, 24)]
    assert 2 == ledger.tally()["documents_reused"]
    ledger.prune()
    assert [] == ledger.known(0, 24)
    assert 2 == ledger.tally()["documents_reused"]
