"""
The memory of limits: it helps where it can, and never stands in a run's way.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from batchrank.errors import StorageError
from batchrank.policy.capacity import Learned
from batchrank.store import disk, learned
from batchrank.store.learned import AGE_MAX, BYTES_MAX, ENTRIES_MAX, Customer, LearnedLimits

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
CUSTOMER = Customer("openrouter", "https://openrouter.ai/api/v1", "cohere/rerank-v3.5", "MY_KEY")
OTHERS = [
    pytest.param(Customer("other", CUSTOMER.base_url, CUSTOMER.model, CUSTOMER.key), id="provider"),
    pytest.param(
        Customer(CUSTOMER.provider, "https://x/v1", CUSTOMER.model, CUSTOMER.key), id="url"
    ),
    pytest.param(Customer(CUSTOMER.provider, CUSTOMER.base_url, "m", CUSTOMER.key), id="model"),
    pytest.param(
        Customer(CUSTOMER.provider, CUSTOMER.base_url, CUSTOMER.model, "HER_KEY"), id="key"
    ),
]


def entry(**changes: object) -> dict[str, Any]:
    """
    A good entry of the file, some of it changed.
    """
    names = {name: getattr(CUSTOMER, name) for name in Customer.__dataclass_fields__}
    return {**names, "per_s": 12.5, "at": NOW.isoformat(), **changes}


def written(root: Path, content: object) -> LearnedLimits:
    """
    A memory that somebody wrote *content* into: bytes as they are, anything else as JSON.
    """
    limits = LearnedLimits(root)
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    limits.path.write_bytes(raw)
    return limits


# --- what is remembered ---------------------------------------------------------------------------


def test_what_one_run_learned_the_next_one_knows(tmp_path: Path) -> None:
    """
    A new run has a new object and the same folder; nothing but the one file is in it.
    """
    limits = LearnedLimits(tmp_path)
    assert limits.remember(CUSTOMER, 12.5, NOW) is None

    assert 12.5 == LearnedLimits(tmp_path).per_s(CUSTOMER, NOW + timedelta(days=1))
    assert [limits.path] == list(tmp_path.iterdir())


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    """
    Neither in an empty folder nor without one.
    """
    assert LearnedLimits(tmp_path).per_s(CUSTOMER, NOW) is None
    assert LearnedLimits(tmp_path / "missing").per_s(CUSTOMER, NOW) is None


def test_what_one_request_may_hold_is_remembered_beside(tmp_path: Path) -> None:
    """
    Each by itself: what is learned of one keeps the others, and makes none of them younger.
    """
    limits, later = LearnedLimits(tmp_path), NOW + timedelta(days=5)
    limits.remember_request(CUSTOMER, Learned(documents_max=32), NOW)
    limits.remember_request(CUSTOMER, Learned(bytes_max=10**6), later)
    limits.remember(CUSTOMER, 12.5, later)

    assert Learned(32, 10**6) == limits.of_request(CUSTOMER, later)
    assert 12.5 == limits.per_s(CUSTOMER, later)
    assert Learned(None, 10**6) == limits.of_request(CUSTOMER, NOW + AGE_MAX + timedelta(hours=1))


@pytest.mark.parametrize(
    "wrong", [{"documents_max": 0}, {"documents_max": "8"}, {"bytes_max": 1e30}, {"per_s": 1.0}]
)
def test_what_cannot_be_a_bound_is_not_one(tmp_path: Path, wrong: dict[str, object]) -> None:
    """
    Nothing, text, more than there is; nor are two limits one entry.
    """
    names = {name: getattr(CUSTOMER, name) for name in Customer.__dataclass_fields__}
    made = {**names, "at": NOW.isoformat(), **wrong}
    if "per_s" in wrong:
        made["documents_max"] = 8
    limits = written(tmp_path, {"limits": [made]})

    assert Learned() == limits.of_request(CUSTOMER, NOW)


@pytest.mark.parametrize("other", OTHERS)
def test_a_limit_is_one_customers(tmp_path: Path, other: Customer) -> None:
    """
    Another provider, address, model or key has another limit; both are kept.
    """
    limits = LearnedLimits(tmp_path)
    limits.remember(CUSTOMER, 12.5, NOW)

    assert limits.per_s(other, NOW) is None
    limits.remember(other, 3.0, NOW)

    assert (12.5, 3.0) == (limits.per_s(CUSTOMER, NOW), limits.per_s(other, NOW))


def test_what_was_learned_last_counts(tmp_path: Path) -> None:
    """
    Also when a run that began earlier is the last to write.
    """
    limits = LearnedLimits(tmp_path)
    limits.remember(CUSTOMER, 12.5, NOW)
    limits.remember(CUSTOMER, 20.0, NOW + timedelta(hours=1))
    limits.remember(CUSTOMER, 5.0, NOW + timedelta(minutes=58))

    assert 20.0 == limits.per_s(CUSTOMER, NOW + timedelta(hours=2))


def test_times_are_written_in_utc(tmp_path: Path) -> None:
    """
    Whatever zone the clock was read in.
    """
    limits = LearnedLimits(tmp_path)
    limits.remember(CUSTOMER, 12.5, NOW.astimezone(timezone(timedelta(hours=9))))

    (only,) = json.loads(limits.path.read_text())["limits"]
    assert entry() == only


@pytest.mark.parametrize("per_s", [0.0, -1.0, float("nan"), float("inf")])
def test_no_limit_is_no_limit(tmp_path: Path, per_s: float) -> None:
    """
    Whoever has met no limit has nothing to remember.
    """
    with pytest.raises(AssertionError):
        LearnedLimits(tmp_path).remember(CUSTOMER, per_s, NOW)


# --- old, and from the future ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "known"),
    [
        pytest.param(timedelta(0), True, id="now"),
        pytest.param(AGE_MAX, True, id="a week"),
        pytest.param(AGE_MAX + timedelta(seconds=1), False, id="more than a week"),
        pytest.param(timedelta(minutes=-4), True, id="clocks differ by minutes"),
        pytest.param(timedelta(minutes=-6), False, id="from the future"),
        pytest.param(timedelta(days=-400), False, id="from another year"),
    ],
)
def test_a_limit_is_believed_for_a_week(tmp_path: Path, later: timedelta, known: bool) -> None:
    """
    And one from the future never.
    """
    limits = written(tmp_path, {"limits": [entry()]})

    assert known is (limits.per_s(CUSTOMER, NOW + later) is not None)


def test_what_is_too_old_is_dropped_when_something_is_written(tmp_path: Path) -> None:
    """
    So the file stays small.
    """
    old = entry(model="old", at=(NOW - AGE_MAX - timedelta(days=1)).isoformat())
    future = entry(model="future", at=(NOW + timedelta(days=1)).isoformat())
    limits = written(tmp_path, {"limits": [old, entry(model="recent"), future]})

    limits.remember(CUSTOMER, 12.5, NOW)

    kept = {one["model"] for one in json.loads(limits.path.read_text())["limits"]}
    assert {"recent", CUSTOMER.model} == kept


def test_of_very_many_the_newest_are_kept(tmp_path: Path) -> None:
    """
    And what was just learned is among them.
    """
    ages = [timedelta(minutes=n + 1) for n in range(ENTRIES_MAX + 5)]
    many = [entry(model=f"{n}", at=(NOW - age).isoformat()) for n, age in enumerate(ages)]
    limits = written(tmp_path, {"limits": many})

    limits.remember(CUSTOMER, 12.5, NOW)

    kept = {one["model"] for one in json.loads(limits.path.read_text())["limits"]}
    assert {CUSTOMER.model, *(f"{n}" for n in range(ENTRIES_MAX - 1))} == kept


# --- whatever the file holds ----------------------------------------------------------------------

GARBAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x00\xff\xfe garbage", id="bytes"),
    pytest.param(b'{"limits": [', id="half a file"),
    pytest.param(b"[" * 100_000, id="endless brackets"),
    pytest.param(b'{"limits": [' + b"9" * 5000 + b"]}", id="an endless number"),
    pytest.param(b" " * (BYTES_MAX + 1), id="a file that is too long"),
    pytest.param([], id="another shape"),
    pytest.param({"limits": {}}, id="another shape within"),
    pytest.param({"limits": [None, 5, "x", [], {}]}, id="entries of another shape"),
    pytest.param({"limits": [entry(per_s="12")]}, id="a rate in quotes"),
    pytest.param({"limits": [entry(per_s=True)]}, id="a rate that is true"),
    pytest.param({"limits": [entry(per_s=0)]}, id="a rate of nothing"),
    pytest.param({"limits": [entry(per_s=-1)]}, id="a negative rate"),
    pytest.param({"limits": [entry(per_s=10**400)]}, id="a rate beyond all numbers"),
    pytest.param({"limits": [entry(per_s=float("nan"))]}, id="a rate that is no number"),
    pytest.param({"limits": [entry(per_s=float("inf"))]}, id="a rate without end"),
    pytest.param({"limits": [entry(per_s=[1])]}, id="a list of rates"),
    pytest.param({"limits": [entry(at="yesterday")]}, id="no time"),
    pytest.param({"limits": [entry(at=5)]}, id="a time that is a number"),
    pytest.param({"limits": [entry(at="2026-11-20T12:00:00")]}, id="a time without its zone"),
    pytest.param({"limits": [entry(at="0001-01-01T00:00:00+14:00")]}, id="before all times"),
    pytest.param({"limits": [entry(model=None)]}, id="no model"),
    pytest.param({"limits": [entry(key=["MY_KEY"])]}, id="a key of another shape"),
]


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_is_nothing_that_is_known(tmp_path: Path, content: object) -> None:
    """
    It costs the head start, never the run; and the next one who learns something writes it anew.
    """
    limits = written(tmp_path, content)

    assert limits.per_s(CUSTOMER, NOW) is None
    assert limits.remember(CUSTOMER, 3.0, NOW) is None
    assert 3.0 == limits.per_s(CUSTOMER, NOW)


def test_one_bad_entry_costs_none_of_the_others(tmp_path: Path) -> None:
    """
    Nor does what a later version adds to one.
    """
    limits = written(tmp_path, {"limits": [entry(per_s=-1), entry(more=[1]), {}], "version": 9})

    assert 12.5 == limits.per_s(CUSTOMER, NOW)


def test_of_a_customer_that_stands_twice_the_newest_counts(tmp_path: Path) -> None:
    """
    In whatever order they stand.
    """
    before = entry(per_s=1.0, at=(NOW - timedelta(hours=1)).isoformat())

    for entries in ([before, entry()], [entry(), before]):
        assert 12.5 == written(tmp_path, {"limits": entries}).per_s(CUSTOMER, NOW)


def test_names_of_odd_characters_come_back(tmp_path: Path) -> None:
    """
    A key file may be called as its owner likes, half a character included.
    """
    odd = Customer("p", "https://x/v1", "模型", "keys/ü\udcff.key")
    limits = LearnedLimits(tmp_path)

    assert limits.remember(odd, 3.0, NOW) is None
    assert limits.remember(CUSTOMER, 5.0, NOW) is None

    assert (3.0, 5.0) == (limits.per_s(odd, NOW), limits.per_s(CUSTOMER, NOW))


# --- several writers ------------------------------------------------------------------------------


def test_two_writers_lose_nothing_of_each_other(tmp_path: Path) -> None:
    """
    Two nights' runs end at the same moment, again and again.
    """
    told: list[str | None] = []

    def run(name: str) -> None:
        for n in range(10):
            customer = Customer(name, CUSTOMER.base_url, f"{n}", CUSTOMER.key)
            told.append(LearnedLimits(tmp_path).remember(customer, n + 1.0, NOW))

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [None] * 20 == told
    kept = json.loads((tmp_path / "learned.json").read_text())["limits"]
    assert {(name, f"{n}") for name in ("one", "other") for n in range(10)} == {
        (one["provider"], one["model"]) for one in kept
    }


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """
    Somebody who writes and does not come to an end.
    """
    file = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def test_a_writer_that_does_not_end_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Reading needs no lock: the file is replaced whole.
    """
    monkeypatch.setattr(learned, "LOCK_TRIES", 2)
    limits = written(tmp_path, {"limits": [entry()]})

    with held(tmp_path):
        said = limits.remember(CUSTOMER, 3.0, NOW)
        assert 12.5 == limits.per_s(CUSTOMER, NOW)

    assert f"cannot write {limits.path}: another process keeps it" == said
    assert limits.remember(CUSTOMER, 3.0, NOW) is None


# --- a folder that does not let us ----------------------------------------------------------------


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """
    It is not made: that is the state folder's business.
    """
    limits = LearnedLimits(tmp_path / "missing")

    said = limits.remember(CUSTOMER, 3.0, NOW)

    assert f"cannot write {limits.path}: No such file or directory" == said


def test_a_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    """
    What is there stays there.
    """
    limits = LearnedLimits(tmp_path)
    limits.path.mkdir()

    assert limits.per_s(CUSTOMER, NOW) is None
    said = limits.remember(CUSTOMER, 3.0, NOW)

    assert f"cannot write {limits.path}: Is a directory" == said
    assert [limits.path] == list(tmp_path.iterdir())


def test_a_pipe_in_the_files_place_is_not_waited_for(tmp_path: Path) -> None:
    """
    Nobody would ever write to it.
    """
    limits = LearnedLimits(tmp_path)
    os.mkfifo(limits.path)

    assert limits.per_s(CUSTOMER, NOW) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["read-only", "closed"])
def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path, mode: int) -> None:
    """
    And is no reason to fail.
    """
    limits = LearnedLimits(tmp_path)
    tmp_path.chmod(mode)
    try:
        said = limits.remember(CUSTOMER, 3.0, NOW)
    finally:
        tmp_path.chmod(0o700)

    assert f"cannot write {limits.path}: Permission denied" == said


def test_a_full_disk_is_told_and_leaves_what_was_known(tmp_path: Path) -> None:
    """
    Half a memory never takes the place of a whole one.
    """
    limits = written(tmp_path, {"limits": [entry()]})
    (tmp_path / ".learned.json.new").symlink_to("/dev/full")

    said = limits.remember(CUSTOMER, 3.0, NOW)

    assert said is not None
    assert f"cannot write {limits.path}: No space left" in said
    assert 12.5 == limits.per_s(CUSTOMER, NOW)


def test_a_failed_fsync_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is not durable was not remembered; the next run may or may not know it.
    """

    def fail(file: int) -> None:
        raise StorageError(f"fsync failed: {os.strerror(errno.EIO)}")

    monkeypatch.setattr(disk, "sync_file", fail)

    assert "fsync failed: Input/output error" == LearnedLimits(tmp_path).remember(CUSTOMER, 3, NOW)
    assert [] == list(tmp_path.iterdir())
