"""
Caps, with a server that keeps its own bill: at no moment does that pass them, whoever is killed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.e2e.jobs import (
    BILLED,
    Book,
    Process,
    Watched,
    embedded,
    faults_of,
    run,
    running,
    until,
    write_job,
    write_source,
)

PERSON = 3
NANO_A_CALL = 10**6
"""What the embedded server charges for a group of these tests."""

IN_FLIGHT = 200


class Bill:
    """
    The server's bill, looked at all the time: *most* is the highest seen, in calls.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.most = 0

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.look()

    def look(self) -> int:
        """
        What is owed now, in calls.
        """
        owed = self._watched.account().nano_usd // NANO_A_CALL
        self.most = max(self.most, owed)
        return owed

    @contextmanager
    def watched(self) -> Iterator[None]:
        """
        Watch meanwhile.
        """
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
            self._watched.settled()
            self.look()


def killed_at_random(
    jobs: Sequence[Path], watched: Watched, chance: random.Random, kills: int
) -> None:
    """
    Run all of *jobs* at once, again and again, and kill each with calls in flight.
    """
    for _ in range(kills):
        with ExitStack() as stack:
            processes = [stack.enter_context(running(job)) for job in jobs]
            before = watched.account().arrived
            some = chance.randint(1, IN_FLIGHT // 4)
            until(lambda: watched.account().arrived > before + some or none_lives(processes))  # noqa: B023 - called in this very round
            for process in chance.sample(processes, len(processes)):
                time.sleep(chance.uniform(0.0, 0.05))
                process.kill()


def none_lives(processes: Sequence[Process]) -> bool:
    """
    All are over.
    """
    return not any(process.is_alive for process in processes)


def written(folder: Path, watched: Watched, groups: int, **budget: object) -> Path:
    """
    A job with a budget.
    """
    if not (folder / "groups.parquet").exists():
        write_source(folder, groups)
    return write_job(folder, watched.base_url, concurrency_max=IN_FLIGHT, budget=budget)


def lost(watched: Watched, jobs: Sequence[Path]) -> int:
    """
    Calls that were billed and that no ledger has.
    """
    return watched.settled().billed - sum(Book.of(job).count(BILLED) for job in jobs)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 3, 4))])
def test_the_bill_never_passes_the_cap_and_a_raised_one_finishes(tmp_path: Path, seed: int) -> None:
    """
    A cap at 37.5 % of the job, 200 calls in flight, kills: the bill stays below at every moment,
    and in the end it is that of an undisturbed run and of the calls that were in flight.
    """
    groups, kills = 1_600, 2
    cap = groups * 3 // 8
    chance = random.Random(seed)
    with embedded("--latency", "0.02..0.1") as server:
        job = written(tmp_path, server, groups, cost_usd_max=cap / 1000)
        bill = Bill(server)
        with bill.watched():
            killed_at_random([job], server, chance, kills)
            last = run(job)
        in_flight = lost(server, [job])
        capped = bill.most
        written(tmp_path, server, groups, cost_usd_max=2 * groups / 1000)
        raised = run(job).exit_code()
        whole = server.settled().billed

    assert PERSON == last.exit_code()
    assert "budget.cost_usd_max does not cover another call" in last.summary["reason"]
    assert 0 < capped <= cap
    assert 0 <= in_flight <= kills * IN_FLIGHT
    assert 0 == raised
    assert groups + in_flight == whole
    assert [] == faults_of(job)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 3, 4))])
def test_two_jobs_on_one_day_never_pass_its_cap(tmp_path: Path, seed: int) -> None:
    """
    The same of two jobs at once, killed at random, that share a file; at midnight the month holds.
    """
    groups, kills = 1_600, 2
    cap = 2 * groups * 3 // 8
    chance = random.Random(seed)
    shared = {"shared": str(tmp_path / "team.budget")}
    with embedded("--latency", "0.02..0.1") as server:

        def both(usd: float) -> list[Path]:
            caps = {"day_usd_max": usd, "month_usd_max": usd, **shared}
            return [written(tmp_path / name, server, groups, **caps) for name in ("a", "b")]

        jobs = both(cap / 1000)
        bill = Bill(server)
        with bill.watched():
            killed_at_random(jobs, server, chance, kills)
            with running(jobs[0]) as one, running(jobs[1]) as other:
                stopped = [one.exit_code(), other.exit_code()]
        in_flight = lost(server, jobs)
        capped = bill.most
        both(4 * groups / 1000)
        raised = [run(job).exit_code() for job in jobs]
        whole = server.settled().billed

    assert PERSON in stopped
    assert set(stopped) <= {0, PERSON}
    assert "_usd_max does not cover another call" in one.said + other.said
    assert "00:00 UTC" in one.said + other.said
    assert 0 < capped <= cap
    assert 0 <= in_flight <= 2 * kills * IN_FLIGHT
    assert [0, 0] == raised
    assert 2 * groups + in_flight == whole
    assert [] == [*faults_of(jobs[0]), *faults_of(jobs[1])]
