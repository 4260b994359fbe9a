"""
The file of the budget that jobs share, with real SQLite and real processes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchrank.errors import OutputError, StorageError
from batchrank.policy.amounts import WITHOUT_END, Amount
from batchrank.policy.budget import Borrow, Full, SharedCaps
from batchrank.store.shared import SharedBudget, taken
from tests.e2e.forks import FORKS

TODAY, YESTERDAY, LAST_MONTH = "2026-11-21", "2026-11-20", "2026-10-31"


def money(nano: int) -> Amount:
    """
    A cap on money alone.
    """
    return Amount(nano, WITHOUT_END.requests, WITHOUT_END.search_units)


@contextmanager
def opened(
    folder: Path, output: str = "one", day: int = 1_000, month: int = 10_000
) -> Iterator[SharedBudget]:
    """
    The share of one output.
    """
    caps = SharedCaps(money(day), money(month))
    till = SharedBudget.open(folder / "team.budget", output, caps)
    try:
        yield till
    finally:
        till.close()


def asked(least: int, day: str = TODAY, **others: Amount) -> Borrow:
    """
    An output asks for that, and for no more.
    """
    return Borrow(day, Amount(least), Amount(least), others)


def test_what_is_held_is_there_for_whoever_opens_the_file(tmp_path: Path) -> None:
    """
    A day's room is what others have left of it; one's own is raised, not added to.
    """
    with opened(tmp_path) as one, opened(tmp_path, "other") as other:
        assert Amount(600) == one.borrow(asked(600))
        assert Amount(700) == one.borrow(asked(700))
        full = other.borrow(asked(301))
        assert isinstance(full, Full)
        assert (300, 700) == (full.room.nano_usd, full.others)
        assert Amount(300) == other.borrow(asked(300))

    with opened(tmp_path) as again:
        assert {TODAY: Amount(700)} == again.held()
        again.settle({TODAY: Amount(650)})
    with opened(tmp_path, "other") as other:
        assert Amount(350) == other.borrow(asked(350))


def test_a_month_has_all_its_days_and_no_other(tmp_path: Path) -> None:
    """
    Its own earlier days count for an output as those of others do, and are made exact on the way.
    """
    with opened(tmp_path, month=1_500) as one:
        assert Amount(1_000) == one.borrow(asked(1_000, LAST_MONTH))
        assert Amount(900) == one.borrow(asked(900, YESTERDAY))
        assert isinstance(full := one.borrow(asked(601)), Full)
        assert ("month", 600) == (full.period, full.room.nano_usd)
        lowered = Borrow(TODAY, Amount(601), Amount(601), {YESTERDAY: Amount(800)})
        assert Amount(601) == one.borrow(lowered)
        assert {
            LAST_MONTH: Amount(1_000),
            YESTERDAY: Amount(800),
            TODAY: Amount(601),
        } == one.held()


def test_whoever_only_looks_sees_what_all_hold_together(tmp_path: Path) -> None:
    """
    Of a day and its month, also while somebody is at it; what is no such file is told.
    """
    file = tmp_path / "team.budget"
    assert {"day": Amount(), "month": Amount()} == taken(file, TODAY)
    assert not file.exists()
    with opened(tmp_path) as one, opened(tmp_path, "other") as other:
        one.borrow(asked(300, LAST_MONTH))
        one.borrow(asked(200, YESTERDAY))
        one.borrow(asked(100))
        other.borrow(asked(50))
        assert {"day": Amount(150), "month": Amount(350)} == taken(file, TODAY)
    file.write_bytes(b"this is no database, but long enough to be looked at. " * 40)
    with pytest.raises(StorageError, match="cannot read the shared budget"):
        taken(file, TODAY)


def take_all(folder: Path, output: str, day: int) -> None:
    """
    Take one after the other until nothing is left of the day; for a process of its own.
    """
    with opened(folder, output, day) as till:
        least = 1
        while isinstance(till.borrow(asked(least)), Amount):
            least += 1


@pytest.mark.parametrize("day", [100, pytest.param(1_000, marks=pytest.mark.campaign)])
def test_processes_that_take_at_once_take_no_more_than_there_is(tmp_path: Path, day: int) -> None:
    """
    Three of them make the file and spend the day to the last, together: in a hundred writes here,
    in a thousand in `make campaigns`.
    """
    processes = [FORKS.Process(target=take_all, args=(tmp_path, name, day)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(50)

    assert [0, 0, 0] == [process.exitcode for process in processes]
    held = []
    for name in "abc":
        with opened(tmp_path, name, day) as till:
            # One that comes late may find nothing left.
            held.append(till.held().get(TODAY, Amount()).nano_usd)
    assert day == sum(held)


def test_a_log_is_never_begun_anew_by_two(tmp_path: Path) -> None:
    """
    Several write: with a write-ahead log some versions of SQLite lose what was committed.
    """
    with opened(tmp_path) as till:
        till.borrow(asked(1))
        mode = till._connection.execute("PRAGMA journal_mode").fetchone()[0]
        full = till._connection.execute("PRAGMA synchronous").fetchone()[0]

    assert ("truncate", 2) == (mode, full)
    assert not list(tmp_path.glob("*-wal"))


def test_a_file_that_was_replaced_is_not_used_any_more(tmp_path: Path) -> None:
    """
    Others would count in another one.
    """
    with opened(tmp_path) as till:
        till.borrow(asked(1))
        (tmp_path / "team.budget").rename(tmp_path / "elsewhere")

        with pytest.raises(StorageError, match="removed or replaced"):
            till.borrow(asked(2))


def test_some_other_database_is_left_as_it_is(tmp_path: Path) -> None:
    """
    A ledger that is named by mistake is refused, and nothing is written to it.
    """
    path = tmp_path / "team.budget"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE a (b)")
    connection.close()
    before = path.read_bytes()

    with pytest.raises(StorageError, match="is no shared budget"), opened(tmp_path):
        pass
    assert before == path.read_bytes()


def test_a_damaged_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    """
    Nobody knows what was spent: a person has to say how to go on.
    """
    (tmp_path / "team.budget").write_bytes(b"no database at all " * 100)

    with pytest.raises(StorageError) as told, opened(tmp_path):
        pass
    assert "cannot open the shared budget" in told.value.message
    assert "name another one with budget.shared" in told.value.hint


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """
    Though many will name the folder that they want it in.
    """
    (tmp_path / "team.budget").mkdir()

    with pytest.raises(OutputError, match="is a folder") as told, opened(tmp_path):
        pass
    assert "name a file in it" == told.value.hint


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Locks mean something else there.
    """
    monkeypatch.setattr("batchrank.store.disk.file_system_of", lambda _path: "nfs4")

    with pytest.raises(OutputError, match="network file system") as told, opened(tmp_path):
        pass
    assert "budget.shared" in told.value.hint
