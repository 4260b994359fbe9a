"""
What an output holds of a budget that jobs share, after kills behind which no run goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGKILL

import pytest

from batchrank.events import ReplyRead, SuccessWritten
from batchrank.job.account import Account
from batchrank.store.reading import LedgerReader
from batchrank.store.shared import taken
from tests.e2e.jobs import Watched, embedded
from tests.e2e.killing import killed
from tests.e2e.small_jobs import SmallJob, groups

GROUPS, CONCURRENCY = 40, 64
"""What a run holds comes in blocks of as many calls as it may have under way."""


@pytest.fixture
def server() -> Iterator[Watched]:
    """
    A server in a process of its own, which counts what it is asked.
    """
    with embedded("--latency", "0.01") as found:
        yield found


@pytest.fixture
def job(tmp_path: Path, server: Watched) -> SmallJob:
    """
    A job that shares a budget with none but its own past.
    """
    made = SmallJob(tmp_path, server.port, limits={"concurrency_max": CONCURRENCY})
    made.change(budget={"shared": "team.budget", "month_requests_max": 100_000})
    return made.source(groups(GROUPS))


def today() -> str:
    """
    The day in UTC.
    """
    return datetime.now(UTC).date().isoformat()


def held(job: SmallJob) -> int:
    """
    The requests that are spent or held this month, which is today.
    """
    return taken(job.base / "team.budget", today())["month"].requests


def spent(state: Path) -> int:
    """
    The requests of today that an output has accounted for, perhaps lost ones included.
    """
    with LedgerReader.open(state / "ledger.sqlite") as ledger:
        return Account.of(ledger).spent_on(today()).requests


def account(job: SmallJob) -> list[bytes]:
    """
    The files that tell of money, as they are.
    """
    return [file.read_bytes() for file in (job.state / "ledger.sqlite", job.base / "team.budget")]


def aside(job: SmallJob) -> Path:
    """
    The state that `--restart` has set aside.
    """
    (found,) = job.state.parent.glob(f"{job.state.name}.aside-*")
    return found


def test_a_finished_output_gives_back_what_a_kill_behind_success_left_held(
    job: SmallJob, server: Watched
) -> None:
    """
    All calls had come home: nothing is lost. The run finds nothing to do, and says so; the one
    behind it changes no byte.
    """
    assert -SIGKILL == killed(job.file, SuccessWritten.name)
    left = held(job)
    summary = job.run()
    settled = held(job)
    before = account(job)
    again = job.run()

    assert (0, 0) == (summary.exit_code, summary.calls_now)
    assert "nothing to do" in summary.reason
    assert GROUPS == server.settled().billed == summary.calls
    assert GROUPS == settled < left
    assert 0 == summary.cost_usd_lost
    assert (0, before) == (again.exit_code, account(job))


def test_what_is_left_is_given_back_though_nobody_agrees_to_the_rest(job: SmallJob) -> None:
    """
    No run goes on until somebody does, and others may need it meanwhile.
    """
    assert -SIGKILL == killed(job.file, ReplyRead.name, GROUPS // 2)
    left = held(job)
    refused = job.change(budget={"confirm_usd": 0}).cli("run")

    assert 3 == refused.code
    assert spent(job.state) == held(job) < left


def test_what_is_set_aside_holds_no_more_than_it_has_spent(job: SmallJob, server: Watched) -> None:
    """
    Its calls stay on the account of the month, beside those of the output that is begun anew.
    """
    assert -SIGKILL == killed(job.file, ReplyRead.name, GROUPS // 2)
    left = held(job)
    summary = job.run(restart=True)
    old = spent(aside(job))

    assert 0 == summary.exit_code
    assert GROUPS == summary.calls
    assert 0 < old < left
    assert old + GROUPS == held(job)
    assert server.settled().billed <= held(job)


def test_a_ledger_that_cannot_tell_what_it_held_is_set_aside_all_the_same(job: SmallJob) -> None:
    """
    It is said that what it held stays held, and for how long.
    """
    assert -SIGKILL == killed(job.file, ReplyRead.name, GROUPS // 2)
    left = held(job)
    (job.state / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    summary = job.run(restart=True)

    assert 0 == summary.exit_code
    assert left + GROUPS == held(job)
    (told,) = [note for note in summary.notes if "budget.shared" in note]
    assert "stays held until its days and months are over: cannot read the ledger" in told


def test_nothing_is_set_aside_where_the_shared_budget_is_refused(job: SmallJob) -> None:
    """
    A file that may not lie where it does is a mistake in the job, told before anything is moved.
    """
    assert -SIGKILL == killed(job.file, ReplyRead.name, GROUPS // 2)
    refused = job.change(budget={"shared": "out/team.budget"}).cli("run", "--restart")

    assert 2 == refused.code
    assert "lies in output.path" in refused.err
    assert [] == [*job.state.parent.glob("*.aside-*")]
