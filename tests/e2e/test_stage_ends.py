"""
A staging that is ended from outside: killed, it starts over; signalled, it leaves at once with 75.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.e2e.jobs import here, running, until

pytestmark = pytest.mark.campaign

FEW, MANY = 120_000, 2_000_000
"""Rows: so many are sorted in a second, and so many do not fit into memory."""

AT_ONCE_S = 2.0
LATER = 75


def a_job(folder: Path, rows: int) -> Path:
    """
    A job that takes its time to be staged; without files and without calls.
    """
    sql = (
        "SELECT i * 7919 % 100000 AS query_id, 'what is ' || query_id AS query, i AS doc_id,"
        f" 'passage ' || hash(i) AS text FROM range({rows}) AS r(i)"
    )
    job = folder / "job.toml"
    job.write_text(
        f'[source]\nsql = "{sql}"\nmemory = "100MB"\n[provider]\nname = "lexical"\n'
        '[output]\npath = "out"\n'
    )
    return job


def is_begun(folder: Path) -> bool:
    """
    Tell whether DuckDB is at work.
    """
    return any(folder.glob(".batchrank/*/source/spill"))


def is_sorting(folder: Path) -> bool:
    """
    Tell whether it sorts, and more than fits into memory.
    """
    return any(folder.glob(".batchrank/*/source/spill/*"))


def is_writing(folder: Path) -> bool:
    """
    Tell whether sorting is over, and groups are written.
    """
    return any(folder.glob(".batchrank/*/source/*/groups.parquet"))


def left_in(folder: Path) -> list[str]:
    """
    What lies in the folder of the staging, but for its lock.
    """
    root = next(folder.glob(".batchrank/*/source"))
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.name != "lock")


WHOLE = ["flaws.json", "groups.parquet", "staged.json"]


@pytest.mark.parametrize("moment", [is_begun, is_writing])
def test_a_staging_that_was_killed_starts_over(
    tmp_path: Path, moment: Callable[[Path], bool]
) -> None:
    """
    Half a file is never taken, and what was spilled goes.
    """
    job = a_job(tmp_path, FEW)
    with running(job, "--limit", "1") as process:
        until(lambda: moment(tmp_path), process)
        process.kill()
    assert "staged.json" not in left_in(tmp_path)

    code, _ = here("run", str(job), "--limit", "1")
    staged = pq.read_table(next(tmp_path.glob(".batchrank/*/source/*/groups.parquet")))
    documents = staged["documents"].combine_chunks().flatten()
    ids = pc.struct_field(documents, "doc_id")

    assert (0, WHOLE) == (code, left_in(tmp_path))
    assert (FEW, FEW) == (len(ids), len(pc.unique(ids)))


@pytest.mark.parametrize("number", [SIGTERM, SIGINT, SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_sorting_at_once(tmp_path: Path, number: Signals) -> None:
    """
    Nobody was called, so that there is nothing to wait for; nothing is left behind.
    """
    job = a_job(tmp_path, MANY)
    with running(job) as process:
        until(lambda: is_sorting(tmp_path), process)
        told_at = process.send(number)
        code = process.exit_code()

    assert LATER == code
    assert process.ended_at - told_at < AT_ONCE_S
    assert "stopped by a signal; run it again" in process.said
    assert "Traceback" not in process.said
    assert [] == left_in(tmp_path)
