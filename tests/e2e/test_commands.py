"""
What each command says and how it leaves, alone and beside a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import duckdb
import jsonschema
import pytest

import batchrank
from batchrank.errors import Exit
from batchrank.operate import serve as serving
from batchrank.operate.init import packaged_schema, schema_text, template
from batchrank.rehearsal import Dials, turned
from batchrank.rehearsal.faults import Fault
from tests.e2e.jobs import Process, running, until
from tests.e2e.small_jobs import (
    KEY,
    MODEL,
    Liar,
    Ran,
    SmallJob,
    cli,
    command,
    expected,
    groups,
    http,
    process,
)
from tests.rehearsing import Server

COMMANDS = (
    *("init", "plan", "run", "status", "verify", "backfill"),
    *("rehearse", "serve", "export", "prune", "providers"),
)


@pytest.fixture
def job(server: Server, tmp_path: Path) -> SmallJob:
    """
    A job that would run.
    """
    return SmallJob(tmp_path, server.port).source(groups(10))


# --- help -----------------------------------------------------------------------------------------


def test_help_names_every_command_and_the_exit_codes() -> None:
    """
    On standard output, with exit 0.
    """
    ran = cli("--help")
    said = " ".join(ran.out.split())

    assert (0, "") == (ran.code, ran.err)
    assert [] == [name for name in (*COMMANDS, "75 stopped early") if name not in said]


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, option: str) -> None:
    """
    It says how it is used.
    """
    ran = cli(name, option)

    assert (0, "") == (ran.code, ran.err)
    assert f"Usage: batchrank {name}" in ran.out


def test_the_version_is_that_of_the_package() -> None:
    """
    From the command and from the module.
    """
    assert f"batchrank {batchrank.__version__}\n" == cli("--version").out
    assert Ran(0, f"batchrank {batchrank.__version__}\n", "") == process("--version")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(shell: str) -> None:
    """
    A script that asks this command.
    """
    ran = process(environ={"_BATCHRANK_COMPLETE": f"source_{shell}"})

    assert (0, "") == (ran.code, ran.err)
    assert "_BATCHRANK_COMPLETE=complete_" in ran.out


# --- init -----------------------------------------------------------------------------------------


def test_init_writes_a_job_that_plan_takes(tmp_path: Path) -> None:
    """
    As it is, once the source is where it says.
    """
    file = tmp_path / "new" / "nightly.toml"
    ran = cli("init", file)
    SmallJob(tmp_path).source(groups(3), "new/data/groups.parquet")
    planned = cli("plan", file, "--json")

    assert 0 == ran.code
    assert f"next: edit it, then `batchrank plan {file}`" in ran.out
    assert ["batchrank.schema.json", "data", "nightly.toml"] == sorted(
        path.name for path in file.parent.iterdir()
    )
    assert (0, "nightly", 3) == (planned.code, planned.json["job"], planned.json["groups"])


def test_init_replaces_nothing_unasked(tmp_path: Path) -> None:
    """
    The remedy is named.
    """
    file = tmp_path / "job.toml"
    file.write_text("mine")
    refused = cli("init", file)

    assert (2, "mine") == (refused.code, file.read_text())
    assert "is there already (name another file, or use --force)" in refused.err
    assert 0 == cli("init", file, "--force").code
    assert template() == file.read_text()


def test_init_says_where_it_cannot_write(tmp_path: Path) -> None:
    """
    A file where a folder should be.
    """
    (tmp_path / "file").touch()
    ran = cli("init", tmp_path / "file" / "job.toml")

    assert 2 == ran.code
    assert "cannot write" in ran.err


def test_the_packaged_schema_is_that_of_the_code() -> None:
    """
    `python -m batchrank.operate.init` brings it up to date.
    """
    assert schema_text() == packaged_schema()


@cache
def checker() -> Any:
    """
    A validator of job files, as editors have one. That the schema is one is looked at once: it
    takes half a second.
    """
    schema = json.loads(packaged_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def uncommented() -> str:
    """
    The template with every setting that it shows, but for those that exclude each other.
    """
    lines = []
    for line in template().splitlines():
        bare = line.removeprefix("# ")
        is_setting = line.startswith("# ") and ("= " in bare.split("#")[0] or bare.startswith("["))
        excluded = ("text =", "yaml =", "key_file", "key_command", "state =", "documents_per")
        lines.append(bare if is_setting and not bare.startswith(excluded) else line)
    return "\n".join(lines)


@pytest.mark.parametrize("whole", [False, True], ids=["as it is", "with all that it shows"])
def test_the_schema_takes_the_template(tmp_path: Path, whole: bool) -> None:
    """
    And so does the command: what an editor lets pass is no mistake.
    """
    import tomllib

    text = uncommented() if whole else template()
    file = tmp_path / "job.toml"
    file.write_text(text)
    read = json.loads(json.dumps(tomllib.loads(text), default=str))
    ran = cli("plan", file)

    assert [] == [error.message for error in checker().iter_errors(read)]
    assert 15 < len(tomllib.loads(text)["source"]) + len(text.splitlines())
    assert "problem" not in ran.err


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"limits": {"concurency_max": 4}}, id="an unknown key"),
        pytest.param({"unknown": {}}, id="an unknown table"),
        pytest.param({"provider": {"name": "opnrouter"}}, id="an unknown provider"),
        pytest.param(
            {"provider": {"name": "openrouter", "options": {"usr": "x"}}}, id="an unknown option"
        ),
        pytest.param({"output": {"path": "x", "layout": "rows"}}, id="an unknown layout"),
        pytest.param({"limits": {"concurrency_max": "8"}}, id="a number as a text"),
    ],
)
def test_the_schema_refuses_what_the_command_refuses(job: SmallJob, change: dict[str, Any]) -> None:
    """
    An editor underlines it before anybody runs it.
    """
    good = {"source": {"path": "x"}, "provider": {"name": "openrouter"}, "output": {"path": "x"}}

    assert [] == list(checker().iter_errors(good))
    assert [] != list(checker().iter_errors({**good, **change}))
    assert 2 == job.change(**change).cli("plan").code


# --- plan -----------------------------------------------------------------------------------------


def test_plan_knows_the_numbers_of_a_source(job: SmallJob, server: Server) -> None:
    """
    Groups, candidates, units and cost; nobody is called and nothing is written.
    """
    rows = [*groups(90, 10), *groups(9, 120), *groups(1, 250)]
    job.source(rows)
    found = job.cli("plan", "--json").json
    text = job.cli("plan").out

    assert (100, 100, 0) == (found["groups"], found["sampled"], found["done"])
    assert {"least": 10, "median": 10, "p95": 120, "most": 250} == found["candidates"]
    assert [100, 100] == found["requests"]
    assert [111, 111] == found["search_units"]
    assert [0.111, 0.111] == found["cost_usd"]
    assert "100 groups" in text
    assert "per group min 10, median 10, p95 120, max 250 (all)" in text
    assert "cost        $0.1110, at $0.001 a search unit" in text
    assert 0 == server.admin()["calls"]
    assert not job.output.exists()
    assert not (job.base / ".batchrank").exists()


def test_plan_counts_what_is_done(job: SmallJob) -> None:
    """
    And estimates the rest.
    """
    job.run(limit=4)
    found = job.cli("plan", "--json").json

    assert (4, [6, 6], [6, 6]) == (found["done"], found["requests"], found["search_units"])


def test_plan_warns_of_what_costs_or_fails(job: SmallJob) -> None:
    """
    Before anything is paid: what will be rejected, billed twice or cannot be told apart.
    """
    first, *others = groups(10)
    odd = [
        {**first, "query_id": "q1001"},
        {**others[0], "query": "  "},
        {**others[1], "documents": []},
        {**others[2], "documents": [{"id": "a", "text": "same"}, {"id": "b", "text": "same"}]},
        {**others[3], "documents": [{"id": "a", "text": None}, {"id": "b", "text": "x" * 3000}]},
        {**others[4], "query_id": None},
        {**others[5], "documents": [{"id": f"{n}", "text": f"text {n}"} for n in range(101)]},
    ]
    job.source(odd).change(provider={"model": "own/model"})
    warnings = "\n".join(job.cli("plan", "--json").json["warnings"])

    for words in (
        "no price of own/model is known",
        "no limit of requests: only the concurrency holds back",
        "1 of 7 groups with more than 100 candidates",
        "1 of 7 groups without candidates",
        "1 of 7 groups with an empty query",
        "1 of 7 groups whose query_id came before",
        "1 of 7 groups rejected without a call: query_id is null",
        "% of documents are longer than about 500 tokens",
        "1 empty document: not sent",
        "1 document stood in the same group before: sent and scored twice",
    ):
        assert words in warnings


def test_plan_tells_how_long_it_takes(job: SmallJob) -> None:
    """
    At the limit that holds.
    """
    job.change(limits={"requests_per_minute": 6})

    assert "held by the limit of 6 requests a minute" in job.cli("plan").out
    assert 10 / (0.98 * 0.1) == pytest.approx(job.cli("plan", "--json").json["seconds"])


# --- status, while it runs and after --------------------------------------------------------------


@contextlib.contextmanager
def under_way(job: SmallJob, server: Server, calls: int) -> Iterator[Process]:
    """
    *job* as a process of its own, when so many calls have come.
    """
    with running(job.file) as process:
        until(lambda: server.admin()["calls"] >= calls, process)
        assert process.is_alive, process.said
        yield process


def test_status_tells_of_a_run_that_is_under_way(job: SmallJob, server: Server) -> None:
    """
    Who runs it and how far it is; a second runner is told, and comes later.
    """
    server.turn(latency="0.05")
    job.source(groups(400)).change(limits={"concurrency_max": 2})
    with under_way(job, server, 20) as runner:
        during = job.cli("status", "--json").json
        text = job.cli("status").out
        second = job.cli("run")
        pruned = job.cli("prune")
        verified = job.cli("verify")
        runner.send(signal.SIGTERM)
        exit_code = runner.exit_code()
    after = job.cli("status", "--json").json

    assert f"process {runner.pid} on" in during["running"]
    assert 1 <= during["done"] <= during["calls"] < 400
    assert (400, False) == (during["groups"], during["success"])
    assert f"running (process {runner.pid}" in text
    assert (75, 75) == (second.code, pruned.code)
    assert f"is being written by process {runner.pid}" in second.err
    assert "one runner an output" in second.err
    assert 1 == verified.code
    assert "BAD every position once" in verified.out
    assert 75 == exit_code
    assert "stopped by SIGTERM" in runner.said
    assert (None, 75, "stopped by SIGTERM") == (
        after["running"],
        after["runs"][-1]["exit_code"],
        after["runs"][-1]["reason"],
    )
    assert after["done"] == runner.summary["done"] == server.admin()["billed_calls"]


def test_status_tells_why_a_run_waits(job: SmallJob, server: Server) -> None:
    """
    While nobody may send; afterwards the word is taken back.
    """
    server.turn(faults=["429@5.."])
    job.change(limits={"concurrency_max": 1})
    with under_way(job, server, 6) as runner:
        until(lambda: "paused   asked to wait 1 s (Retry-After)" in job.cli("status").out, runner)
        assert runner.is_alive, runner.said
        server.turn(faults=[])
        exit_code = runner.exit_code()

    assert 0 == exit_code
    assert "paused" not in job.cli("status").out


@pytest.mark.parametrize("name", ["status", "verify", "prune"])
def test_there_is_nothing_to_tell_of_what_never_began(job: SmallJob, name: str) -> None:
    """
    It says so, and leaves no folder behind.
    """
    ran = job.cli(name)

    assert 2 == ran.code
    assert "ledger" in ran.err
    assert "run" in ran.err
    assert not (job.base / ".batchrank").exists()


# --- every command, and its JSON ------------------------------------------------------------------


def test_every_command_speaks_json(job: SmallJob, server: Server) -> None:
    """
    One line on standard output; the log of a run goes elsewhere.
    """
    said = {
        "plan": job.cli("plan", "--json"),
        "run": process("run", job.file, "--json"),
        "status": job.cli("status", "--json"),
        "verify": job.cli("verify", "--json"),
    }
    pruned = job.cli("prune")

    assert dict.fromkeys(said, 0) == {name: ran.code for name, ran in said.items()}
    assert dict.fromkeys(said, 1) == {name: len(ran.out.splitlines()) for name, ran in said.items()}
    assert (10, 10) == (said["plan"].json["groups"], said["run"].json["ranked"])
    assert (10, True) == (said["status"].json["done"], said["verify"].json["holds"])
    assert ["job.started", "part.published", "job.ended"] == [
        event["event"] for event in said["run"].events
    ]
    assert said["run"].events[-1]["cost_usd"] == said["run"].json["cost_usd"]
    assert (0, "pruned 10 groups") == (pruned.code, pruned.out.partition(":")[0])
    assert 10 == server.admin()["billed_calls"]


def test_a_rehearsal_is_a_process_too(job: SmallJob, server: Server) -> None:
    """
    The whole job without a key, through faults; the real output and server hear nothing of it.
    """
    (job.base / "key").unlink()
    options = ["--latency", "0.01", "--fault", "429@2", "--json"]
    ran = process("rehearse", job.file, *options)

    assert 0 == ran.code
    assert (10, 11) == (ran.json["summary"]["ranked"], ran.json["servers"]["openrouter"]["calls"])
    assert not job.output.exists()
    assert 0 == server.admin()["calls"]


def test_a_rehearsal_does_not_send_anybody_into_the_run(job: SmallJob) -> None:
    """
    The run's next step, taken after a rehearsal, would ask about every group and be billed.
    """
    ran = job.cli("rehearse", "--latency", "0", "--fault", "400@2")

    assert 1 == ran.code
    assert "1 group is rejected where 0 are allowed" in ran.out
    assert "--retry-rejects" not in ran.out
    assert "next     `batchrank run` begins anew" in ran.out.splitlines()[-1]


def priced(model: str, **price: object) -> dict[str, object]:
    """
    A provider with a price of its own.
    """
    return {"model": model, "price": {**price, "as_of": date(2026, 11, 20)}}


def test_a_rehearsal_costs_what_the_job_says(job: SmallJob) -> None:
    """
    As `plan` does: a price in the job file beats what the server knows of the model.
    """
    for provider, usd in (
        (priced(MODEL, usd_per_search_unit=0.5), 5.0),
        (priced("own/model", usd_per_million_tokens=1e6), None),
    ):
        job.change(provider=provider)
        low, high = job.cli("plan", "--json").json["cost_usd"]
        ran = job.cli("rehearse", "--latency", "0", "--json").json
        bills = ran["servers"]["openrouter"]["bill"].values()
        billed = sum(bill["nano_usd"] for bill in bills) / 1e9

        assert ran["summary"]["cost_usd"] == pytest.approx(billed)
        assert 0.8 * low <= billed <= 1.2 * high
        assert usd is None or [usd] * 3 == [low, high, billed]


def test_the_cap_stops_a_rehearsal_as_it_would_the_run(job: SmallJob) -> None:
    """
    At the job's own price.
    """
    job.change(
        provider=priced(MODEL, usd_per_search_unit=0.5),
        budget={"cost_usd_max": 1},
    )
    ran = job.cli("rehearse", "--latency", "0")

    assert 3 == ran.code
    assert "budget.cost_usd_max does not cover another call" in ran.out
    assert "billed 2 ($1.0000)" in ran.out


def test_a_rehearsal_invents_no_price(job: SmallJob) -> None:
    """
    Where `plan` knows no cost, neither does it.
    """
    job.change(provider={"model": "own/model"})
    ran = job.cli("rehearse", "--latency", "0", "--limit", "2")

    assert 0 == ran.code
    assert "billed 2 (no price is known: state it in [provider.price])" in ran.out
    assert "$0.0010" not in ran.out


@pytest.mark.parametrize("name", ["serve", "rehearse"])
def test_wrong_options_of_the_server_are_told_once(
    job: SmallJob, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    All of them together, by the names that were typed, before anything is started.
    """
    monkeypatch.delattr(subprocess, "Popen")
    wrong = ["--fault", "42x", "--latency", "soon"]
    ran = cli(name, *([job.file] if name == "rehearse" else []), *wrong)

    assert (2, "") == (ran.code, ran.out)
    assert 1 == ran.err.count("the embedded server's options: 2 problems")
    assert "--fault: there is no fault '42x' (did you mean 429?)" in ran.err
    assert "--latency: is 'soon', expected a number" in ran.err


def test_every_dial_but_the_keys_is_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    And arrives as it was written; keys have no place on a command line.
    """
    given: dict[str, object] = {
        "seed": 7,
        "latency": "0.1..0.3",
        "limit": "9/s",
        "document_limit": "90/s",
        "retry_after": "date",
        "concurrency_max": 3,
        "faults": ["429:0.5", "drop@3"],
        "slow_body_s": 0.5,
        "price": "0.5/unit",
        "usage": "no-cost",
        "models": "a/b,c/d",
        "credit_usd": 2.5,
        "key_expires_at": "2026-11-20T22:00:00Z",
        "body_bytes_max": 1000,
        "documents_max": 100,
    }
    heard: list[object] = []
    monkeypatch.setattr(serving, "serve", lambda dials, *more, **named: heard.append(dials))

    ran = cli("serve", *serving.options(given))

    assert (0, [given]) == (ran.code, heard)
    assert set(Dials.__dataclass_fields__) == given.keys() | {"keys"}
    assert turned(Dials(), given) == serving.read(given)


def test_serve_is_a_process_until_its_input_ends(tmp_path: Path) -> None:
    """
    It says where it listens; then a job finds it there.
    """
    options = ["--port", 0, "--until-stdin-closes", "--scorer", "hashed", "--fault", "500@1"]
    with subprocess.Popen(
        command("serve", *options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        port = int(said["base_url"].split(":")[2].partition("/")[0])
        job = SmallJob(tmp_path, port).source(groups(3))
        summary = job.run()
        with urlopen(said["admin"], timeout=5) as reply:
            account = json.load(reply)
        process.communicate("")

    assert expected(groups(3)) == job.rows()
    assert (4, 4, 4) == (summary.calls, account["calls"], account["billed_calls"])
    assert 0 == process.returncode


def test_a_port_that_is_taken_is_told(server: Server) -> None:
    """
    As a mistake of the command, not as a bug.
    """
    ran = cli("serve", "--port", server.port)

    assert 2 == ran.code
    assert f"cannot listen on 127.0.0.1 port {server.port}: another program" in ran.err
    assert "choose another port" in ran.err
    assert "Errno" not in ran.err


# --- exit codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        pytest.param([], Exit.DONE, "done", id="done"),
        pytest.param(["400=subject 3"], Exit.REJECTS, "1 group is rejected", id="rejects"),
        pytest.param([Fault.UNAUTHORIZED], Exit.PERSON, "needs a person", id="the key"),
        pytest.param([Fault.NO_CREDIT], Exit.PERSON, "needs a person", id="the credit"),
        pytest.param([Fault.BAD_REQUEST], Exit.PERSON, "groups in a row", id="all are rejected"),
    ],
)
def test_the_exit_code_says_what_to_do(
    job: SmallJob, server: Server, faults: list[str], code: Exit, words: str
) -> None:
    """
    The summary, the status and the process agree.
    """
    server.turn(faults=faults)
    job.source(groups(30))
    ran = job.cli("run")
    again = job.cli("status", "--json").json["runs"][-1]

    assert code == ran.code == ran.events[-1]["exit_code"] == again["exit_code"]
    assert words in ran.out


def test_a_budget_that_is_spent_needs_a_person(job: SmallJob, server: Server) -> None:
    """
    Not a cent more than the cap; with a higher one it goes on.
    """
    job.change(budget={"cost_usd_max": 0.004})
    ran = job.cli("run")

    assert 3 == ran.code
    assert "budget.cost_usd_max does not cover another call" in ran.out
    assert "raise budget.cost_usd_max and run again" in ran.out
    assert "$0.0040 of $0.0040 allowed" in job.cli("status").out
    assert 4 == server.admin()["billed_calls"]
    assert 0 == job.change(budget={"cost_usd_max": 1}).cli("run").code
    assert 10 == server.admin()["billed_calls"]


def test_an_outage_is_tried_again_later(tmp_path: Path) -> None:
    """
    Nobody listens: exit 75, and nothing is rejected.
    """
    with Liar(lambda heard: http({})) as liar:
        port = liar.port
    job = SmallJob(tmp_path, port, run={"outage_s_max": 0.3}, limits={"concurrency_max": 30})
    ran = job.source(groups(30)).cli("run")

    assert 75 == ran.code
    assert "nothing has succeeded for" in ran.out
    assert "None" not in ran.out
    assert (0, 0.0) == (ran.events[-1]["rejected"], ran.events[-1]["cost_usd"])


# --- whoever reads our words ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unbuffered"),
    [
        pytest.param("plan", "", id="plan"),
        pytest.param("run", "", id="run"),
        pytest.param("run", "1", id="run, unbuffered"),
    ],
)
def test_a_reader_that_has_left_changes_nothing(job: SmallJob, name: str, unbuffered: str) -> None:
    """
    `| head` is no error: the job is done, and the exit code says so.
    """
    with subprocess.Popen(
        command(name, job.file),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        code = process.wait(20)

    assert 0 == code
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_logs_on_a_full_disk_stop_no_job(job: SmallJob) -> None:
    """
    Neither standard output nor the log is worth a paid result.
    """
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("run", job.file), stdout=full, stderr=full, timeout=30, check=False
        )

    assert 0 == done.returncode
    assert expected(groups(10)) == job.rows()


@pytest.mark.parametrize("name", ["run", "backfill"])
def test_what_keeps_a_job_from_beginning_is_a_line_of_its_log(job: SmallJob, name: str) -> None:
    """
    Whoever reads in the morning finds when it was, why, and what the scheduler was told.
    """
    job.change(source={"path": "dt={date}", "require_success": True}, output={"top_m": 3})
    days = ["--from", "2026-11-01", "--to", "2026-11-02"] if name == "backfill" else []
    ran = job.cli(name, *days)
    (line,) = ran.events

    assert (2, "") == (ran.code, ran.out)
    assert ("job.refused", "error", 2) == (line["event"], line["level"], line["exit_code"])
    assert "output.top_m: unknown key (did you mean top_n?)" in line["why"]
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_stop_no_job(job: SmallJob, closed: str) -> None:
    """
    Some daemons start what they start without them.
    """
    line = f"exec {shlex.join(command('run', job.file))} {closed}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, timeout=30, check=False)

    assert (0, True) == (done.returncode, b"Traceback" not in done.stdout + done.stderr)
    assert expected(groups(10)) == job.rows()


def test_what_programs_read_is_json_in_every_locale(job: SmallJob) -> None:
    """
    Latin 1 has the first letter and not the second: both come out as UTF-8.
    """
    job.change(output={"path": "Zürich 東京"})
    ran = process("run", job.file, "--json", environ={"PYTHONIOENCODING": "latin-1"})

    assert 0 == ran.code, ran.err
    assert str(job.base / "Zürich 東京") == ran.json["output"] == ran.events[-1]["output"]


def test_help_into_a_pipe_that_closes_is_no_traceback() -> None:
    """
    As with every other command of this machine.
    """
    with subprocess.Popen(
        command("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()

    assert "Traceback" not in said


# --- from Python ----------------------------------------------------------------------------------


def test_it_runs_inside_an_event_loop_that_runs(job: SmallJob) -> None:
    """
    As in a notebook, where the loop is there before the cell.
    """

    async def cell() -> batchrank.Summary:
        return batchrank.run(job.file)

    summary = asyncio.run(cell())

    assert (Exit.DONE, 10) == (summary.exit_code, summary.ranked)
    assert expected(groups(10)) == job.rows()


def test_it_runs_in_a_thread(job: SmallJob) -> None:
    """
    As in a scheduler's task: signals are left to the main thread.
    """
    found: list[batchrank.Summary] = []
    thread = threading.Thread(target=lambda: found.append(batchrank.run(job.file)))
    thread.start()
    thread.join(20)

    assert [Exit.DONE] == [summary.exit_code for summary in found]


def test_a_script_runs_and_joins_its_scores(job: SmallJob) -> None:
    """
    What the documents promise: run, then read the folder.
    """
    script = (
        "import sys, batchrank\n"
        "summary = batchrank.run(sys.argv[1], set={'date': '2026-11-20'})\n"
        "print(summary.exit_code, summary.ranked, summary.output)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, job.file],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    best = duckdb.sql(f"SELECT count(*) FROM read_parquet('{job.output}/*.parquet') WHERE rank = 1")

    assert ("", f"0 10 {job.output}\n") == (done.stderr, done.stdout)
    assert best is not None
    assert [(10,)] == best.fetchall()


def test_a_bug_in_a_listener_stops_no_job(job: SmallJob) -> None:
    """
    It is left out, and the others are told.
    """

    class Broken:
        def report(self, event: object) -> None:
            raise ZeroDivisionError

    assert Exit.DONE == batchrank.run(job.file, listeners=[Broken()]).exit_code


def test_names_that_are_public_are_there() -> None:
    """
    And no others.
    """
    assert {"run", "Summary", "__version__"} == set(batchrank.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        batchrank.rum  # noqa: B018 - the access is what is tested


def test_the_key_may_stand_in_the_environment(
    job: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    In the variable that the job names, or in the vendor's own.
    """
    job.change(provider={"key_file": None})
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    first = job.cli("run")
    job.change(provider={"key_env": "MY_KEY"})

    assert 0 == first.code
    assert MODEL in first.out
    assert 2 == job.cli("run").code
    monkeypatch.delenv("OPENROUTER_API_KEY")
    monkeypatch.setenv("MY_KEY", KEY)
    assert 0 == job.cli("run").code
