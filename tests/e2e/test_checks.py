"""
What is asked for nothing before the first paid call, in whole runs.

What a vendor's answers mean is for its cases to show; here it is what becomes of the job.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import Signals
from threading import Event
from typing import Any

import pytest

from batchrank.engine.asking import TIME_S_MAX
from batchrank.errors import Exit
from batchrank.operate.rehearse import rehearse
from tests.e2e.jobs import PATIENCE_S, started, until
from tests.e2e.small_jobs import (
    KEY,
    MODEL,
    Heard,
    Liar,
    SmallJob,
    everything_in,
    expected,
    groups,
    http,
)
from tests.e2e.test_backfill import dated_job, over
from tests.e2e.test_vendors import job_for, tei_reply
from tests.rehearsing import Server

ROWS = groups(4)


def in_hours(hours: float) -> str:
    """
    That time, as a dial has it.
    """
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


NOS: dict[str, tuple[dict[str, Any], str]] = {
    "another-key": ({"keys": "sk-another"}, "the key is refused (401: Invalid credentials)"),
    "expired": ({"key_expires_at": in_hours(-1)}, "the key is refused (401: API key expired)"),
    "spent": ({"credit_usd": 0}, "the key's credit is spent: $0.00 of $0.00 left"),
    "no-model": ({"models": "a/b,c/d"}, f"{MODEL} is not there; there are a/b, c/d"),
}


@pytest.mark.parametrize("name", NOS)
def test_a_clear_no_stops_the_job_before_it_pays(tmp_path: Path, server: Server, name: str) -> None:
    """
    With 3 and the reason, in words and in the ledger, and without a call. When it is mended the
    same command does the job.
    """
    dials, why = NOS[name]
    server.turn(**dials)
    job = SmallJob(tmp_path, server.port).source(ROWS)
    ran = job.cli("run", "--json")
    seen = server.admin()
    status = job.cli("status", "--json").json
    server.turn(**dict.fromkeys(dials))
    again = job.run()

    assert (Exit.PERSON, 0) == (ran.code, seen["calls"])
    assert f"openrouter says before the first call: {why}" == ran.json["reason"]
    assert any("provider.check = false" in note for note in ran.json["notes"])
    assert ran.json["reason"] in json.dumps(status)
    assert (0, 4, expected(ROWS)) == (again.exit_code, again.calls_now, job.rows())
    assert KEY not in ran.out + ran.err


def test_it_is_asked_once_and_only_if_there_is_something_to_do(
    tmp_path: Path, server: Server
) -> None:
    """
    Three questions beside four calls; a finished job asks nobody and changes no byte.
    """
    job = SmallJob(tmp_path, server.port).source(ROWS)
    summary = job.run()
    before = everything_in(job.output)
    job.run()

    seen = server.admin()
    assert (0, (), 4, 3, 0) == (
        summary.exit_code,
        summary.notes,
        seen["calls"],
        seen["questions"],
        seen["strays"],
    )
    assert before == everything_in(job.output)


def test_a_job_that_does_not_want_it_asks_nothing(tmp_path: Path, server: Server) -> None:
    """
    Then a wrong model costs the first call, and no other.
    """
    server.turn(models="a/b")
    job = SmallJob(tmp_path, server.port, provider={"check": False}).source(groups(30))
    summary = job.run()

    seen = server.admin()
    assert (Exit.PERSON, 0, 1) == (summary.exit_code, seen["questions"], seen["calls"])
    assert "No endpoints found" in summary.reason


def test_what_is_no_clear_no_is_told_and_the_job_is_done(tmp_path: Path, server: Server) -> None:
    """
    A key with little credit and little time, and another price than ours.
    """
    server.turn(price="0.05/mtok", credit_usd=0.0035, key_expires_at=in_hours(2))
    job = SmallJob(tmp_path, server.port).source(ROWS)
    summary = job.run()

    said = "\n".join(summary.notes)
    assert (0, 3) == (summary.exit_code, len(summary.notes))
    assert "the key has $0.0035 left, and what is to be done costs $0.0040 at least" in said
    assert "openrouter: the key expires 20" in said
    assert "listed at $0.05 a million tokens, and the price we reckon with is by search" in said


@pytest.mark.parametrize("status", [403, 404, 500])
def test_who_does_not_answer_such_questions_stops_nobody(tmp_path: Path, status: int) -> None:
    """
    A proxy that passes on reranking alone: it is told, and the night goes on.
    """

    def tells(path: str) -> bytes:
        return http({"error": {"message": "no such thing"}}, 404 if "key" in path else status)

    with Liar(lambda heard: http(heard.reply()), tells) as liar:
        job = SmallJob(tmp_path, liar.port).source(ROWS)
        summary = job.run()

    assert (0, expected(ROWS)) == (summary.exit_code, job.rows())
    [note] = summary.notes
    assert note.startswith("openrouter could not be asked beforehand: GET /key: 404: no such thing")


# --- before the night -----------------------------------------------------------------------------


def test_plan_asks_only_if_it_is_told_to(tmp_path: Path, server: Server) -> None:
    """
    It needs no key then, and calls nobody; with --check it tells what the provider tells.
    """
    server.turn(credit_usd=2.5)
    job = SmallJob(tmp_path, server.port).source(ROWS)
    told = job.cli("plan", "--check")
    (tmp_path / "key").unlink()
    alone, keyless = job.cli("plan"), job.cli("plan", "--check")

    assert (0, 0, 2) == (told.code, alone.code, keyless.code)
    assert "told        the key: $2.50 of $2.50 left" in told.out.splitlines()
    assert "told        served by batchrank-rehearsal" in told.out.splitlines()
    assert "told " not in alone.out
    assert (3, 0) == (server.admin()["questions"], server.admin()["calls"])
    assert not job.state.exists()


def test_plan_knows_what_a_credit_is_enough_for(tmp_path: Path, server: Server) -> None:
    """
    Of tokens, too, which it counts, and a run does not.
    """
    server.turn(credit_usd=0.000001)
    job = SmallJob(tmp_path, server.port).source(ROWS)
    with job.file.open("a") as file:
        file.write("[provider.price]\nusd_per_million_tokens = 1.0\nas_of = 2026-11-20\n")

    ran = job.cli("plan", "--check")
    assert 0 == ran.code
    assert "the key has $0.0000 left, and what is to be done costs $0.00" in ran.out


def test_plan_leaves_with_3_where_the_provider_would_not_do_it(
    tmp_path: Path, server: Server
) -> None:
    """
    In time to mend it before the night.
    """
    server.turn(models="a/b")
    job = SmallJob(tmp_path, server.port).source(ROWS)
    ran, data = job.cli("plan", "--check"), job.cli("plan", "--check", "--json").json

    why = f"openrouter says before the first call: {MODEL} is not there; there is a/b"
    assert Exit.PERSON == ran.code
    assert f"refused     {why}" in ran.out.splitlines()
    assert why == data["refused"]


def test_who_tells_nothing_is_said_to(tmp_path: Path) -> None:
    """
    And is not asked.
    """
    with Liar(lambda heard: http(heard.reply())) as liar:
        job = job_for(tmp_path, liar.port, "compatible", "bge").source(ROWS)
        ran = job.cli("plan", "--check")

    assert (0, []) == (ran.code, liar.questions)
    assert "told        compatible tells nothing beforehand: the first call goes alone" in ran.out


def test_all_days_of_a_backfill_ask_once(tmp_path: Path, server: Server) -> None:
    """
    What is known of key and model on one day is so on the next.
    """
    job = dated_job(tmp_path, server.port, 3)
    ran = job.cli("backfill", "--json", *over(3))

    assert (0, 3, 18) == (ran.code, server.admin()["questions"], server.admin()["calls"])


def test_a_rehearsal_asks_its_own_server_alone(tmp_path: Path) -> None:
    """
    The vendor that it stands for is not asked, and its model is whatever the job names.
    """
    with Liar(lambda heard: http(heard.reply())) as liar:
        job = job_for(tmp_path, liar.port, "vllm", "bge").source(ROWS)
        ran = job.cli("rehearse", "--json")
        refused = rehearse(job.job, {"credit_usd": "0"}).summary

    assert (0, [], []) == (ran.code, liar.questions, liar.heard)
    assert (Exit.PERSON, 0) == (refused.exit_code, refused.calls)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_does_not_wait_for_an_answer(tmp_path: Path, name: str) -> None:
    """
    Nobody has been paid: the run leaves at once, with 75.
    """
    hung = Event()

    def hangs(_path: str) -> bytes:
        hung.wait(PATIENCE_S)
        return http({})

    with Liar(lambda heard: http(heard.reply()), hangs) as liar:
        job = SmallJob(tmp_path, liar.port).source(ROWS)
        with started(tmp_path, "run", str(job.file), "--json") as process:
            until(lambda: liar.questions, process)
            process.send(Signals[name])
            code = process.exit_code(TIME_S_MAX / 2)
        hung.set()

    assert (Exit.LATER, []) == (code, liar.heard)
    assert f"stopped by {name}" == process.summary["reason"]


# --- servers of one's own -------------------------------------------------------------------------


def tei(model: str, documents: int) -> Any:
    """
    What TEI tells of itself at /info.
    """
    told = {
        "model_id": model,
        "served_model_name": model,
        "model_type": {"reranker": {"id2label": {"0": "L"}, "label2id": {"L": 0}}},
        "max_client_batch_size": documents,
        "max_input_length": 512,
        "auto_truncate": True,
    }
    return lambda path: http(told if path == "/info" else {}, 200 if path == "/info" else 404)


@pytest.mark.parametrize(
    ("told", "wished", "sent"),
    [(16, None, [12, 13, 13]), (32, 20, [19, 19]), (10, 20, [9, 9, 10, 10])],
)
def test_a_server_says_how_many_documents_it_takes(
    tmp_path: Path, told: int, wished: int | None, sent: list[int]
) -> None:
    """
    What TEI was started with goes before its default, unless the job wishes for less.
    """
    rows = groups(1, candidates=38)
    with Liar(tei_reply, tei("BAAI/bge-reranker-base", told)) as liar:
        more = {"documents_max": wished} if wished else {}
        job = job_for(tmp_path, liar.port, "tei", "bge-reranker-base", key_file=None, **more)
        summary = job.source(rows).run()

    assert (0, len(sent)) == (summary.exit_code, summary.calls)
    assert sent == sorted(len(heard.asked["texts"]) for heard in liar.heard)


def test_another_model_is_loaded(tmp_path: Path) -> None:
    """
    TEI's replies name no model: nobody would ever have seen it.
    """
    with Liar(tei_reply, tei("BAAI/bge-reranker-large", 32)) as liar:
        job = job_for(tmp_path, liar.port, "tei", "bge-reranker-base", key_file=None).source(ROWS)
        summary = job.run()

    assert (Exit.PERSON, []) == (summary.exit_code, liar.heard)
    assert summary.reason.endswith(
        "bge-reranker-base is not there; there is BAAI/bge-reranker-large"
    )


def test_the_key_goes_along_and_the_headers_of_the_job(tmp_path: Path) -> None:
    """
    As with every call.
    """

    def reply(heard: Heard) -> bytes:
        return http(heard.reply())

    def lists(_path: str) -> bytes:
        return http({"data": [{"id": "bge"}]})

    with Liar(reply, lists) as liar:
        options = {"headers": {"X-Team": "search"}}
        job = job_for(tmp_path, liar.port, "vllm", "bge", options=options).source(ROWS)
        summary = job.run()

    [(path, headers)] = liar.questions
    assert (0, "/v1/models") == (summary.exit_code, path)
    assert (f"Bearer {KEY}", "search") == (headers["authorization"], headers["x-team"])
