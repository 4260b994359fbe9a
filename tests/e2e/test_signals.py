"""
A process that is told to stop: it leaves in time, with 75, and what came home is durable.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIG_IGN, SIGHUP, SIGINT, SIGTERM, Signals
from typing import Any

import pytest

from batchrank.engine.runner import ONE_WISH_S
from tests.e2e.jobs import (
    BILLED,
    Book,
    Process,
    Watched,
    embedded,
    faults_of,
    here,
    loaded,
    run_here,
    running,
    until,
    write_job,
    write_source,
)

pytestmark = pytest.mark.campaign

GROUPS = 120
CONCURRENCY = 8
AT_ONCE_S = 2.0
"""Nothing is waited for; a busy machine is allowed its time."""

LATER = 75


@pytest.fixture(scope="module")
def server() -> Iterator[Watched]:
    """
    One server for all; each test turns its dials.
    """
    with embedded() as running_server:
        yield running_server


@pytest.fixture
def watched(server: Watched) -> Watched:
    """
    A server that has counted nothing and has no dial turned.

    Calls that an earlier test left behind may still be under way there: what arrives is counted
    here, not what is in flight.
    """
    server.turn(latency=None, limit=None)
    server.reset()
    return server


def a_job(folder: Path, watched: Watched, **tables: Any) -> Path:
    """
    A job that takes a while.
    """
    write_source(folder, GROUPS)
    return write_job(folder, watched.base_url, concurrency_max=CONCURRENCY, **tables)


def proven(job: Path, watched: Watched) -> None:
    """
    Have one group scored at once. Else the first call would go alone, however long it takes.
    """
    watched.turn(latency=None)
    here("run", str(job), "--limit", "1")


def arrived(watched: Watched, calls: int, process: Process) -> None:
    """
    Return when so many calls have arrived.
    """
    until(lambda: watched.account().arrived >= calls, process)


def told(process: Process) -> str:
    """
    Why it left, as it says itself.
    """
    return str(process.summary["reason"])


def finished(job: Path, watched: Watched) -> tuple[int, list[str], int]:
    """
    Run on, quickly: the exit code, what `verify` finds wrong, and all calls ever.
    """
    watched.turn(latency=None, limit=None)
    return run_here(job), faults_of(job), watched.account().arrived


# --- calls come home ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP], ids=lambda number: number.name)
def test_after_a_signal_calls_come_home_and_none_is_made_again(
    tmp_path: Path, watched: Watched, number: Signals
) -> None:
    """
    It leaves with 75 as soon as the last call is home; every paid call is in the ledger.
    """
    watched.turn(latency=0.1)
    job = a_job(tmp_path, watched)
    with running(job) as process:
        arrived(watched, 3 * CONCURRENCY, process)
        told_at = process.send(number)
        exit_code = process.exit_code()
    account, book = watched.account(), Book.of(job)

    assert LATER == exit_code
    assert process.ended_at - told_at < AT_ONCE_S
    assert f"stopped by {number.name}" == told(process)
    assert account.billed == book.count(BILLED) == len(book.ranked) < GROUPS
    assert [LATER] == book.runs
    assert (0, [], GROUPS) == finished(job, watched)


def test_a_signal_while_parts_are_rendered_ends_that_too(tmp_path: Path, watched: Watched) -> None:
    """
    A run that has nothing to send but much to render stops after the part that it is at.
    """
    groups = 24
    write_source(tmp_path, groups)
    job = write_job(tmp_path, watched.base_url)
    run_here(job)
    # Another layout: every part is rendered again, and now there are many.
    job = write_job(tmp_path, watched.base_url, output={"part_groups": 1})
    with running(job) as process:
        until(lambda: "part.published" in process.said, process)
        process.send(SIGTERM)
        exit_code = process.exit_code()
    parts = len(Book.of(job).parts)

    assert LATER == exit_code
    assert "stopped by SIGTERM" == told(process)
    assert 0 < parts < groups
    assert (0, [], groups) == finished(job, watched)
    assert groups == len(Book.of(job).parts)


# --- calls are left behind ------------------------------------------------------------------------


def test_a_second_signal_ends_the_drain(tmp_path: Path, watched: Watched) -> None:
    """
    Who asks twice is not made to wait: calls under way are booked as left behind.
    """
    job = a_job(tmp_path, watched)
    proven(job, watched)
    watched.turn(latency=20)
    with running(job) as process:
        arrived(watched, 1 + CONCURRENCY, process)
        process.send(SIGINT)
        until(lambda: "job.stopping" in process.said, process)
        process.send(SIGINT)  # as `timeout` does, and wrappers that forward Ctrl-C: still one wish
        time.sleep(ONE_WISH_S + 0.1)
        assert process.is_alive
        again_at = process.send(SIGTERM)
        exit_code = process.exit_code()
    book = Book.of(job)

    assert LATER == exit_code
    assert process.ended_at - again_at < AT_ONCE_S
    assert "stopped by SIGINT" == told(process)
    assert {"left_behind": CONCURRENCY} == book.codes
    assert watched.account().billed == book.count(BILLED)
    assert (0, [], GROUPS + CONCURRENCY) == finished(job, watched)


def test_a_signal_after_the_deadline_leaves_no_call_behind(
    tmp_path: Path, watched: Watched
) -> None:
    """
    The drain has begun by itself, and the first signal only agrees.
    """
    watched.turn(latency=1.5)
    for deadline in ("21s", "23s", "27s", "35s"):  # on a busy machine it sends later
        job = a_job(tmp_path, watched, run={"drain_s_max": 20.0, "deadline": deadline})
        with running(job) as process:
            until(lambda: "job.stopping" in process.said, process)
            process.send(SIGTERM)
            exit_code = process.exit_code()
        assert LATER == exit_code
        assert "the deadline is near" == told(process)
        if watched.account().arrived:
            break
    account, book = watched.account(), Book.of(job)

    assert 0 < account.billed == len(book.ranked)


def test_the_drain_has_an_end(tmp_path: Path, watched: Watched) -> None:
    """
    After `run.drain_s_max` it leaves without the calls that are still under way, and books them.
    """
    job = a_job(tmp_path, watched, run={"drain_s_max": 1.0})
    proven(job, watched)
    watched.turn(latency=10)
    with running(job) as process:
        arrived(watched, 1 + CONCURRENCY, process)
        told_at = process.send(SIGTERM)
        exit_code = process.exit_code()
    drained_s = process.ended_at - told_at
    book = Book.of(job)

    assert LATER == exit_code
    assert 1.0 <= drained_s < 1.0 + AT_ONCE_S
    assert {"left_behind": CONCURRENCY} == book.codes
    assert watched.account().billed == book.count(BILLED)
    assert (0, [], GROUPS + CONCURRENCY) == finished(job, watched)


def test_a_kill_during_the_drain_loses_only_calls_under_way(
    tmp_path: Path, watched: Watched
) -> None:
    """
    SIGKILL after SIGTERM, as a service manager sends it: what had come home before is kept.
    """
    watched.turn(latency=0.05)
    job = a_job(tmp_path, watched)
    with running(job) as process:
        arrived(watched, 3 * CONCURRENCY, process)
        watched.turn(latency=5)
        slow_after = watched.account().arrived
        arrived(watched, slow_after + CONCURRENCY, process)
        process.send(SIGTERM)
        until(lambda: "job.stopping" in process.said, process)
        process.kill()
    account, book = watched.account(), Book.of(job)
    watched.turn(latency=None)
    lost = account.billed - book.count(BILLED)

    assert 0 < lost <= CONCURRENCY
    assert account.billed - lost == len(book.ranked)
    assert (0, [], GROUPS + lost) == finished(job, watched)


# --- nothing is under way -------------------------------------------------------------------------


def test_a_signal_while_nobody_may_send_is_obeyed_at_once(tmp_path: Path, watched: Watched) -> None:
    """
    The wait that a Retry-After of a minute asks for ends with the signal.
    """
    watched.turn(limit="1/min", retry_after="seconds")
    job = a_job(tmp_path, watched)
    with running(job) as process:
        until(lambda: "gate.shut" in process.said, process)
        told_at = process.send(SIGTERM)
        exit_code = process.exit_code()
    account, book = watched.account(), Book.of(job)
    refused = account.arrived - account.billed

    assert LATER == exit_code
    assert process.ended_at - told_at < AT_ONCE_S
    assert "stopped by SIGTERM" == told(process)
    assert 0 < refused <= CONCURRENCY
    assert account.arrived == book.count()
    assert (0, [], GROUPS + refused) == finished(job, watched)


@pytest.mark.parametrize("number", [SIGTERM, SIGINT], ids=lambda number: number.name)
def test_a_signal_before_the_first_call_costs_nothing(
    tmp_path: Path, watched: Watched, number: Signals
) -> None:
    """
    While files are looked at the answer is 75 too, without a traceback.
    """
    watched.turn(latency=0.1)
    job = a_job(tmp_path, watched)
    with running(job, anew=True) as process:
        process.send(number)
        at_birth = process.exit_code()
    with running(job) as process:
        until(loaded(job).state.lock.exists, process)
        process.send(number)
        while_opening = process.exit_code()
    account = watched.account()

    # Before Python has read a line of ours the system answers.
    assert at_birth in (LATER, -number)
    assert LATER == while_opening
    assert "Traceback" not in process.said
    assert account.billed == Book.of(job).count(BILLED)
    assert (0, [], GROUPS) == finished(job, watched)


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path, watched: Watched) -> None:
    """
    Under `nohup` the job outlives its terminal.
    """

    def ignore() -> None:
        signal.signal(SIGHUP, SIG_IGN)

    watched.turn(latency=0.03)
    job = a_job(tmp_path, watched)
    with running(job, anew=True, preexec_fn=ignore) as process:
        arrived(watched, 1, process)
        process.send(SIGHUP)
        exit_code = process.exit_code()

    assert 0 == exit_code
    assert GROUPS == watched.account().arrived
