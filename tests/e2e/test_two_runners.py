"""
One runner an output: a second one is sent away, and nothing keeps a third from carrying on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.e2e.jobs import (
    Book,
    Watched,
    embedded,
    faults_of,
    here,
    loaded,
    run_here,
    running,
    under_way,
    until,
    write_job,
    write_source,
)

pytestmark = pytest.mark.campaign

GROUPS = 80
CONCURRENCY = 8
LATER = 75


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """
    A server that takes long enough for two to meet.
    """
    with embedded() as server:
        yield server


@pytest.fixture
def job(tmp_path: Path, watched: Watched) -> Path:
    """
    A job whose calls take long, until somebody turns the dial.
    """
    watched.settled()
    watched.turn(latency=0.5)
    watched.reset()
    write_source(tmp_path, GROUPS)
    return write_job(tmp_path, watched.base_url, concurrency_max=CONCURRENCY)


def same(job: Path) -> Path:
    """
    The very same job file.
    """
    return job


def linked(job: Path) -> Path:
    """
    The same job file, reached through a symbolic link to its folder.
    """
    link = job.parent.parent / f"{job.parent.name}-link"
    link.symlink_to(job.parent)
    return link / job.name


def other_state(job: Path) -> Path:
    """
    Another job with its ledger elsewhere, and the same output.
    """
    watched_url = loaded(job).first.base_url
    return write_job(job.parent, watched_url, file="other.toml", output={"state": "elsewhere"})


SECONDS: Mapping[str, tuple[Callable[[Path], Path], Sequence[str], bool]] = {
    "the same job": (same, ("run",), True),
    "the same job through a link": (linked, ("run",), True),
    "another job with its state elsewhere": (other_state, ("run",), False),
    "with restart": (same, ("run", "--restart"), True),
    "prune": (same, ("prune",), True),
}
"""Who comes second: with which job file, which command, and whether it can know who was first."""


def test_whoever_comes_second_is_sent_away(job: Path, watched: Watched) -> None:
    """
    It leaves with 75, says who is at it where it can know, calls nobody and disturbs nothing.
    """
    with running(job) as first:
        under_way(watched, CONCURRENCY, first)
        found = {}
        for who, (second, command, _) in SECONDS.items():
            exit_code, said = here(*command, str(second(job)))
            assert "is being written by" in said
            found[who] = exit_code, f"process {first.pid} " in said
        watched.turn(latency=None)
        first_exit_code = first.exit_code()

    assert {who: (LATER, names_pid) for who, (_, _, names_pid) in SECONDS.items()} == found
    assert 0 == first_exit_code
    assert GROUPS == watched.settled().arrived
    assert [0] == Book.of(job).runs
    assert [] == faults_of(job)


def test_of_many_that_start_at_once_one_runs(job: Path, watched: Watched) -> None:
    """
    Whoever comes first gets it, nobody waits, and each group is asked about once.
    """
    with running(job) as a, running(job) as b, running(job) as c:
        all_three = (a, b, c)
        until(lambda: sum(process.is_alive for process in all_three) == 1)
        watched.turn(latency=None)
        codes = sorted(process.exit_code() for process in all_three)

    assert [0, LATER, LATER] == codes
    assert GROUPS == watched.settled().arrived
    assert [] == faults_of(job)


def test_a_killed_runner_leaves_no_lock(job: Path, watched: Watched) -> None:
    """
    After `kill -9` the next one starts at once, whatever the lock file says.
    """
    with running(job) as first:
        under_way(watched, CONCURRENCY, first)
        first.kill()
    watched.turn(latency=None)
    written = loaded(job).state.lock.read_text()
    exit_code = run_here(job)

    assert str(first.pid) in written
    assert 0 == exit_code
    assert GROUPS + CONCURRENCY == watched.settled().arrived
