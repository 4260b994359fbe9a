"""
Sources in which groups ask the same: each question is paid for once, whatever comes between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.events import CommitStarted, Committed, PartPublished, ReplyRead
from batchrank.examine.plan import plan
from batchrank.job import load, run
from batchrank.store.reading import LedgerReader
from tests.e2e.jobs import (
    BILLED,
    Book,
    Watched,
    bytes_of,
    embedded,
    faults_of,
    folder_of,
    loaded,
    run_here,
    write_job,
)
from tests.e2e.killing import killed
from tests.e2e.small_jobs import toml

pytestmark = pytest.mark.campaign

GROUPS, QUESTIONS = 90, 31
CONCURRENCY = 4
PARTS = {"part_groups": 20}


@pytest.fixture(scope="module")
def running() -> Iterator[Watched]:
    """
    One server for all tests of this file.
    """
    with embedded("--latency", "0.002") as watched:
        yield watched


@pytest.fixture
def server(running: Watched) -> Watched:
    """
    The server, with nothing counted and no faults.
    """
    running.turn(faults=[])
    running.reset()
    return running


def question(position: int) -> int:
    """
    What a group asks: the later ones ask nothing new.
    """
    return position * 7 % QUESTIONS


def groups(questions: Sequence[int]) -> list[dict[str, Any]]:
    """
    A group for each question, under an id of its own and with documents that have ids of their own.
    """
    return [
        {
            "query_id": f"q{p:03}",
            "query": f"what is subject {q} about?",
            "documents": [
                {"id": f"d{p}-{d}", "text": f"passage {d} of subject {q}."} for d in range(3)
            ],
        }
        for p, q in enumerate(questions)
    ]


ROWS = groups([question(p) for p in range(GROUPS)])


def nested(folder: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    """
    The groups as Parquet with a row per group.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "groups.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=32)
    return path


def pairs(folder: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    """
    The same with a row per candidate, from the last to the first.
    """
    held = [
        {
            "query_id": row["query_id"],
            "query": row["query"],
            "id": document["id"],
            "text": document["text"],
            "score": -index,
        }
        for row in rows
        for index, document in enumerate(row["documents"])
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(held[::-1]), path)
    return path


def job_in(
    folder: Path,
    server: Watched,
    path: Path,
    *,
    dedupe: bool | None = None,
    score: str | None = None,
    reuse: Sequence[Path] = (),
) -> Path:
    """
    A job in a folder of its own.
    """
    output = {**PARTS, **({"reuse": [*map(str, reuse)]} if reuse else {})}
    job = write_job(
        folder, server.base_url, concurrency_max=CONCURRENCY, output=output, source=path
    )
    more = {"dedupe": dedupe, "score": score}
    lines = [f"{key} = {toml(value)}" for key, value in more.items() if value is not None]
    job.write_text(job.read_text().replace("[source]", "\n".join(["[source]", *lines])))
    return job


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, running: Watched) -> dict[str, bytes]:
    """
    The output when everybody is called.
    """
    folder = tmp_path_factory.mktemp("all")
    job = job_in(folder, running, nested(folder))
    assert 0 == run_here(job)
    return bytes_of(job)


# --- what is called -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "source", "calls"),
    [
        pytest.param(nested, {}, GROUPS, id="nested"),
        pytest.param(nested, {"dedupe": True}, QUESTIONS, id="nested, if asked"),
        pytest.param(pairs, {"score": "score"}, QUESTIONS, id="staged"),
        pytest.param(pairs, {"score": "score", "dedupe": False}, GROUPS, id="staged, if not"),
    ],
)
def test_groups_that_ask_the_same_are_called_once(
    tmp_path: Path,
    server: Watched,
    whole: dict[str, bytes],
    written: Any,
    source: dict[str, Any],
    calls: int,
) -> None:
    """
    And the output is the one that calling everybody makes, byte for byte; the account says so.
    """
    job = job_in(tmp_path, server, written(tmp_path), **source)

    summary = run(load(job))

    assert 0 == summary.exit_code
    assert (GROUPS, calls, GROUPS - calls) == (summary.ranked, summary.calls, summary.equal)
    assert whole == bytes_of(job)
    assert [] == faults_of(job)
    account = server.settled()
    assert calls == account.arrived
    assert account.nano_usd == round(summary.cost_usd * 1e9)
    assert calls == GROUPS or {1} == set(server.arrivals().values())
    shown = f", {summary.equal} equal to another)" in summary.as_text()
    assert shown is (calls < GROUPS)


def test_plan_tells_what_equal_groups_save(tmp_path: Path, server: Watched) -> None:
    """
    Before anything is paid, and of what is left.
    """
    job = job_in(tmp_path, server, nested(tmp_path), dedupe=True)

    before = plan(loaded(job))
    run(load(job), limit=QUESTIONS + 9)
    after = plan(loaded(job))

    saved = GROUPS - QUESTIONS
    assert (saved, (31, 31), (31, 31)) == (before.equal, before.requests, before.search_units)
    assert before.equal_saved_usd == pytest.approx((0.059, 0.059))
    assert before.cost_usd == pytest.approx((0.031, 0.031))
    assert "59 of 90 groups, equal to another: 59 calls and $0.0590" in before.as_text()
    assert (QUESTIONS + 9, saved - 9, (0, 0)) == (after.done, after.equal, after.requests)


def test_a_limit_counts_groups_and_the_next_run_goes_on(
    tmp_path: Path, server: Watched, whole: dict[str, bytes]
) -> None:
    """
    What follows a group of an earlier run takes its outcome before the first call.
    """
    job = job_in(tmp_path, server, nested(tmp_path), dedupe=True)

    ended = [run(load(job), limit=limit) for limit in (10, 40, None)]

    assert [(10, 10), (40, 31), (90, 31)] == [(s.done, s.calls) for s in ended]
    assert [0, 9, 59] == [s.equal for s in ended]
    assert whole == bytes_of(job)


def test_whoever_was_called_before_leads(
    tmp_path: Path, server: Watched, whole: dict[str, bytes]
) -> None:
    """
    The setting may change in mid-run: nothing that was paid for is asked again.
    """
    job = job_in(tmp_path, server, nested(tmp_path))
    run(load(job), limit=50)
    job.write_text(job.read_text().replace("[source]", "[source]\ndedupe = true"))

    summary = run(load(job))

    assert (50, 40) == (summary.calls, summary.equal)
    assert whole == bytes_of(job)


def test_what_has_changed_is_called_once_beside_what_is_reused(
    tmp_path: Path, server: Watched
) -> None:
    """
    Earlier outputs first, and then equals.
    """
    first = job_in(tmp_path / "1", server, nested(tmp_path / "1"), dedupe=True)
    run(load(first))
    server.reset()
    rows = groups([question(p) if p % 3 else QUESTIONS + p % 2 for p in range(GROUPS)])
    reuse = [folder_of(first)]
    path = nested(tmp_path / "2", rows)
    second = job_in(tmp_path / "2", server, path, dedupe=True, reuse=reuse)
    third = job_in(tmp_path / "3", server, nested(tmp_path / "3", rows))

    foretold = plan(loaded(second))
    summary = run(load(second))

    assert (60, 28, 2) == (summary.reused, summary.equal, summary.calls)
    assert (60, 28, (2, 2)) == (foretold.reused, foretold.equal, foretold.requests)
    assert 2 == server.settled().arrived
    run(load(third))
    assert bytes_of(third) == bytes_of(second)


# --- refused --------------------------------------------------------------------------------------


def test_a_refusal_is_told_of_all_and_tried_again_once(
    tmp_path: Path, server: Watched, whole: dict[str, bytes]
) -> None:
    """
    The same bytes would be refused again; `--retry-rejects` asks, once for all of them.
    """
    refused = [p for p in range(GROUPS) if question(p) == 8]
    job = job_in(tmp_path, server, nested(tmp_path), dedupe=True)
    server.turn(faults=["400=subject 8 "])
    first = run(load(job))
    rejects = pq.read_table(loaded(job).state.rejects).to_pylist()
    again = run(load(job), retry_rejects=True)
    server.turn(faults=[])
    last = run(load(job), retry_rejects=True)

    assert 3 == len(refused)
    assert [(1, 31), (1, 1), (0, 1)] == [(s.exit_code, s.calls_now) for s in (first, again, last)]
    assert [(p, f"q{p:03}", "bad_group", 400) for p in refused] == [
        (r["position"], r["query_id"], r["kind"], r["status"]) for r in rejects
    ]
    assert [1, 0, 0] == [r["attempts"] for r in rejects]
    assert [3, 3, 0] == [s.rejected for s in (first, again, last)]
    assert (GROUPS - QUESTIONS, []) == (last.equal, faults_of(job))
    assert whole == bytes_of(job)


# --- interrupted ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((Committed.name, 1), (ReplyRead.name, 5), id="a leader is durable"),
        pytest.param((Committed.name, 2), (CommitStarted.name, 2), id="some have followed"),
        pytest.param((ReplyRead.name, 12), (Committed.name, 3), id="replies are read"),
        pytest.param((PartPublished.name, 1), (PartPublished.name, 2), id="parts are published"),
    ],
)
def test_a_job_that_is_killed_twice_pays_for_each_question_once(
    tmp_path: Path,
    server: Watched,
    whole: dict[str, bytes],
    first: tuple[str, int],
    second: tuple[str, int],
) -> None:
    """
    But for calls in flight; nobody who follows is left without an outcome, or asked.
    """
    job = job_in(tmp_path, server, nested(tmp_path), dedupe=True)
    lost = 0
    for point in (first, second):
        assert -SIGKILL == killed(job, *point)
        missing = server.settled().billed - Book.of(job).count(BILLED) - lost
        assert 0 <= missing <= CONCURRENCY
        lost += missing

    assert 0 == run_here(job)

    arrivals = server.arrivals()
    assert (QUESTIONS, QUESTIONS + lost) == (len(arrivals), arrivals.total())
    assert whole == bytes_of(job)
    assert [] == faults_of(job)
    with LedgerReader.open(loaded(job).state.ledger) as ledger:
        assert GROUPS - QUESTIONS == ledger.tally()["equal"]


def test_in_a_mended_file_nobody_follows_what_was_there_before(
    tmp_path: Path, server: Watched
) -> None:
    """
    Groups that were equal and are not any more have scores of their own, and the other way round.
    """
    old = groups([0, 1, 2, 3, 0, 1, 2, 9])
    new = groups([5, 1, 6, 3, 0, 7, 7, 5])
    path = nested(tmp_path, old)
    job = job_in(tmp_path, server, path, dedupe=True)
    few = run(load(job), limit=3)
    with LedgerReader.open(loaded(job).state.ledger) as ledger:
        assert 0 == few.equal == len(list(ledger.equals(8)))
    nested(tmp_path, new)
    server.reset()

    summary = run(load(job), accept=[str(path)])

    # The first is scored as it was, so that the fifth, which asks that now, need not be asked.
    mixed = [*old[:3], *new[3:]]
    (tmp_path / "own").mkdir()
    own = job_in(tmp_path / "own", server, nested(tmp_path / "own", mixed))
    assert (0, 3, 2) == (summary.exit_code, summary.calls_now, summary.equal)
    assert 3 == server.settled().arrived
    run(load(own))
    assert bytes_of(own) == bytes_of(job)
