"""
Jobs whose source and output lie in an object store, while the way to it breaks.

What is in the store is the same, byte for byte, as on a disk; at no moment does anybody see a half.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from batchrank.places.stores import ATTEMPTS
from tests.e2e.jobs import (
    Watched,
    bytes_of,
    embedded,
    faults_of,
    here,
    running,
    until,
    write_source,
)
from tests.e2e.jobs import write_job as write_local_job
from tests.e2e.small_jobs import cli
from tests.stores.faults import Fault, FaultProxy
from tests.stores.s3 import ACCESS_KEY, REGION, SECRET_KEY, Bucket

pytestmark = pytest.mark.campaign

GROUPS = 60
PARTS = {"part_groups": 20}
NAMES = {"_SUCCESS", *(f"part-0000{n}.parquet" for n in range(3))}
CONCURRENCY = 8


@pytest.fixture(scope="module")
def server() -> Iterator[Watched]:
    """
    One server for all jobs here.
    """
    with embedded() as watched:
        yield watched


@pytest.fixture
def watched(server: Watched) -> Watched:
    """
    The server, with nothing on its bill.
    """
    server.reset()
    return server


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Credentials as S3's own tools find them; child processes, too.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def put_source(bucket: Bucket, folder: Path, key: str, groups: int = GROUPS) -> None:
    """
    Put groups of small texts into the bucket.
    """
    bucket.write(key, write_source(folder, groups).read_bytes())


def write_job(
    folder: Path, watched: Watched, bucket: Bucket, faults: FaultProxy, **output: object
) -> Path:
    """
    A job from the bucket into the bucket, by way of the proxy.
    """
    tables: dict[str, Any] = {
        "stores.s3": {"endpoint": faults.url, "region": REGION},
        "variables": {"date": "2026-11-18"},
    }
    return write_local_job(
        folder,
        watched.base_url,
        concurrency_max=CONCURRENCY,
        output={"path": f"s3://{bucket.name}/out/dt={{date}}", **PARTS, **output},
        source=f"s3://{bucket.name}/in/dt={{date}}",
        **tables,
    )


def output_of(bucket: Bucket, day: str = "2026-11-18") -> dict[str, bytes]:
    """
    What the store holds of an output, but for what clients leave to mark a folder.
    """
    folder = f"out/dt={day}/"
    names = (key.removeprefix(folder) for key in bucket.keys(folder))
    return {name: bucket.read(folder + name) for name in names if name}


def expected(folder: Path, watched: Watched) -> dict[str, bytes]:
    """
    What the same job writes on a disk, which is read where it was written.
    """
    write_source(folder, GROUPS)
    job = write_local_job(folder, watched.base_url, output=PARTS)
    assert 0 == here("run", str(job))[0]
    watched.reset()
    return bytes_of(job)


class Onlooker:
    """
    Somebody who lists the output all the time, and reads and keeps each state that it was in.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.states: list[dict[str, bytes]] = []
        self._bucket = bucket
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        listed: dict[str, str] = {}
        while not self._over.wait(0.02):
            if listed != (now := self._bucket.digests("out/dt=")):
                listed = now
                self.states.append(self._read(now))

    def _read(self, keys: Iterable[str]) -> dict[str, bytes]:
        read = {}
        for key in keys:
            with suppress(KeyError):  # taken away since
                read[key.rpartition("/")[2]] = self._bucket.read(key)
        return read

    @contextmanager
    def looking(self) -> Iterator[Onlooker]:
        """
        Look until the block ends.
        """
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


def test_faults_on_the_way_leave_no_trace(
    tmp_path: Path, watched: Watched, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    Connections that break, a store that asks to slow down, answers that are lost after the put.
    """
    whole = expected(tmp_path / "disk", watched)
    put_source(bucket, tmp_path, "in/dt=2026-11-18/groups.parquet")
    job = write_job(tmp_path, watched, bucket, faults)
    faults.arm(Fault.CUT_BEFORE, "GET", "/in/")
    faults.arm(Fault.CUT_IN_REPLY, "GET", "/in/", nth=2)
    faults.arm(Fault.SLOW_DOWN, "GET", "/in/", nth=3)
    faults.arm(Fault.CUT_AFTER, "PUT", "part-00000", times=ATTEMPTS)
    faults.arm(Fault.CUT_IN_REQUEST, "PUT", "part-00001")
    faults.arm(Fault.SLOW_DOWN, "PUT", "part-00002", times=2)
    faults.arm(Fault.CUT_AFTER, "PUT", "_SUCCESS")
    faults.arm(Fault.ACCESS_DENIED, "PUT", "manifest")

    with Onlooker(bucket).looking() as onlooker:
        code, err = here("run", str(job))

    assert 0 == code, err
    assert 0 == faults.waiting
    assert whole == output_of(bucket)
    assert GROUPS == watched.settled().billed
    assert [] == faults_of(job)
    for state in onlooker.states:
        assert state.items() <= whole.items(), "a half, or something else, was seen"
        assert "_SUCCESS" not in state or NAMES == set(state)


def test_a_killed_job_is_carried_on(
    tmp_path: Path, watched: Watched, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    In the middle of a put, too; no more is paid again than was in flight.
    """
    whole = expected(tmp_path / "disk", watched)
    put_source(bucket, tmp_path, "in/dt=2026-11-18/groups.parquet")
    job = write_job(tmp_path, watched, bucket, faults)
    faults.arm(Fault.SILENT, "PUT", "part-00001", seconds=30)
    with running(job) as process:
        until(lambda: faults.seen("PUT", "part-00001"), process)
        assert process.is_alive, process.said
        process.kill()
    assert {"part-00000.parquet"} == set(output_of(bucket))
    faults.end_silence()

    code, err = here("run", str(job))

    assert 0 == code, err
    assert whole == output_of(bucket)
    assert watched.settled().billed <= GROUPS + CONCURRENCY
    assert [] == faults_of(job)


def test_a_store_that_stays_away_loses_nothing(
    tmp_path: Path,
    watched: Watched,
    bucket: Bucket,
    faults: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The run ends with 4 and says why; the next one pays for nothing that is in the ledger.
    """
    monkeypatch.setattr("batchrank.store.shelf.WAITS_S", (0.0,))
    put_source(bucket, tmp_path, "in/dt=2026-11-18/groups.parquet")
    job = write_job(tmp_path, watched, bucket, faults)
    faults.arm(Fault.ACCESS_DENIED, "PUT", "part-", times=1000)

    code, err = here("run", str(job))

    assert 4 == code
    assert "part-00000.parquet" in err
    assert "access denied" in err
    assert {} == output_of(bucket)

    faults.reset()
    code, err = here("run", str(job))

    assert 0 == code, err
    assert NAMES == set(output_of(bucket))
    assert GROUPS == watched.settled().billed


def test_a_second_machine_is_kept_out(
    tmp_path: Path, watched: Watched, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    It has another state folder, so that no lock tells it of the first; nobody is called.
    """
    put_source(bucket, tmp_path, "in/dt=2026-11-18/groups.parquet")
    first = write_job(tmp_path / "one", watched, bucket, faults)
    assert 0 == here("run", str(first), "--limit", "5")[0]
    paid = watched.settled().billed
    second = write_job(tmp_path / "two", watched, bucket, faults)

    code, err = here("run", str(second))

    assert 2 == code
    assert "another state folder" in err
    assert str(tmp_path / "one") in err
    assert paid == watched.settled().billed
    assert 0 == here("run", str(first))[0]


def test_dates_reuse_and_restart_work_as_on_a_disk(
    tmp_path: Path, watched: Watched, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    The second day takes its scores from the first; what is set aside comes here, and is used.
    """
    for day in ("2026-11-17", "2026-11-18"):
        put_source(bucket, tmp_path, f"in/dt={day}/groups.parquet")
        bucket.write(f"in/dt={day}/_SUCCESS", b"")
    job = write_job(tmp_path, watched, bucket, faults, reuse="previous")
    dates = ["--from", "2026-11-17", "--to", "2026-11-18"]

    code, err = here("backfill", str(job), *dates)

    assert 0 == code, err
    assert GROUPS == watched.settled().billed
    asked_about = {
        found[1] for seen in faults.log if (found := re.search("dt(?:=|%3D)([0-9-]+)", seen.target))
    }
    assert {"2026-11-17", "2026-11-18"} == asked_about, "days that are not there cost requests"
    first, second = output_of(bucket, "2026-11-17"), output_of(bucket)
    assert first == second
    assert NAMES == set(second)

    put_source(bucket, tmp_path, "in/dt=2026-11-17/late.parquet", groups=1)
    seen = cli("backfill", job, *dates, "--dry-run")

    assert 0 == seen.code
    assert f"s3://{bucket.name}/in/dt=2026-11-17/late.parquet is new" in seen.out

    faults.arm(Fault.ACCESS_DENIED, "*", "/in/", times=1000)
    seen = cli("backfill", job, *dates, "--dry-run")

    assert 0 == seen.code
    assert "access denied" in seen.out, "nobody knows whether anything came late"
    faults.reset()

    code, err = here("run", str(job), "--restart")

    assert 0 == code, err
    assert GROUPS == watched.settled().billed
    assert second == output_of(bucket)
    assert [second] == [
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / ".batchrank").glob("*.aside-*/output-1")
    ]


def test_a_hostile_value_does_not_leave_the_prefix(
    tmp_path: Path, watched: Watched, bucket: Bucket, faults: FaultProxy
) -> None:
    """
    It is one name, letter by letter.
    """
    put_source(bucket, tmp_path, "in/dt=..%2F..%2Fother/groups.parquet")
    job = write_job(tmp_path, watched, bucket, faults)

    code, err = here("run", str(job), "--set", "date=../../other")

    assert 0 == code, err
    every = bucket.keys("")
    below = "out/dt=..%2F..%2Fother/"
    assert NAMES == {key.removeprefix(below) for key in every if key.startswith(below)} - {""}
    assert all(key.startswith(("in/", "out/")) for key in every)
