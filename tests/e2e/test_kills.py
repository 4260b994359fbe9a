"""
What goes away without warning: the process, the disk, the ledger, the server. What was paid for is
kept, and in the end nothing tells that anything happened.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL

import pytest

from batchrank.events import ManifestWritten, SuccessWritten
from batchrank.store.disk import TRIAL
from batchrank.store.output import SUCCESS
from batchrank.store.reading import LedgerReader
from tests.e2e.jobs import (
    BILLED,
    Book,
    Process,
    Watched,
    bytes_of,
    embedded,
    faults_of,
    folder_of,
    here,
    loaded,
    run_here,
    running,
    until,
    write_job,
    write_source,
    wrong_parts,
)
from tests.e2e.killing import MANY_TIMES, ONCE, SLICE_DURABLE, killed
from tests.e2e.torture import FAULTS, Campaign, Scenario

pytestmark = pytest.mark.campaign

GROUPS = 60
CONCURRENCY = 8
PARTS = {"part_groups": 20}


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """
    A server that takes a moment.
    """
    with embedded("--latency", "0.01") as server:
        yield server


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, watched: Watched) -> dict[str, bytes]:
    """
    The output of the job that the tests below kill, when nobody kills it.
    """
    folder = tmp_path_factory.mktemp("undisturbed")
    write_source(folder, GROUPS)
    job = write_job(folder, watched.base_url, concurrency_max=CONCURRENCY, output=PARTS)
    assert 0 == run_here(job)
    return bytes_of(job)


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            Scenario("faults", 4, 240, FAULTS, 1, 32, 0.05, 40, capped=True, anew=False),
            id="with faults",
        ),
        pytest.param(
            Scenario("kills", 4, 240, (), 1, 32, 0.05, 40), id="kills", marks=pytest.mark.long
        ),
    ],
)
def test_a_job_killed_again_and_again_pays_twice_only_for_calls_in_flight(
    tmp_path: Path, scenario: Scenario
) -> None:
    """
    After each kill: paid and not durable ≤ concurrency, published parts whole; in the end all bytes
    as in an undisturbed run, nobody asked again who had scores, and what the dead runs may have
    spent is owned up to.
    """
    with embedded() as server:
        report = Campaign(tmp_path, server, scenario).run()

    assert [] == report.problems


def is_named(state: Path) -> bool:
    """
    The ledger's file, or one that will be it, has a name.
    """
    return any(state.glob("*ledger*"))


def has_a_journal(state: Path) -> bool:
    """
    SQLite has begun to write its first pages.
    """
    return any(state.glob("*ledger*-journal"))


def has_pages_and_a_journal(state: Path) -> bool:
    """
    Some of these pages are in the file, and only the journal tells which.
    """
    with suppress(FileNotFoundError):
        return has_a_journal(state) and any(
            path.stat().st_size for path in state.glob("*ledger*") if "-" not in path.name
        )
    return False


@pytest.mark.parametrize("moment", [is_named, has_a_journal, has_pages_and_a_journal])
def test_a_kill_while_the_ledger_is_made_leaves_none(
    tmp_path: Path, watched: Watched, moment: Callable[[Path], bool]
) -> None:
    """
    There is a ledger with all its tables, or none: never one that the next run stumbles over.
    """
    write_source(tmp_path, GROUPS)
    job = write_job(tmp_path, watched.base_url)
    state = loaded(job).state
    with running(job) as process:
        until(lambda: moment(state.path) or state.reserve.exists(), process, step_s=0.0)
        process.kill()

    assert 0 == run_here(job)
    assert [] == faults_of(job)


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        *(pytest.param(point, 1, id=f"{point}, first") for point in (*ONCE, *MANY_TIMES)),
        *(
            pytest.param(point, 3, id=f"{point}, later", marks=pytest.mark.long)
            for point in MANY_TIMES
        ),
    ],
)
def test_a_kill_at_any_point_leaves_nothing_to_mend(
    tmp_path: Path, watched: Watched, whole: dict[str, bytes], point: str, nth: int
) -> None:
    """
    Wherever a run dies between a reply and `_SUCCESS`, the next one finishes the same bytes.
    """
    watched.reset()
    write_source(tmp_path, GROUPS)
    job = write_job(tmp_path, watched.base_url, concurrency_max=CONCURRENCY, output=PARTS)
    ended = killed(job, point, nth)
    lost = watched.settled().billed - (book := Book.of(job)).count(BILLED)
    wrong, told_done = wrong_parts(job, book), SUCCESS in bytes_of(job)
    has_manifest = loaded(job).state.manifest.exists()
    exit_code = run_here(job)

    assert -SIGKILL == ended
    assert 0 <= lost <= CONCURRENCY
    assert [] == wrong
    assert told_done is (point == SuccessWritten.name)
    assert has_manifest is (point in (ManifestWritten.name, SuccessWritten.name))
    assert 0 == exit_code
    assert whole == bytes_of(job)
    assert [] == faults_of(job)
    assert GROUPS + lost == watched.settled().arrived
    assert [] == leftovers(job)


def test_success_is_withdrawn_before_a_damaged_part_changes(
    tmp_path: Path, watched: Watched, whole: dict[str, bytes]
) -> None:
    """
    Who waits for `_SUCCESS` does not see it beside a part that nobody came to mend.
    """
    write_source(tmp_path, GROUPS)
    job = write_job(tmp_path, watched.base_url, concurrency_max=CONCURRENCY, output=PARTS)
    assert 0 == run_here(job)
    (loaded(job).output / "part-00001.parquet").write_bytes(b"damaged")

    ended = killed(job, "rendered")
    told_done = SUCCESS in bytes_of(job)

    assert -SIGKILL == ended
    assert not told_done
    assert 0 == run_here(job)
    assert whole == bytes_of(job)


def test_a_kill_while_the_output_is_tried_leaves_nothing_there(
    tmp_path: Path, watched: Watched
) -> None:
    """
    The file that showed whether the folder can be written goes with the next run.
    """
    write_source(tmp_path, 1)
    job = write_job(tmp_path, watched.base_url)
    output = folder_of(job)
    output.mkdir(parents=True)
    (output / f"{TRIAL}1").touch()

    assert 0 == run_here(job)
    assert {SUCCESS, "part-00000.parquet"} == set(bytes_of(job))


def test_slices_that_are_scored_are_not_asked_again(tmp_path: Path) -> None:
    """
    Of a group that takes several requests, a kill loses those under way and no other.
    """
    groups, documents = 12, 400
    source = write_source(tmp_path, groups, documents)
    with embedded("--latency", "0.01..0.03") as server:
        server.turn(body_bytes_max=5_000)
        whole, job = (
            write_job(tmp_path / name, server.base_url, source=source, concurrency_max=CONCURRENCY)
            for name in ("undisturbed", "killed")
        )
        assert 0 == run_here(whole)
        ended = killed(job, SLICE_DURABLE, 4)
        with LedgerReader.open(loaded(job).state.ledger) as ledger:
            kept = list(ledger.slices())
        exit_code = run_here(job)
    with LedgerReader.open(loaded(job).state.ledger) as ledger:
        paid = "SELECT sum(stop - start) FROM calls WHERE failure IS NULL"
        scored = ledger.connection.execute(paid).fetchone()[0]

    assert -SIGKILL == ended
    assert kept
    assert 0 == exit_code
    assert groups * documents == scored
    assert bytes_of(whole) == bytes_of(job)


def leftovers(job: Path) -> list[str]:
    """
    Files of unfinished work in the state folder.
    """
    state = loaded(job).state
    return [p.name for p in (*state.staging.iterdir(), *state.path.glob(".*")) if p.is_file()]


# --- the disk -------------------------------------------------------------------------------------

STORAGE = 4


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """
    A file system of so many bytes on *folder*, for whoever may mount one.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or not sys.platform.startswith("linux") or subprocess.call(command):
        # Such as in a container without privileges.
        if os.environ.get("BATCHRANK_MUST_MOUNT"):
            pytest.fail("cannot mount a small file system, and must")
        pytest.skip("only root on Linux can mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("size", "output"),
    [
        pytest.param("9m", {"state": "disk/state"}, id="of the ledger"),
        pytest.param("40k", {"path": "disk/a/scores"}, id="of the parts"),
    ],
)
def test_a_full_disk_loses_nothing_and_the_next_run_carries_on(
    tmp_path: Path, watched: Watched, size: str, output: dict[str, object]
) -> None:
    """
    The run leaves with 4 and says what to do; with room again no call is made twice.
    """
    watched.reset()
    write_source(tmp_path, 400, documents=20)
    options = {"part_groups": 100, **output}
    with small_disk(disk := tmp_path / "disk", size):
        job = write_job(tmp_path, watched.base_url, concurrency_max=CONCURRENCY, output=options)
        exit_code, said = here("run", str(job))
        lost = watched.settled().billed - (full := Book.of(job)).count(BILLED)
        wrong = wrong_parts(job, full)
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        exit_code_after = run_here(job)
        faults = faults_of(job)

    assert STORAGE == exit_code
    assert "make room and run again" in said
    assert "Traceback" not in said
    assert 0 < len(full.ranked) < 400
    assert 0 == lost  # what came home found room in the reserve, or the ledger had room anyway
    assert [] == wrong
    assert (0, []) == (exit_code_after, faults)
    assert 400 == watched.settled().arrived


def limit_file_size(process: Process, state: Path) -> None:
    """
    Let no file of *process* grow any more; whoever started it may do this.
    """
    now = (state / "ledger.sqlite-wal").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (now, now))


def forbid_writing(_process: Process, state: Path) -> None:
    """
    Make ledger and log such that not even root can write them.
    """
    names = [str(state / name) for name in ("ledger.sqlite", "ledger.sqlite-wal")]
    if shutil.which("chattr") is None or subprocess.call(["chattr", "+i", *names]):
        pytest.skip("chattr +i is not to be had here")


def allow_writing(state: Path) -> None:
    """
    Take that back, where it was done.
    """
    for path in state.glob("ledger*"):
        if shutil.which("chattr"):
            subprocess.run(["chattr", "-i", str(path)], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits other processes")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(limit_file_size, id="files may not grow"),
        pytest.param(forbid_writing, id="the ledger cannot be written"),
    ],
)
def test_a_disk_that_fails_ends_the_run_at_once(
    tmp_path: Path, watched: Watched, spoil: Callable[[Process, Path], None]
) -> None:
    """
    The first commit that fails is the last: exit 4, and only calls in flight are paid again.
    """
    watched.reset()
    write_source(tmp_path, 400)
    job = write_job(tmp_path, watched.base_url, concurrency_max=CONCURRENCY)
    state = loaded(job).state.path
    try:
        with running(job) as process:
            until(lambda: watched.account().arrived > 5 * CONCURRENCY, process)
            spoil(process, state)
            exit_code = process.exit_code()
    finally:
        allow_writing(state)
    lost = watched.settled().billed - (book := Book.of(job)).count(BILLED)

    assert STORAGE == exit_code, process.said
    assert "cannot write the ledger" in process.summary["reason"]
    assert process.summary["notes"]
    assert "Traceback" not in process.said
    assert "ok" == book.sound
    assert 0 < lost <= CONCURRENCY
    assert 0 == run_here(job)
    assert [] == faults_of(job)
    assert 400 + lost == watched.settled().arrived


def test_a_ledger_that_is_removed_ends_the_run_at_once(tmp_path: Path, watched: Watched) -> None:
    """
    SQLite would write on into a file without a name; nobody pays for that.
    """
    watched.reset()
    write_source(tmp_path, 600)
    job = write_job(tmp_path, watched.base_url, concurrency_max=CONCURRENCY)
    with running(job) as process:
        until(lambda: watched.account().arrived > 5 * CONCURRENCY, process)
        shutil.rmtree(loaded(job).state.path)
        then = watched.account().arrived
        exit_code = process.exit_code()

    assert STORAGE == exit_code
    assert "was removed or replaced" in process.summary["reason"]
    assert "Traceback" not in process.said
    assert watched.settled().arrived <= then + 2 * CONCURRENCY
    assert 0 == run_here(job)


# --- the server -----------------------------------------------------------------------------------


@pytest.mark.long
def test_an_outage_rejects_nothing(tmp_path: Path) -> None:
    """
    The server is gone for three seconds; when it is back the run goes on and finishes.
    """
    write_source(tmp_path, 400)
    with ExitStack() as servers:
        before = servers.enter_context(embedded("--latency", "0.02"))
        job = write_job(tmp_path, before.base_url, concurrency_max=CONCURRENCY)
        with running(job) as process:
            until(lambda: before.account().arrived > 5 * CONCURRENCY, process)
            servers.close()
            time.sleep(3.0)
            with embedded("--port", str(before.port)) as after:
                exit_code = process.exit_code()
                there = after.account().arrived
    book = Book.of(job)

    assert 0 == exit_code
    assert "gate.shut" in process.said
    assert there > 0
    assert 0 == process.summary["rejected"]
    assert 400 == len(book.ranked)
    assert book.count(("never_sent",)) > 0
    assert [] == faults_of(job)
