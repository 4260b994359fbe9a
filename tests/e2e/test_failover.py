"""
Jobs with several ways to one model: real servers, kills, and what a job file may not say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from batchrank.errors import JobError
from batchrank.events import ReplyRead
from batchrank.job import load
from batchrank.rehearsal import hashed_scores
from tests.e2e.jobs import BILLED, Book, Watched, bytes_of, embedded, faults_of, folder_of
from tests.e2e.killing import killed
from tests.e2e.small_jobs import KEY, PROVIDER, Heard, Liar, SmallJob, groups, http

GROUPS, CONCURRENCY = 300, 6
FIRST_ENDS = 100
"""So many calls the first server answers before its account has no credit."""


COHERE = {"name": "cohere", "model": "rerank-v3.5", "key_file": "key"}
OPENROUTER = {"name": "openrouter", "model": "cohere/rerank-v3.5", "key_file": "key"}


def two_ways(base: Path, first: Watched, second: Watched, **provider: Any) -> SmallJob:
    """
    A job that may go by either server.
    """
    limits = {"unlimited": True, "concurrency_max": CONCURRENCY}
    other = {
        "name": "openrouter",
        "route": "other",
        "model": "cohere/rerank-v3.5",
        "base_url": second.base_url,
        "key_file": "key",
        "limits": limits,
    }
    job = SmallJob(base, first.port, provider={"fallbacks": [other], **provider}, limits=limits)
    return job.source(groups(GROUPS))


@pytest.mark.campaign
def test_a_run_that_is_killed_on_either_way_loses_nothing(tmp_path: Path) -> None:
    """
    Killed while the first way serves, and again when the other one does: nobody who has scores is
    asked again, both are counted, and parts come from the ledger alone.
    """
    faults = ("--fault", f"402@{FIRST_ENDS + 1}..")
    with (
        embedded("--latency", "0.01", *faults) as first,
        embedded("--latency", "0.01") as second,
    ):
        job = two_ways(tmp_path, first, second)
        assert -SIGKILL == killed(job.file, ReplyRead.name, 40)
        before = second.settled().arrived
        assert -SIGKILL == killed(job.file, ReplyRead.name, 150)
        lost = first.settled().billed + second.settled().billed - Book.of(job.file).count(BILLED)
        summary = job.run()
        seen = {"openrouter": first.settled(), "other": second.settled()}
    book = Book.of(job.file)
    whole = bytes_of(job.file)

    assert 0 == before
    assert 0 <= lost <= 4 * CONCURRENCY
    assert 0 == summary.exit_code
    assert (GROUPS, 0) == (len(book.ranked), book.twice)
    assert GROUPS + lost == sum(account.billed for account in seen.values())
    assert [] == faults_of(job.file)
    routes = {name: share.groups for name, share in summary.routes.items()}
    assert GROUPS == sum(routes.values())
    assert all(routes[name] <= account.billed for name, account in seen.items())
    assert {"openrouter", "other"} == {call["route"] for call in job.calls()}

    (folder_of(job.file) / "part-00000.parquet").unlink()
    assert 0 == job.run().calls_now
    assert whole == bytes_of(job.file)


def test_both_ways_are_told_of_everywhere(tmp_path: Path) -> None:
    """
    The plan, the summary for people and for programs, the status, and the log.
    """
    with embedded("--fault", "401") as first, embedded() as second:
        job = two_ways(tmp_path, first, second)
        planned = job.cli("plan")
        ran = job.cli("run", "--json")
        told = job.cli("run").out
    status = job.cli("status")

    assert "routes      openrouter, other (the highest cost" in planned.out
    assert 0 == ran.code
    assert {"openrouter", "other"} == ran.json["routes"].keys()
    assert GROUPS == ran.json["routes"]["other"]["groups"]
    assert f"route    other: {GROUPS} calls, {GROUPS} groups, $0.3000" in told
    assert f"route    other: {GROUPS} calls" in status.out
    notices = [e["message"] for e in ran.events if e["event"] == "job.noticed"]
    assert any(n.startswith("openrouter is given up for this run: 401") for n in notices)


def test_a_way_may_be_added_to_a_begun_output(tmp_path: Path) -> None:
    """
    The same model by another way is the same score; how ways are taken decides none either.
    """
    with embedded() as first, embedded() as second:
        job = two_ways(tmp_path, first, second, fallbacks=[])
        assert 10 == job.run(limit=10).done_now
        two_ways(tmp_path, first, second, strategy="spread")
        summary = job.run()

    assert 0 == summary.exit_code
    assert GROUPS - 10 == summary.done_now
    assert 0 < summary.routes["other"].groups < GROUPS


def test_spread_asks_both(tmp_path: Path) -> None:
    """
    Within the limits of each.
    """
    with embedded("--latency", "0.02") as first, embedded("--latency", "0.02") as second:
        job = two_ways(tmp_path, first, second, strategy="spread")
        assert 0 == job.run().exit_code
        seen = first.settled().billed, second.settled().billed

    assert GROUPS == sum(seen)
    assert min(seen) > GROUPS / 5


def test_a_rehearsal_has_a_server_for_every_way_and_calls_nobody_else(tmp_path: Path) -> None:
    """
    Each with its way's limits and price; their bills are ours.
    """
    with embedded() as first, embedded() as second:
        job = two_ways(tmp_path, first, second, strategy="spread")
        ran = job.cli("rehearse", "--latency", "0", "--json")
        arrived = first.settled().arrived + second.settled().arrived

    assert (0, 0) == (ran.code, arrived)
    assert ["openrouter", "other"] == sorted(ran.json["servers"])
    for name, share in ran.json["summary"]["routes"].items():
        seen = ran.json["servers"][name]
        owed = sum(account["nano_usd"] for account in seen["bill"].values())
        assert share["calls"] == seen["calls"] > GROUPS / 5
        assert share["cost_usd"] == pytest.approx(owed / 1e9)


@pytest.mark.parametrize(
    ("other", "usd"),
    [
        pytest.param({**OPENROUTER, "base_url": "http://127.0.0.1:9/v1"}, 0.001, id="alike"),
        pytest.param(COHERE, 0.002, id="of another vendor"),
    ],
)
def test_a_rehearsal_shows_how_the_next_way_takes_over(
    tmp_path: Path, other: dict[str, Any], usd: float
) -> None:
    """
    Faults are the first way's; the other one has its own vendor's price.
    """
    limits = {"unlimited": True}
    fallback = {**other, "route": "other", "limits": limits}
    job = SmallJob(tmp_path, 9, provider={"fallbacks": [fallback]}, limits=limits)
    job.source(groups(GROUPS))
    ran = job.cli("rehearse", "--latency", "0", "--fault", f"402@{FIRST_ENDS + 1}..", "--json")
    routes, servers = ran.json["summary"]["routes"], ran.json["servers"]

    assert 0 == ran.code
    assert {"openrouter": FIRST_ENDS, "other": GROUPS - FIRST_ENDS} == {
        name: route["groups"] for name, route in routes.items()
    }
    assert GROUPS - FIRST_ENDS == servers["other"]["calls"]
    assert routes["other"]["cost_usd"] == pytest.approx(usd * (GROUPS - FIRST_ENDS))


FREE = {"name": "tei", "model": "own", "key_file": None}


@pytest.mark.parametrize(
    ("first", "second", "usd"),
    [
        pytest.param(FREE, {"same_model": True}, "$0.00 to $0.02", id="the first one is free"),
        pytest.param({}, {"documents_max": 1}, "$0.02 to $0.06", id="the second one cuts smaller"),
        pytest.param(
            {"documents_max": 2}, {"documents_max": 1}, "$0.04 to $0.06", id="both of them cut"
        ),
    ],
)
def test_what_the_dearest_way_may_cost_is_planned_and_asked_about(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], usd: str
) -> None:
    """
    Twenty groups of three, at a tenth of a cent a call; nobody has to be there for it.
    """
    fallbacks = [{**OPENROUTER, "base_url": "http://127.0.0.1:1/other", **second}]
    job = SmallJob(tmp_path, 1, provider={**first, "fallbacks": fallbacks})
    job.change(budget={"confirm_usd": 0.01}, run={"outage_s_max": 1}).source(groups(20))
    planned = job.cli("plan")
    refused = job.cli("run")

    low, _, high = usd.partition(" to ")
    assert f"cost        {low}00 to {high}00" in planned.out
    assert 3 == refused.code
    assert f"what is left may cost {usd} (20 of 20 groups looked at)" in refused.err


def test_a_cap_holds_for_a_way_beside_a_scorer_in_process(tmp_path: Path) -> None:
    """
    What is scored here costs nothing, and what helps it does.
    """
    with embedded() as server:
        other = {**OPENROUTER, "base_url": server.base_url}
        ways = {"strategy": "spread", "allow_other_models": True, "fallbacks": [other]}
        job = SmallJob(tmp_path, provider=ways, budget={"cost_usd_max": 0.01})
        job.write_key(KEY)
        planned = job.source(groups(GROUPS)).cli("plan")
        ran = job.cli("run", "--json")
        billed = server.settled().billed

    assert "cost        $0.0000 to $0.3000" in planned.out
    assert "budget.cost_usd_max ($0.0100) may not be enough" in planned.out
    assert 3 == ran.code
    assert "budget.cost_usd_max does not cover another call" in ran.json["reason"]
    assert 10 == billed


def cohere_reply(heard: Heard) -> bytes:
    """
    What Cohere answers: it names no model.
    """
    scores = enumerate(hashed_scores(heard.asked["query"], heard.asked["documents"]))
    results = [{"index": n, "relevance_score": s} for n, s in scores]
    return http({"id": "x", "results": results})


def test_each_row_names_who_scored_it_and_is_reused_whoever_that_was(tmp_path: Path) -> None:
    """
    One model by two vendors' names: the next night takes the scores of both.
    """
    with embedded("--fault", "401@11..") as first, Liar(cohere_reply) as second:
        other = {**COHERE, "base_url": f"http://127.0.0.1:{second.port}"}
        limits = {"unlimited": True, "concurrency": 1}
        job = SmallJob(tmp_path, first.port, provider={"fallbacks": [other]}, limits=limits)
        summary = job.source(groups(25)).run()
        rows = job.rows()
        job.change(output={"path": "again", "reuse": ["out"]})
        again = job.run()

    assert (0, 0) == (summary.exit_code, again.exit_code)
    assert [(OPENROUTER["model"], PROVIDER)] * 30 + [(COHERE["model"], "cohere")] * 45 == [
        (row["model"], row["provider"]) for row in rows
    ]
    assert (COHERE["model"], OPENROUTER["model"]) == tuple(sorted(summary.models, reverse=True))
    assert (25, 0) == (again.reused, again.calls_now)


# --- what a job file may not say ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "fallback", "where", "told"),
    [
        pytest.param(
            {}, {**COHERE, "model": "rerank-v4.0-pro"}, "model",
            "is not known to be cohere/rerank-v3.5 of openrouter (there it is called rerank-v3.5)",
            id="another model"),
        pytest.param(
            {}, {"name": "tei", "model": "bge", "base_url": "http://127.0.0.1"}, "model",
            "state same_model = true", id="a model that nobody knows"),
        pytest.param(
            {}, {"name": "cohere", "key_file": "key"}, "model",
            "is missing (such as rerank-v3.5)", id="no model, and its name is known"),
        pytest.param(
            {}, OPENROUTER, "name", "is a way that is there already", id="the same way twice"),
        pytest.param(
            {}, {**OPENROUTER, "key_file": "gone"}, "key_file",
            "the path of a file with the key", id="a key that is not there"),
        pytest.param(
            {"route": "one"}, {**COHERE, "route": "one"}, "route",
            "is what another way is called already", id="a name twice"),
        pytest.param(
            {}, {**COHERE, "splits": False}, "splits", "is not true, as it is of openrouter",
            id="other slices"),
        pytest.param(
            {"allow_other_models": True}, {**COHERE, "model": "another", "splits": False}, "splits",
            "it would be asked about pieces", id="pieces of groups for who needs them whole"),
        pytest.param(
            {}, {**COHERE, "options": {"max_tokens_per_doc": 512}}, "options",
            "max_tokens_per_doc decides scores", id="a parameter on one way only"),
        pytest.param(
            {"allow_other_models": True},
            {"name": "tei", "model": "cohere/rerank-v3.5", "base_url": "http://127.0.0.1"},
            "model", "state same_model = true", id="two models of one name"),
        pytest.param(
            {}, {**COHERE, "base_url": "http://cohere.example"}, "base_url",
            "would send the key unencrypted", id="a key without encryption"),
        pytest.param(
            {}, {"name": "tei", "model": "bge", "same_model": True}, "base_url",
            "say where your server is", id="no address"),
        pytest.param({}, {**COHERE, "nmae": "x"}, "nmae", "did you mean name?", id="a slip"),
        pytest.param(
            {}, {**COHERE, "key_env": "KEY"}, "", "key_env and key_file exclude each other",
            id="two keys"),
        pytest.param(
            {}, {**COHERE, "key_env": "sk-canary-1", "key_file": None}, "key_env",
            "not the key itself", id="a key"),
        pytest.param(
            {}, {**COHERE, "api_key": "sk-canary-2"}, "api_key",
            "a key never stands in a job file", id="a key under another name"),
        pytest.param(
            {}, {**COHERE, "limits": {"requests_per_minute": 5, "unlimited": True}}, "limits",
            "exclude each other", id="two limits"),
        pytest.param(
            {}, {**COHERE, "limits": {"concurrency": 9, "concurrency_max": 3}},
            "limits.concurrency", "concurrency_max allows 3", id="too many at once"),
        pytest.param(
            {}, {**COHERE, "options": {"priorty": 3}}, "options.priorty", "did you mean priority?",
            id="a slip in an option"),
        pytest.param(
            {}, {"name": "coherre"}, "name", "did you mean cohere?", id="nobody of that name"),
        pytest.param(
            {}, {**COHERE, "price": {"as_of": "2026-11-20"}}, "price", "usd_per_search_unit",
            id="a price without one"),
    ],
)  # fmt: skip
def test_ways_that_do_not_go_together_are_refused(
    tmp_path: Path, first: dict[str, Any], fallback: Mapping[str, Any], where: str, told: str
) -> None:
    """
    Before anything is paid, with line, key and remedy; and no key is repeated.
    """
    held = {key: value for key, value in fallback.items() if value is not None}
    job = SmallJob(tmp_path, provider={**OPENROUTER, **first, "fallbacks": [held]})
    job.write_key(KEY)

    with pytest.raises(JobError) as refused:
        load(job.file)

    key = ".".join(filter(None, ("provider.fallbacks[0]", where)))
    found = [problem for problem in refused.value.problems if problem.key == key]
    assert found, refused.value
    assert any(told in f"{one.message} ({one.remedy})" for one in found), refused.value
    assert all(problem.line for problem in found)
    assert "sk-canary" not in str(refused.value)


@pytest.mark.parametrize(
    "fallback",
    [
        pytest.param(COHERE, id="whose name for it is known"),
        pytest.param({**OPENROUTER, "key_file": "other"}, id="with another key"),
        pytest.param(
            {"name": "tei", "model": "x", "base_url": "http://127.0.0.1", "same_model": True},
            id="that the person states",
        ),
    ],
)
def test_ways_to_the_same_model_are_taken(tmp_path: Path, fallback: dict[str, Any]) -> None:
    """
    And none of them decides a score: the fingerprint is that of the first way alone.
    """
    job = SmallJob(tmp_path, provider=OPENROUTER)
    alone = load(job.file, with_key=False).score_settings()
    job.change(provider={"fallbacks": [fallback], "strategy": "spread"})

    assert alone == load(job.file, with_key=False).score_settings()


def test_another_model_is_a_score_setting(tmp_path: Path) -> None:
    """
    Who lets one in gets scores that are not comparable, and an output that says so.
    """
    job = SmallJob(tmp_path, provider={**OPENROUTER, "allow_other_models": True})
    alone = load(job.file, with_key=False).score_settings()
    job.change(provider={"fallbacks": [{**COHERE, "model": "rerank-v4.0-fast"}]})

    loaded = load(job.file, with_key=False).score_settings()
    assert {**alone, "provider.other_models": ["rerank-v4.0-fast"]} == loaded


def test_tables_of_ways_stand_where_toml_puts_them(tmp_path: Path) -> None:
    """
    As an array of tables with tables of their own, too; lines are those of the right way.
    """
    job = SmallJob(tmp_path, provider=OPENROUTER)
    job.write_key(KEY)
    ways = [COHERE, {**COHERE, "base_url": "https://other.example"}]
    before = len(job.file.read_text().splitlines())
    with job.file.open("a") as file:
        for way in ways:
            file.write("[[provider.fallbacks]]\n")
            file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in way.items())
            file.write("[provider.fallbacks.limits]\nrequests_per_minute = 0\n")

    with pytest.raises(JobError) as refused:
        load(job.file)

    lines = [(problem.key, problem.line - before) for problem in refused.value.problems]
    assert [
        ("provider.fallbacks[0].limits.requests_per_minute", 6),
        ("provider.fallbacks[1].limits.requests_per_minute", 13),
    ] == lines
