"""
One job for many days: kills, damaged days, one limit for all, and values that would lead elsewhere.
"""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pytest

from batchrank.domain import PERHAPS_BILLED
from batchrank.errors import Signalled
from batchrank.events import DayStarted, Event, Silence
from batchrank.operate.backfill import Dated, backfill, dated, days
from batchrank.store.reading import LedgerReader
from batchrank.testing import windows_max
from tests.e2e.jobs import Process, Watched, embedded, started, until
from tests.e2e.small_jobs import Ran, SmallJob, groups
from tests.rehearsing import Server

pytestmark = pytest.mark.campaign

FIRST = date(2026, 11, 1)
GROUPS = 6
CONCURRENCY = 3
NO_VENDOR: dict[str, None] = {"model": None, "key_file": None, "base_url": None}


def dated_job(base: Path, port: int, count: int, per_day: int = GROUPS, **tables: Any) -> SmallJob:
    """
    A job with so many days; no two groups of any days ask the same.
    """
    job = SmallJob(
        base,
        port,
        source={"path": "in/dt={date}"},
        output={"path": "out/dt={date}"},
        **{"limits": {"concurrency_max": CONCURRENCY}, **tables},
    )
    every = groups(count * per_day)
    for n in range(count):
        rows = every[n * per_day : (n + 1) * per_day]
        job.source(rows, f"in/dt=2026-11-{n + 1:02}/groups.parquet")
    return job


def spoil(job: SmallJob, day: int) -> None:
    """
    Cut a day's file off.
    """
    [file] = (job.base / f"in/dt=2026-11-{day:02}").iterdir()
    file.write_bytes(file.read_bytes()[:-100])


def over(count: int) -> list[str]:
    """
    The options that name so many days.
    """
    return ["--from", "2026-11-01", "--to", f"2026-11-{count:02}"]


def of(job: SmallJob, count: int) -> tuple[Dated, ...]:
    """
    The job of each day.
    """
    return dated(job.file, days(FIRST, FIRST.replace(day=count)), with_key=False)


def finished(job: SmallJob) -> list[str]:
    """
    The days that have `_SUCCESS`.
    """
    return sorted(path.parent.name[-2:] for path in job.output.glob("dt=*/_SUCCESS"))


def ended(ran: Ran) -> list[tuple[int | None, str]]:
    """
    How each day ended, from the summary.
    """
    return [(day["exit_code"], day["ended"]) for day in ran.json["dates"]]


# --- killed, damaged ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """
    A server in a process of its own.
    """
    with embedded() as server:
        yield server


def begun(job: SmallJob, count: int) -> AbstractContextManager[Process]:
    """
    A backfill in a process of its own.
    """
    return started(job.base, "backfill", str(job.file), "--json", *over(count))


def arrive(watched: Watched, calls: int, process: Process) -> None:
    """
    Return when so many calls have come.
    """
    until(lambda: watched.account().arrived >= calls, process)


def booked(job: SmallJob, count: int) -> tuple[Counter[tuple[date, int]], int]:
    """
    How often each group of each day was answered well, and how many calls may have been billed.
    """
    well: Counter[tuple[date, int]] = Counter()
    billed = 0
    perhaps = {None, *(kind.value for kind in PERHAPS_BILLED)}
    for each in of(job, count):
        if not each.job.state.ledger.exists():
            continue
        with LedgerReader.open(each.job.state.ledger) as reader:
            rows = reader.connection.execute("SELECT position, failure FROM calls").fetchall()
        well.update((each.day, position) for position, failure in rows if failure is None)
        billed += sum(failure in perhaps for _, failure in rows)
    return well, billed


@pytest.mark.campaign
def test_fourteen_days_killed_twice_with_one_damaged_pay_for_nothing_twice(
    tmp_path: Path, watched: Watched
) -> None:
    """
    Thirteen are done and one is told; only calls under way at a kill are made again.
    """
    watched.turn(latency=0.03)
    watched.reset()
    job = dated_job(tmp_path, watched.port, 14)
    spoil(job, 5)

    for arrived in (20, 50):
        with begun(job, 14) as process:
            arrive(watched, arrived, process)
            assert process.is_alive
            process.kill()
        watched.settled()
    well, billed = booked(job, 14)
    in_flight = watched.account().billed - billed
    ran = job.cli("backfill", "--json", *over(14))
    told = ran.json

    assert 2 == ran.code == told["exit_code"]
    assert [f"{day:02}" for day in range(1, 15) if day != 5] == finished(job)
    assert [(5, "refused")] == [
        (n, day["ended"])
        for n, day in enumerate(told["dates"], 1)
        if day["ended"] not in ("done", "done before")
    ]
    assert "groups.parquet" in told["dates"][4]["why"]
    asked_again = watched.settled().billed - 13 * GROUPS
    assert asked_again == in_flight <= 2 * CONCURRENCY
    assert well < booked(job, 14)[0]
    assert {1} == set(booked(job, 14)[0].values())
    assert 13 * GROUPS == len(watched.arrivals())

    again = job.cli("backfill", "--json", *over(14))
    assert (2, 0) == (again.code, again.json["calls_now"])


def test_a_signal_stops_all_days_and_another_start_goes_on(
    tmp_path: Path, watched: Watched
) -> None:
    """
    Exit 75: what was under way came home, and is not asked again.
    """
    watched.turn(latency=0.1)
    watched.reset()
    job = dated_job(tmp_path, watched.port, 4)

    with begun(job, 4) as process:
        arrive(watched, GROUPS + 1, process)
        process.send(signal.SIGTERM)
        exit_code = process.exit_code()
    stopped = [day["exit_code"] for day in process.summary["dates"]]
    watched.turn(latency=None)
    ran = job.cli("backfill", "--json", *over(4))

    assert (75, [0, 75, None, None]) == (exit_code, stopped)
    assert [(0, "done before"), (0, "done"), (0, "done"), (0, "done")] == ended(ran)
    assert 4 * GROUPS == watched.settled().billed


@pytest.mark.parametrize(
    ("raised", "exit_code", "ended", "why"),
    [
        pytest.param(
            BaseExceptionGroup("", [Signalled("SIGTERM")]),
            75,
            "stopped early, run it again",
            "stopped by SIGTERM",
            id="a signal",
        ),
        pytest.param(KeyError("x"), 70, "stopped by a bug", "KeyError('x')", id="a bug"),
    ],
)
def test_what_no_engine_hears_is_told_with_all_that_was_done(
    tmp_path: Path, raised: BaseException, exit_code: int, ended: str, why: str
) -> None:
    """
    A signal between days, and a bug: who looks at the night in the morning gets a summary.
    """
    job = dated_job(tmp_path, 1, 3).change(provider={"name": "lexical", **NO_VENDOR})

    class Ending(Silence):
        def report(self, event: Event) -> None:
            if isinstance(event, DayStarted) and event.number == 2:
                raise raised

    done = backfill(of(job, 3), listening=lambda: nullcontext(Ending()))

    told = [(end.exit_code, end.ended, end.why) for end in done.ends]
    assert [(0, "done", ""), (exit_code, ended, why), (None, "not begun", "")] == told
    assert (exit_code, 1) == (done.exit_code, done.done)
    assert done.bug is (raised if exit_code == 70 else None)


def test_what_is_meant_for_nobody_here_is_passed_on(tmp_path: Path) -> None:
    """
    An interpreter that is told to leave, leaves.
    """

    class Leaving(Silence):
        def report(self, event: Event) -> None:
            raise SystemExit(9)

    job = dated_job(tmp_path, 1, 1)
    with pytest.raises(SystemExit):
        backfill(of(job, 1), listening=lambda: nullcontext(Leaving()))


def test_of_two_at_once_one_goes_on(tmp_path: Path, watched: Watched) -> None:
    """
    Beside another one that sends, each within the limit, the limit would not hold: exit 75.
    """
    watched.turn(latency=0.3)
    watched.reset()
    job = dated_job(tmp_path, watched.port, 3)

    with begun(job, 3) as first:
        until(lambda: watched.account().in_flight, first)
        second = job.cli("backfill", "--json", *over(3))
        watched.turn(latency=None)
        exit_code = first.exit_code()

    assert (0, 75) == (exit_code, second.code)
    assert [(75, "refused"), (None, "not begun"), (None, "not begun")] == ended(second)
    assert "is being written by process" in second.json["dates"][0]["why"]
    assert 3 * GROUPS == watched.settled().billed
    assert ["01", "02", "03"] == finished(job)


# --- one limit for all ----------------------------------------------------------------------------


def test_all_days_keep_to_one_limit(tmp_path: Path, server: Server) -> None:
    """
    A call a day: without a memory from day to day each would leave at once.
    """
    limits = {"requests": {"count": 1, "per_s": 0.5}, "concurrency_max": CONCURRENCY}
    job = dated_job(tmp_path, server.port, 4, per_day=1, limits=limits)

    assert 0 == job.cli("backfill", *over(4)).code

    times = [call["at_s"] for call in server.arrivals()]
    assert 4 == len(times)
    assert windows_max(times, 0.5) <= 1 + 1


def test_all_days_share_the_calls_that_are_allowed(tmp_path: Path, server: Server) -> None:
    """
    The next start carries on in the middle of a day.
    """
    job = dated_job(tmp_path, server.port, 3)

    first = job.cli("backfill", "--json", "--max-calls", GROUPS + 2, *over(3))
    billed = server.admin()["billed_calls"]
    second = job.cli("backfill", "--json", "--max-calls", GROUPS - 2, "--newest-first", *over(2))
    third = job.cli("backfill", "--json", *over(3))

    assert [(3, GROUPS + 2), (0, GROUPS - 2), (0, GROUPS)] == [
        (ran.code, ran.json["calls_now"]) for ran in (first, second, third)
    ]
    assert GROUPS + 2 == billed
    assert [0, 3, None] == [code for code, _ in ended(first)]
    assert 3 * GROUPS == server.admin()["billed_calls"]


def test_days_begin_with_no_call_left_only_if_they_need_none(
    tmp_path: Path, server: Server
) -> None:
    """
    A day that would begin and could do nothing is not begun.
    """
    job = dated_job(tmp_path, server.port, 2)

    ran = job.cli("backfill", "--json", "--max-calls", GROUPS, "--newest-first", *over(2))

    assert (3, [(0, "done"), (3, "not begun")]) == (ran.code, ended(ran))
    assert not (job.output / "dt=2026-11-01").exists()
    assert 0 == job.cli("backfill", "--max-calls", GROUPS, *over(2)).code
    assert 2 * GROUPS == server.admin()["billed_calls"]


# --- what one day's end means for the others ------------------------------------------------------


def test_a_refused_key_stops_all_days(tmp_path: Path, server: Server) -> None:
    """
    Unless somebody wants to know whether it is refused every day.
    """
    job = dated_job(tmp_path, server.port, 3)
    server.turn(faults=["401"])

    stopped = job.cli("backfill", "--json", *over(3))
    kept_going = job.cli("backfill", "--json", "--keep-going", *over(3))

    assert (3, [3, None, None]) == (stopped.code, [code for code, _ in ended(stopped)])
    assert (3, [3, 3, 3]) == (kept_going.code, [code for code, _ in ended(kept_going)])
    assert 0 == server.admin()["billed_calls"]


def test_a_budget_is_each_days_own(tmp_path: Path, server: Server) -> None:
    """
    As in a run of that day alone; whether the others are worth it, a person says.
    """
    job = dated_job(tmp_path, server.port, 2, budget={"cost_usd_max": 0.004})

    assert 3 == job.cli("backfill", *over(2)).code
    assert 4 == server.admin()["billed_calls"]
    assert 3 == job.cli("backfill", "--keep-going", *over(2)).code
    assert 8 == server.admin()["billed_calls"]


def test_days_without_a_source_or_with_rejects_are_told_and_the_others_go_on(
    tmp_path: Path, server: Server
) -> None:
    """
    Missing, damaged, with a group that nobody can rank, and not ready yet: each on its own.
    """
    job = dated_job(tmp_path, server.port, 5)
    [file] = (job.base / "in/dt=2026-11-01").iterdir()
    file.unlink()
    spoil(job, 2)
    rows = [{**row, "query": " "} if n == 0 else row for n, row in enumerate(groups(2))]
    job.source(rows, "in/dt=2026-11-03/groups.parquet")

    ran = job.cli("backfill", "--json", *over(6))

    assert [75, 2, 1, 0, 0, 2] == [code for code, _ in ended(ran)]
    assert 2 == ran.code
    assert ["04", "05"] == finished(job)
    events = {line["day"]: line["event"] for line in ran.events if "day" in line}
    refused = "day.refused"
    assert [refused, refused, "day.started", "day.started", "day.started", refused] == [
        events[f"2026-11-{n:02}"] for n in range(1, 7)
    ]


# --- finished before ------------------------------------------------------------------------------


def test_what_has_come_late_to_a_finished_day_is_told_and_taken_as_it_says(
    tmp_path: Path, server: Server
) -> None:
    """
    It is no reason to pay for the day again unasked; files that were cleared away are none at all.
    """
    job = dated_job(tmp_path, server.port, 3)
    job.cli("backfill", *over(3))
    job.source(groups(20)[19:], "in/dt=2026-11-01/late.parquet")
    job.source(groups(24)[20:], "in/dt=2026-11-02/groups.parquet")
    shutil.rmtree(job.base / "in/dt=2026-11-03")

    seen = job.cli("backfill", "--dry-run", "--json", *over(3))
    ran = job.cli("backfill", "--json", *over(3))

    first, second, third = (day["why"] for day in ran.json["dates"])
    assert [first, second, third] == [day["why"] for day in seen.json["dates"]]
    assert (0, 0, "") == (ran.code, ran.json["calls_now"], third)
    assert first.startswith("since then in/dt=2026-11-01/late.parquet is new: `batchrank run`")
    assert "with --restart" in first
    assert 'with output.reuse = "previous" groups that have not changed are not paid' in first
    assert "since then in/dt=2026-11-02/groups.parquet had " in second
    job.change(output={"reuse": "previous"})
    calls = server.admin()["billed_calls"]
    assert 0 == job.cli("run", "--set", "date=2026-11-01", "--restart").code
    assert calls + 1 == server.admin()["billed_calls"]
    assert "" == job.cli("backfill", "--json", *over(1)).json["dates"][0]["why"]


def test_what_all_days_have_in_common_says_nothing_about_a_finished_one(tmp_path: Path) -> None:
    """
    A corpus or a database grows every day, and every day's line would say so.
    """
    csv = {"run": "run-{date}.csv", "queries": "queries.csv", "corpus": "corpus.csv"}
    columns = {"path": None, "documents": None, "doc_id": "doc_id", "text": "text"}
    job = SmallJob(tmp_path, source={**csv, **columns}, output={"path": "out/dt={date}"})
    (tmp_path / "queries.csv").write_text("query_id,query\nq1,what\n")
    (tmp_path / "corpus.csv").write_text("doc_id,text\nd1,what it is\n")
    for n in (1, 2):
        (tmp_path / f"run-2026-11-0{n}.csv").write_text("query_id,doc_id,score\nq1,d1,0.5\n")
    done = job.cli("backfill", "--json", *over(2))
    with (tmp_path / "corpus.csv").open("a") as corpus:
        corpus.write("d2,what else\n")
    with (tmp_path / "run-2026-11-02.csv").open("a") as run:
        run.write("q1,d2,0.25\n")

    ran = job.cli("backfill", "--json", *over(2))
    alone = job.cli("backfill", "--json", "--from", "2026-11-02", "--to", "2026-11-02")

    assert [(0, "done"), (0, "done")] == ended(done)
    first, second = (day["why"] for day in ran.json["dates"])
    assert ("", True) == (first, second.startswith("since then run-2026-11-02.csv had "))
    assert "corpus" not in second
    assert [second] == [day["why"] for day in alone.json["dates"]]


def test_a_finished_day_needs_no_ledger(tmp_path: Path) -> None:
    """
    Without one nobody knows what came late; a damaged one is told.
    """
    job = dated_job(tmp_path, 1, 2).change(provider={"name": "lexical", **NO_VENDOR})
    job.cli("backfill", *over(2))
    first, second = (each.job.state.ledger for each in of(job, 2))
    first.unlink()
    second.write_bytes(b"no ledger" * 1000)
    job.source(groups(20)[19:], "in/dt=2026-11-01/late.parquet")

    ran = job.cli("backfill", "--json", *over(2))

    assert [(0, "done before"), (0, "done before")] == ended(ran)
    first_why, second_why = (day["why"] for day in ran.json["dates"])
    assert ("", True) == (first_why, second_why.startswith("cannot read the ledger"))


# --- looking only ---------------------------------------------------------------------------------


def everything(job: SmallJob) -> list[Path]:
    """
    All that lies there, but for what SQLite makes for whoever reads.
    """
    return sorted(p for p in job.base.rglob("*") if not p.name.endswith(("-wal", "-shm")))


def test_a_dry_run_tells_how_each_day_is_and_changes_nothing(
    tmp_path: Path, server: Server
) -> None:
    """
    Without a key, and in the order in which they would be run.
    """
    job = dated_job(tmp_path, server.port, 3)
    job.cli("run", "--set", "date=2026-11-01")
    job.cli("run", "--set", "date=2026-11-02", "--limit", 2)
    calls = server.admin()["calls"]
    (job.base / "key").unlink()
    before = everything(job)

    ran = job.cli("backfill", "--dry-run", "--newest-first", *over(4))

    assert (0, "") == (ran.code, ran.err)
    *lines, whole = ran.out.splitlines()
    assert [
        "2026-11-04  source missing",
        "2026-11-03  to do",
        "2026-11-02  begun",
        "2026-11-01  done",
    ] == [line.partition(":")[0] for line in lines]
    assert "4 dates: 1 done, 1 begun, 1 to do, 1 source missing; nobody was called" == whole
    states = job.cli("backfill", "--dry-run", "--json", *over(4)).json["dates"]
    assert ["done", "begun", "to do", "source missing"] == [day["state"] for day in states]
    assert (before, calls) == (everything(job), server.admin()["calls"])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("tables", "options", "words"),
    [
        pytest.param({"output": {"path": "out"}}, [], "output.path: is the same", id="one output"),
        pytest.param({"source": {"path": "in"}}, [], "source: is the same", id="one source"),
        pytest.param({}, ["--set", "date=2026-01-01"], "--set date", id="a day that is set"),
        pytest.param({}, ["--variable", "dat"], "did you mean date?", id="no such variable"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_day(
    tmp_path: Path, server: Server, tables: Any, options: list[str], words: str, count: int
) -> None:
    """
    The same groups would be paid for every day, or every day's scores would lie in one folder. Who
    asks for one day asks for the next one tomorrow, and would be told that it is done.
    """
    job = dated_job(tmp_path, server.port, 2).change(**tables)

    ran = job.cli("backfill", *over(count), *options)

    assert 2 == ran.code
    assert words in ran.err
    assert 0 == server.admin()["calls"]


@pytest.mark.parametrize("day", ["2026-13-01", "yesterday", "20261101"])
def test_a_day_is_a_day(day: str, tmp_path: Path) -> None:
    """
    As the calendar has it.
    """
    ran = SmallJob(tmp_path).cli("backfill", "--from", day, "--to", "2026-11-02")

    assert 2 == ran.code
    assert "--from" in ran.err


# --- folders that variables name ------------------------------------------------------------------

VALUES = ("..", "de/at", "100%", "a=b", "*", ".hidden", "Zürich: 日本", "a\nb", "../../elsewhere")


def test_hostile_values_are_folders_that_readers_give_back(tmp_path: Path) -> None:
    """
    Nothing is written beside the output's folder, and a partition's value is what was set.
    """
    base = tmp_path / "a" / "b"
    base.mkdir(parents=True)
    job = SmallJob(
        base,
        source={"path": "in/market={market}/dt={date}"},
        output={"path": "out/market={market}/dt={date}"},
        variables={"market": "de"},
    )
    done = job.source(groups(2), "done.parquet").base / "done.parquet"
    for value in VALUES:
        chosen = dated(job.file, [FIRST], overrides={"market": value})[0].job
        assert isinstance(chosen.output, Path)
        output = chosen.output
        for folder in ((base / str(chosen.config.source.path)).resolve(), output):
            assert base == folder.parents[2]
            folder.mkdir(parents=True)
            shutil.copy(done, folder)
    shutil.rmtree(output)

    ran = job.cli("backfill", "--set", f"market={VALUES[-1]}", *over(1))

    assert 0 == ran.code
    assert ["b"] == [path.name for path in base.parent.iterdir()]
    assert {".batchrank", "done.parquet", "in", "job.toml", "out"} == {
        path.name for path in base.iterdir()
    }
    [success] = job.output.rglob("_SUCCESS")
    assert job.output == success.parents[2]
    table = ds.dataset(job.output, partitioning="hive", exclude_invalid_files=False).to_table()
    assert set(VALUES) == set(table["market"].to_pylist())
    with duckdb.connect() as connection:
        read = connection.read_parquet(
            f"{job.output}/**/*.parquet", hive_partitioning=True, union_by_name=True
        )
        assert set(VALUES) == {market for (market,) in read.select("market").fetchall()}
