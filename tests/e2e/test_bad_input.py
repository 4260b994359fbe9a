"""
What a person can get wrong is refused before anything is paid, with where, what and how to mend it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from batchrank.errors import Exit, JobError, SourceError
from batchrank.job.loading import load
from batchrank.store.disk import file_system_of, is_network
from batchrank.store.tables import SCHEMA_VERSION
from tests.e2e.fuse_mount import CANNOT
from tests.e2e.small_jobs import Ran, SmallJob, cli, groups, process
from tests.rehearsing import Server

UNSET = "BATCHRANK_TESTS_LEAVE_THIS_UNSET"


@pytest.fixture
def job(server: Server, tmp_path: Path) -> SmallJob:
    """
    A job that would run.
    """
    return SmallJob(tmp_path, server.port).source(groups(4))


def check_refused(ran: Ran, job: SmallJob, server: Server, *words: str, code: int = 2) -> None:
    """
    It said all *words* on standard error, called nobody, and wrote nothing.
    """
    missing = [word for word in words if word not in ran.why]

    assert (code, "", []) == (ran.code, ran.out, missing), ran.err
    assert "Traceback" not in ran.err
    assert 0 == server.admin()["calls"]
    assert not job.output.is_dir() or not list(job.output.iterdir())


# --- the job file and its source ------------------------------------------------------------------


def change(**tables: Any) -> Callable[[SmallJob], object]:
    """
    A mistake that is one of settings.
    """
    return lambda job: job.change(**tables)


def write(name: str, body: bytes) -> Callable[[SmallJob], object]:
    """
    A mistake that is a file.
    """

    def mistake(job: SmallJob) -> None:
        (job.base / name).parent.mkdir(exist_ok=True)
        (job.base / name).write_bytes(body)

    return mistake


def pairs(name: str, body: bytes) -> Callable[[SmallJob], object]:
    """
    A mistake in a file with a row per candidate.
    """

    def mistake(job: SmallJob) -> None:
        job.change(source={"path": name, "query_id": "query_id", "doc_id": None, "text": None})
        (job.base / name).write_bytes(body)

    return mistake


MISTAKES = [
    pytest.param(
        change(limits={"concurency_max": 4}),
        ["line 12", "limits.concurency_max", "unknown key", "did you mean concurrency_max?"],
        id="an unknown key",
    ),
    pytest.param(
        change(source={"query": "qurey"}),
        [
            "job.toml: groups.parquet does not fit the job:",
            "line 5: source.query: no column is called qurey; did you mean query?",
            "it holds query_id:",
        ],
        id="a misspelled column",
    ),
    pytest.param(
        change(source={"doc_id": "ident"}),
        ["source.doc_id", "no field of documents is called ident", "documents: list<struct<id:"],
        id="a misspelled field",
    ),
    pytest.param(
        change(source={"path": "gruops.parquet"}),
        ["job.toml: line 2: source.path: there is no gruops.parquet", "groups.parquet"],
        id="a file that is not there",
    ),
    pytest.param(
        change(source={"path": "dt=*/x.parquet"}),
        ["source.path", "no Parquet file matches dt=*/x.parquet", "holds other files, such as"],
        id="a glob that matches nothing",
    ),
    pytest.param(
        change(source={"path": "s3a://bucket/x.parquet"}),
        ["source.path", "s3a:// is no store that is known", "write s3://"],
        id="another tool's name of a store",
    ),
    pytest.param(
        change(output={"path": "gs://"}),
        ["output.path", "gs:// names no bucket", "gs://bucket/folder"],
        id="a store without a bucket",
    ),
    pytest.param(
        change(output={"state": "s3://bucket/state"}),
        ["output.state", "is not on this machine", "a ledger needs a local disk"],
        id="a state in a store",
    ),
    pytest.param(
        write("groups.parquet", b"PAR1" + b"\xff" * 50 + b"\x20\0\0\0PAR1"),
        [
            "groups.parquet cannot be opened as Parquet: its footer is damaged",
            "write the file anew",
        ],
        id="a footer of nonsense",
    ),
    pytest.param(
        write("groups.parquet", b"query,documents\n" * 9),
        ["groups.parquet is not a Parquet file", "is something else"],
        id="a CSV file",
    ),
    pytest.param(
        pairs("pairs.csv", b"query_id,query,doc_id,text\na,one,1,x\na,one,2\n"),
        ["job.toml: line 2: source.path:", "pairs.csv: line 3: Expected", "mend that line"],
        id="a line of CSV that is too short",
    ),
    pytest.param(
        pairs("pairs.jsonl", b'{"query_id": "a", "query": "one", "text": "x"}\n{"query_id"\n'),
        ["job.toml: line 2: source.path:", 'pairs.jsonl", at byte', "in line 2:", "complete"],
        id="a line of JSON that was cut off",
    ),
    pytest.param(
        change(provider={"key_file": None, "key_env": UNSET}),
        [
            "job.toml: 1 problem\n  line 9: provider.key_env",
            f"the environment variable {UNSET} is not set",
            f"export {UNSET}=",
        ],
        id="a variable that is not set",
    ),
    pytest.param(
        lambda job: job.write_key("sk-canary", 0o644),
        ["provider.key_file", "is open to others (0644)", "chmod 600"],
        id="a key file that others can read",
    ),
    pytest.param(
        change(provider={"key_file": "nowhere"}),
        [
            "job.toml: 1 problem\n  line 8: provider.key_file",
            "that file cannot be opened: No such file",
            "the path of a file with the key, as seen from /",
        ],
        id="a key file that is not there",
    ),
    pytest.param(
        lambda job: job.write_key(""),
        ["provider.key_file", "the file is empty", "put the key, and nothing else, into"],
        id="an empty key file",
    ),
    pytest.param(
        change(provider={"api_key": "sk-canary"}),
        ["provider.api_key", "a key never stands in a job file", "provider.key_env"],
        id="a key in the job file",
    ),
    pytest.param(
        change(provider={"base_url": "http://rerank.example/v1"}),
        ["provider.base_url", "would send the key unencrypted", "expected https"],
        id="a base_url without encryption",
    ),
    pytest.param(
        change(provider={"model": "own/model"}, budget={"cost_usd_max": 5}),
        ["budget.cost_usd_max", "no price of own/model is known", "state it in [provider.price]"],
        id="a cap without a price",
    ),
    pytest.param(
        change(output={"path": "job.toml"}),
        ["cannot write to", "job.toml: File exists", "name another folder"],
        id="a file where the output should be",
    ),
    pytest.param(
        change(output={"path": "key/out"}),
        ["cannot write to", "Not a directory", "name another folder"],
        id="a file on the way to the output",
    ),
    pytest.param(
        change(output={"path": "/proc/out"}),
        ["cannot write to /proc/out", "name another folder, or change its owner or mode"],
        id="an output where not even root can write",
        marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux"),
    ),
    pytest.param(
        change(output={"state": "/proc/state"}),
        ["cannot write to /proc/state", "name another folder"],
        id="a state folder where nobody can write",
        marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux"),
    ),
    pytest.param(
        change(output={"state": "out"}),
        ["and the state folder", "lie in each other", "set output.state"],
        id="a state folder in the output",
    ),
    pytest.param(
        change(source={"path": "."}, output={"path": "data/out"}),
        ["output.path", "source", "lie in each other", "name a folder elsewhere"],
        id="an output in the source",
    ),
    pytest.param(
        write("job.toml", b"[source\n"),
        ["job.toml: 1 problem", "line 1", "not TOML"],
        id="a job file that is no TOML",
    ),
    pytest.param(
        change(output={"path": "~nobody-of-this-name/out"}),
        ["line 14", "output.path", "nothing can lie at", "home directory", "name another folder"],
        id="a home that nobody has",
    ),
    pytest.param(
        change(output={"state": "x" * 300}),
        ["output.state", "nothing can lie at", "File name too long"],
        id="a name that no disk takes",
    ),
    pytest.param(
        change(provider={"key_file": "~nobody-of-this-name/openrouter"}),
        ["provider.key_file", "/~nobody-of-this-name/openrouter cannot be opened"],
        id="a key in a home that nobody has",
    ),
    pytest.param(
        change(provider={"options": {"title": "nächtlich\nX-Evil: 1"}}),
        ["provider.options.title", "expected letters of ASCII in one line"],
        id="a title that is no header",
    ),
    pytest.param(
        change(limits={"requests": {"count": 1e300, "per_s": 1e-300}}),
        ["limits.requests.count", "expected at most", "limits.requests.per_s", "at least 0.001"],
        id="a limit beyond reason",
    ),
    pytest.param(
        change(budget={"cost_usd_max": 1e300}),
        ["budget.cost_usd_max", "expected at most 1000000000"],
        id="a cap beyond all money",
    ),
    pytest.param(
        change(provider={"price": {"usd_per_search_unit": 1e300, "as_of": date(2026, 11, 20)}}),
        ["provider.price.usd_per_search_unit", "expected at most 1000000"],
        id="a price beyond all money",
    ),
    pytest.param(
        change(source={"path": "dt={dat}/x.parquet"}),
        ["source.path", "no variable is called {dat}", "did you mean date?"],
        id="a variable that nobody declared",
    ),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_mistake_is_told_with_its_remedy(
    job: SmallJob, server: Server, mistake: Callable[[SmallJob], object], words: list[str]
) -> None:
    """
    Where, what, how to mend it; nobody is called and nothing is written.
    """
    mistake(job)
    ran = job.cli("run")

    check_refused(ran, job, server, *words)
    assert "canary" not in ran.err


def test_the_key_and_the_folders_are_looked_at_when_the_file_is_right(
    job: SmallJob, server: Server
) -> None:
    """
    What only the vendor and the disk know of is told together, in the order of lines.
    """
    job.change(provider={"send_top_n": True, "key_file": "nowhere"}, output={"state": "x" * 300})

    check_refused(job.cli("run"), job, server, "2 problems\n  line 10: provider.send_top_n")


@pytest.mark.parametrize("value", [None, True, 5.0j, ["a"], datetime(2026, 1, 1, tzinfo=UTC)])
def test_a_variable_from_python_is_a_text_a_number_or_a_day(job: SmallJob, value: Any) -> None:
    """
    Anything else would become a folder that nobody meant.
    """
    with pytest.raises(JobError, match=r"set date: is a .*, expected text, a number or a day"):
        load(job.file, {"date": value}, with_key=False)


@pytest.mark.parametrize(
    ("value", "folder"), [("5", "5"), (5, "5"), (1.5, "1.5"), (date(2026, 1, 2), "2026-01-02")]
)
def test_a_variable_from_python_is_set_as_it_is_written(
    job: SmallJob, value: Any, folder: str
) -> None:
    """
    As `--set` would have it.
    """
    job.change(output={"path": "{out}"}, variables={"out": "x"})

    assert folder == load(job.file, {"out": value}, with_key=False).output.name


@pytest.mark.parametrize("name", ["plan", "rehearse"])
def test_what_needs_no_key_minds_the_same_mistakes(
    job: SmallJob, server: Server, name: str
) -> None:
    """
    `plan` and `rehearse` are where people find them.
    """
    job.change(provider={"key_file": None, "key_env": UNSET}, source={"query": "qurey"})

    check_refused(job.cli(name), job, server, "no column is called qurey")


def test_all_mistakes_are_told_at_once(job: SmallJob, server: Server) -> None:
    """
    In the order of lines: nobody wants to run a job five times to find five mistakes.
    """
    job.change(
        source={"carry": ["rank"]},
        provider={"timeout": 5},
        limits={"requests_per_minute": "1000"},
        output={"layout": "gruops"},
    )
    ran = job.cli("run", "--set", "market=de")
    told = [line.strip() for line in ran.why.splitlines()]

    check_refused(ran, job, server, "5 problems", "--set market: the job file has no such variable")
    assert ["source.carry", "provider.timeout", "limits.requests_per_minute", "output.layout"] == [
        line.split(": ")[1] for line in told if line.startswith("line ")
    ]
    assert 5 == sum(line.startswith(("line ", "--set")) for line in told)


def test_all_columns_that_are_wrong_are_told_at_once(job: SmallJob, server: Server) -> None:
    """
    As the mistakes of a job file are.
    """
    job.change(source={"query": "qurey", "query_id": "documents", "text": "txt"})

    check_refused(
        job.cli("run"),
        job,
        server,
        "source.query: no column is called qurey",
        "source.query_id: documents is list<struct<id: string, text: string>>, not a string or",
        "source.text: no field of documents is called txt; did you mean text?",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(["--limit", 0], ["--limit", "1"], id="no groups at all"),
        pytest.param(["--limit", "many"], ["--limit"], id="a number in words"),
        pytest.param(["--set", "market"], ["--set", "expected NAME=VALUE"], id="no value"),
        pytest.param(["--set", "dat=1"], ["--set dat", "did you mean date?"], id="no such name"),
        pytest.param(
            ["--accept", "x.parquet"],
            ["--accept x.parquet: the source has no such file", "groups.parquet"],
            id="a file that the source does not have",
        ),
        pytest.param(["--fast"], ["No such option", "--fast"], id="no such option"),
    ],
)
def test_a_command_that_is_wrong_is_refused(
    job: SmallJob, server: Server, options: list[object], words: list[str]
) -> None:
    """
    With exit 2 and the option's name, never as a bug.
    """
    if "--accept" in options:
        job.run(limit=1)
        shutil.rmtree(job.output)
        server.reset()

    check_refused(job.cli("run", *options), job, server, *words)


@pytest.mark.parametrize("arguments", [["rum"], ["run"], ["run", "a.toml", "b.toml"], []])
def test_a_misused_command_line_is_no_bug(arguments: list[str]) -> None:
    """
    Whatever is typed, it is told how the command is used.
    """
    ran = cli(*arguments)

    assert 2 == ran.code
    assert "Usage: batchrank" in ran.err + ran.out
    assert "bug" not in ran.err.replace("70 a bug", "")


def test_a_mistake_is_told_by_the_process_too(job: SmallJob, server: Server) -> None:
    """
    The same words, and the exit code that schedulers see.
    """
    job.change(limits={"concurency_max": 4})

    check_refused(process("run", job.file), job, server, "did you mean concurrency_max?")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere but in /proc")
def test_a_read_only_folder_is_refused(job: SmallJob, server: Server) -> None:
    """
    Told before the first call.
    """
    (job.base / "closed").mkdir(mode=0o555)
    job.change(output={"path": "closed/out"})

    check_refused(job.cli("run"), job, server, "closed/out: Permission denied", "name another")


# --- an output that is not this job's -------------------------------------------------------------


def test_a_ledger_that_is_damaged_is_not_guessed_at(job: SmallJob, server: Server) -> None:
    """
    Exit 4, with what can be done; the parts stay.
    """
    job.run(limit=2)
    server.reset()
    before = [part.read_bytes() for part in job.parts()]
    (job.state / "ledger.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 9000)
    for name in ("run", "status", "verify"):
        ran = job.cli(name)

        assert 4 == ran.code
        assert "ledger" in ran.err
        assert "restore it from a copy, or use --restart" in ran.err
    assert before == [part.read_bytes() for part in job.parts()]
    assert 0 == server.admin()["calls"]
    assert 0 == job.cli("run", "--restart").code


def test_a_ledger_of_another_version_is_refused(job: SmallJob, server: Server) -> None:
    """
    It names both versions.
    """
    job.run(limit=2)
    server.reset()
    with contextlib.closing(sqlite3.connect(job.state / "ledger.sqlite")) as ledger:
        ledger.execute("PRAGMA user_version = 99")
    ran = job.cli("run")

    assert 4 == ran.code
    assert f"has schema 99, this batchrank knows {SCHEMA_VERSION}" in ran.err
    assert 0 == server.admin()["calls"]


def test_a_mistake_is_an_exception_in_python(job: SmallJob, server: Server) -> None:
    """
    With the problems as values, and the hint.
    """
    with pytest.raises(JobError) as mistaken:
        job.change(limits={"concurency_max": 4}).run()
    with pytest.raises(SourceError, match="no column is called qurey") as misread:
        job.change(limits={"concurency_max": None}, source={"query": "qurey"}).run()

    assert [("limits.concurency_max", 12)] == [(p.key, p.line) for p in mistaken.value.problems]
    assert misread.value.hint.startswith("it holds query_id: string")
    assert (Exit.USAGE, Exit.USAGE) == (mistaken.value.exit_code, misread.value.exit_code)
    assert 0 == server.admin()["calls"]


def test_a_folder_with_other_files_is_refused(job: SmallJob, server: Server) -> None:
    """
    Readers would take them for scores; nothing of them is touched.
    """
    job.output.mkdir()
    (job.output / "part-00000.parquet").write_bytes(b"of somebody else")
    ran = job.cli("run")

    assert 2 == ran.code
    assert "holds part-00000.parquet, and this job's state" in ran.err
    assert "name another output.path, or set the old output aside with --restart" in ran.err
    assert b"of somebody else" == (job.output / "part-00000.parquet").read_bytes()
    assert 0 == server.admin()["calls"]


def test_parts_without_their_state_are_not_paid_again(job: SmallJob, server: Server) -> None:
    """
    Whoever deleted the state is told, and finds the parts untouched.
    """
    job.run()
    before = {part: part.read_bytes() for part in job.output.iterdir()}
    shutil.rmtree(job.state)
    server.reset()
    ran = job.cli("run")

    assert 2 == ran.code
    assert "_SUCCESS, part-00000.parquet" in ran.err
    assert "knows nothing of it" in ran.err
    assert before == {part: part.read_bytes() for part in job.output.iterdir()}
    assert 0 == server.admin()["calls"]


def other_source(job: SmallJob) -> None:
    """
    The same groups and one more.
    """
    job.source(groups(5))


CHANGES = [
    pytest.param(
        change(provider={"model": "cohere/rerank-4-pro"}),
        "provider.model was 'cohere/rerank-v3.5', now it is 'cohere/rerank-4-pro'",
        id="the model",
    ),
    pytest.param(
        change(source={"template": "{id}: {text}"}),
        "source.template was None, now it is '{id}: {text}'",
        id="the template",
    ),
    pytest.param(
        change(provider={"options": {"provider": {"order": ["Azure"]}}}),
        "provider.options.provider was None, now it is {'order': ['Azure']}",
        id="who may serve",
    ),
    pytest.param(
        change(source={"doc_id": None}), "source.doc_id was 'id', now it is None", id="the ids"
    ),
    pytest.param(
        other_source,
        "groups.parquet changed: it had ",
        id="the source file",
    ),
    pytest.param(
        lambda job: (
            (job.base / "groups.parquet").rename(job.base / "b.parquet")
            and job.change(source={"path": "b.parquet"})
        ),
        "groups.parquet is missing",
        id="the name of the source file",
    ),
]


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "half done"])
@pytest.mark.parametrize(("mistake", "words"), CHANGES)
def test_another_question_does_not_go_into_an_old_output(
    job: SmallJob,
    server: Server,
    mistake: Callable[[SmallJob], object],
    words: str,
    finished: bool,
) -> None:
    """
    It says what changed, from what to what; the old output stays as it is.
    """
    job.run(limit=None if finished else 2)
    before = {part: part.read_bytes() for part in job.output.iterdir()}
    server.reset()
    mistake(job)
    ran = job.cli("run")

    assert 2 == ran.code
    assert words in ran.err
    assert "--restart" in ran.err
    assert before == {part: part.read_bytes() for part in job.output.iterdir()}
    assert 0 == server.admin()["calls"]


def test_a_changed_question_tells_only_what_mends_it(job: SmallJob) -> None:
    """
    Other row counts cannot be accepted, so that nobody is sent to `--accept`.
    """
    job.run(limit=2)
    other_source(job)
    ran = job.cli("run")

    assert "so that --accept is not possible" in ran.err
    assert "--accept FILE" not in ran.err


def test_what_decides_no_score_changes_freely(job: SmallJob, server: Server) -> None:
    """
    Limits, times, names and the cap.
    """
    job.run(limit=2)
    job.change(
        limits={"concurrency_max": 2, "requests_per_minute": 60_000},
        budget={"cost_usd_max": 1},
        run={"drain_s_max": 1},
        labels={"team": "search"},
        provider={"options": {"title": "another"}},
    )

    assert Exit.DONE == job.run().exit_code
    assert 4 == server.admin()["billed_calls"]


# --- not yet --------------------------------------------------------------------------------------


def temporary(job: SmallJob) -> None:
    """
    Spark is still writing.
    """
    (job.base / "data" / "_temporary" / "0").mkdir(parents=True)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        pytest.param(temporary, "upstream is still writing", id="a _temporary folder"),
        pytest.param(
            change(source={"require_success": True}), "holds no _SUCCESS yet", id="no _SUCCESS"
        ),
        pytest.param(
            change(source={"require_success": True, "path": "dt=2026-11-20"}),
            "dt=2026-11-20 is not there yet",
            id="no folder",
        ),
        pytest.param(
            lambda job: (job.base / "data" / "a.parquet").unlink(),
            "is still empty",
            id="an empty folder",
        ),
    ],
)
def test_what_is_not_ready_is_tried_again_later(
    job: SmallJob, server: Server, state: Callable[[SmallJob], object], words: str
) -> None:
    """
    Exit 75: a scheduler that retries blindly finds it in the end.
    """
    job.change(source={"path": "data"}).source(groups(2), "data/a.parquet")
    state(job)

    check_refused(job.cli("run"), job, server, words, "exit 75", code=75)


def test_what_was_not_ready_runs_when_it_is(job: SmallJob, server: Server) -> None:
    """
    A dated folder that fills, and is marked in the end.
    """
    job.change(source={"path": "dt={date}", "require_success": True})
    assert 75 == job.cli("run", "--set", "date=2026-11-20").code
    job.source(groups(2), "dt=2026-11-20/a.parquet")
    assert 75 == job.cli("run", "--set", "date=2026-11-20").code
    (job.base / "dt=2026-11-20" / "_SUCCESS").touch()

    assert 0 == job.cli("run", "--set", "date=2026-11-20").code
    assert 2 == server.admin()["billed_calls"]


@pytest.mark.parametrize("layout", ["candidates", "groups"])
@pytest.mark.parametrize("rows", [True, False], ids=["a file without rows", "no file"])
def test_a_day_without_groups_succeeds(
    job: SmallJob, server: Server, layout: str, rows: bool
) -> None:
    """
    With one empty part that every reader can read, so that what comes after need not mind.
    """
    job.change(source={"path": "data"}, output={"layout": layout})
    if rows:
        job.source(pa.Table.from_pylist(groups(1)).slice(0, 0), "data/a.parquet")
    else:
        (job.base / "data").mkdir()
        (job.base / "data" / "_SUCCESS").touch()

    assert 0 == job.cli("run").code
    assert ["_SUCCESS", "part-00000.parquet"] == sorted(p.name for p in job.output.iterdir())
    column = "relevance_score" if layout == "candidates" else "results"
    assert 0 == ds.dataset(job.output).count_rows()
    assert column in ds.dataset(job.output).schema.names
    glob = str(job.output / "*.parquet")
    counted = duckdb.execute("SELECT count(query_id) FROM read_parquet(?)", [glob])
    assert [(0,)] == counted.fetchall()
    assert 0 == pl.scan_parquet(job.output).select(column).collect().height
    assert 0 == job.cli("verify").code
    assert 0 == job.cli("run").code
    assert 0 == server.admin()["calls"]


# --- network file systems -------------------------------------------------------------------------

MOUNTS = [
    ("/", "ext4"),
    ("/home", "nfs4"),
    ("/home/me/scratch", "xfs"),
    ("/data", "fuse.s3fs"),
    ("/data2", "fuseblk"),
    ("/mnt", "autofs"),
    ("/mnt", "cifs"),
    ("/srv/bind", "btrfs"),
    ("/srv/bind/share", "9p"),
    ("/stick", "fuse.ntfs-3g"),
    ("/bucket", "fuse"),
    ("/vm", "vboxsf"),
]


@pytest.mark.parametrize(
    ("path", "fstype", "network"),
    [
        pytest.param("/var/state", "ext4", False, id="the root"),
        pytest.param("/home/me/state", "nfs4", True, id="NFS"),
        pytest.param("/home/me/scratch/state", "xfs", False, id="a local mount within NFS"),
        pytest.param("/home/me/scratch2", "nfs4", True, id="a name that only begins alike"),
        pytest.param("/homework", "ext4", False, id="not below a mount of a shorter name"),
        pytest.param("/data/state", "fuse.s3fs", True, id="a bucket"),
        pytest.param("/data2/state", "fuseblk", False, id="a local disk through FUSE"),
        pytest.param("/stick/state", "fuse.ntfs-3g", False, id="a stick"),
        pytest.param("/bucket/state", "fuse", True, id="FUSE without a name"),
        pytest.param("/mnt/x", "cifs", True, id="of two mounts on one point the later"),
        pytest.param("/srv/bind/x", "btrfs", False, id="a bind mount of a local disk"),
        pytest.param("/srv/bind/share/x", "9p", True, id="a share within a bind mount"),
        pytest.param("/vm/x", "vboxsf", True, id="a folder shared with the host"),
    ],
)
def test_a_network_file_system_is_recognised(path: str, fstype: str, network: bool) -> None:
    """
    By the mount that the path lies on, whatever lies around it.
    """
    assert fstype == file_system_of(Path(path), MOUNTS)
    assert network is is_network(fstype)


def test_a_file_system_nobody_knows_is_let_pass() -> None:
    """
    Without a mount table (a container may hide it) nothing can be said.
    """
    assert "" == file_system_of(Path("/state"), [])
    assert not is_network("")


def test_links_are_followed_to_their_file_system(tmp_path: Path) -> None:
    """
    What counts is where the bytes lie.
    """
    (tmp_path / "share").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "share")
    mounts = [("/", "ext4"), (str(tmp_path / "share"), "nfs")]

    assert "nfs" == file_system_of(tmp_path / "link", mounts)


def test_this_machine_says_what_its_folders_lie_on(tmp_path: Path) -> None:
    """
    The real mount table is read.
    """
    assert file_system_of(tmp_path)


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs FUSE")
def test_a_state_folder_on_a_mounted_bucket_is_refused(job: SmallJob, server: Server) -> None:
    """
    A real mount, which only the command's own process sees.
    """
    bucket = job.base / "bucket"
    bucket.mkdir()
    job.change(output={"state": "bucket/state"})
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.fuse_mount", bucket, "run", job.file],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode == CANNOT:
        pytest.skip("mounting is not allowed here")

    ran = Ran(done.returncode, done.stdout, done.stderr)
    words = ["would lie on a network file system (fuse.bucket)", "output.state in the job file"]
    check_refused(ran, job, server, *words)


# --- the empty part's schema ----------------------------------------------------------------------


def test_an_empty_part_has_the_columns_of_a_full_one(job: SmallJob, tmp_path: Path) -> None:
    """
    As far as a file without rows tells them.
    """
    job.run()
    full = pq.read_schema(job.parts()[0])
    (tmp_path / "empty").mkdir()
    empty = SmallJob(tmp_path / "empty").source(pa.Table.from_pylist(groups(1)).slice(0, 0))
    empty.run()

    assert full.names == pq.read_schema(empty.parts()[0]).names
