"""
A server that is wrong, or lies: every lie that can be seen is found, counted, paid for, and not
written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank import Summary
from batchrank.domain import Failure, FailureKind, RerankReply, RerankRequest, Slice
from batchrank.errors import Exit
from batchrank.providers.base import HttpReply, Settings
from batchrank.providers.openrouter import OPENROUTER, OpenRouterOptions
from batchrank.rehearsal.faults import Fault
from tests.e2e.small_jobs import MODEL, Heard, Liar, SmallJob, expected, groups, http
from tests.rehearsing import Server

COST_USD = 0.001
"""What each call with status 200 costs here, by the bill or by the price."""

Lie = Callable[[Heard], bytes]


# --- lies -----------------------------------------------------------------------------------------


def text(heard: Heard, find: str, put: str) -> bytes:
    """
    A good reply in which a piece of its JSON was exchanged.
    """
    body = json.dumps(heard.reply())
    assert find in body
    return http(body.replace(find, put, 1).encode())


def results(change: Callable[[list[dict[str, Any]]], object]) -> Lie:
    """
    A good reply whose results were changed in place.
    """

    def lie(heard: Heard) -> bytes:
        reply = heard.reply()
        change(reply["results"])
        return http(reply)

    return lie


def first(**changes: Any) -> Lie:
    """
    A good reply whose first result has other fields.
    """
    return results(lambda found: found[0].update(changes))


def swap_indices(found: list[dict[str, Any]]) -> None:
    """
    Exchange two indices; the echoes stay where they were.
    """
    found[0]["index"], found[1]["index"] = found[1]["index"], found[0]["index"]


def nested(depth: int) -> str:
    """
    Many brackets.
    """
    return "[" * depth + "]" * depth


LIES: dict[str, tuple[Lie, str]] = {
    "the echo of another document": (
        first(document={"text": "a document that nobody sent"}),
        "another document than the one sent at index 0",
    ),
    "two indices exchanged": (results(swap_indices), "another document than the one sent"),
    "a result left out": (results(lambda found: found.pop()), "2 results for 3 documents"),
    "no results": (results(lambda found: found.clear()), "0 results for 3 documents"),
    "an index twice": (first(index=1, document=None), "index 1 twice"),
    "an index too high": (first(index=3), "index 3 of 3 documents"),
    "an index below zero": (first(index=-1), "index -1 of 3 documents"),
    "an index of thirty digits": (first(index=10**30), "0 of 3 documents"),
    "an index of five thousand digits": (
        lambda heard: text(heard, '"index": 0', '"index": 1' + "0" * 5000),
        "not JSON",
    ),
    "an index that is a fraction": (first(index=0.5), "Expected `int`, got `float`"),
    "an index that is a text": (first(index="0"), "Expected `int`, got `str`"),
    "the reply to a larger request": (
        results(lambda found: found.append({"index": 3, "relevance_score": 0.1})),
        "index 3 of 3 documents",
    ),
    "NaN": (first(relevance_score=math.nan), "not JSON"),
    "Infinity": (first(relevance_score=-math.inf), "not JSON"),
    "a number that no float holds": (
        lambda heard: text(heard, '"relevance_score": 0', '"relevance_score": 1e999, "x": 0'),
        "not JSON",
    ),
    "a score as a text": (first(relevance_score="0.5"), "Expected `float`, got `str`"),
    "no score": (first(relevance_score=None), "Expected `float`, got `null`"),
    "true for a score": (first(relevance_score=True), "Expected `float`, got `bool`"),
    "a bill nested too deeply": (
        lambda heard: text(heard, '"usage": {', f'"more": {nested(100_000)}, "usage": {{'),
        "not JSON",
    ),
    "an error nested too deeply": (
        lambda heard: http(f'{{"error": {nested(100_000)}}}'.encode()),
        "not JSON",
    ),
    "an error without a word": (lambda heard: http({"error": {}}), "without a readable error"),
    "an error in the place of results": (lambda heard: http({"error": "no"}), "no"),
    "a list": (lambda heard: http([heard.reply()]), "not JSON"),
    "null": (lambda heard: http(None), "not JSON"),
    "nothing": (lambda heard: http(b""), "not JSON"),
    "half of a body": (lambda heard: http(json.dumps(heard.reply()).encode()[:99]), "not JSON"),
    "two bodies": (lambda heard: http(json.dumps(heard.reply()).encode() * 2), "not JSON"),
    "another encoding": (
        lambda heard: http(json.dumps(heard.reply()).encode("utf-16")),
        "not JSON",
    ),
    "half a letter": (lambda heard: http(heard.reply(id="\ud800")), "not a rerank reply"),
    "no model": (lambda heard: http(heard.reply(model=None)), "Expected `str`, got `null`"),
    "a page for people": (
        lambda heard: http(b"<html>Just a moment</html>", headers={"Content-Type": "text/html"}),
        "not JSON",
    ),
    "another success": (lambda heard: http(heard.reply(), 202), "HTTP 202"),
    "more than any reply": (lambda heard: http(b"[" + b" " * 2**25 + b"]"), "is too large"),
    "more than it said": (
        lambda heard: http(b" " * 2**17, headers={"Content-Length": str(2**40)}),
        "is too large",
    ),
    "bytes that explode": (
        lambda heard: http(b"\x1f\x8b" * 9, headers={"Content-Encoding": "gzip"}),
        "is compressed, unasked",
    ),
}
"""What is said, and what our message about it says."""

ODD: dict[str, Lie] = {
    "no echo": results(lambda found: [result.pop("document") for result in found]),
    "null for an echo": first(document=None),
    "results in another order": results(lambda found: found.reverse()),
    "fields that nobody knows": lambda heard: http(heard.reply(object="list", warnings=[1, {}])),
    "no bill": lambda heard: http(heard.reply(usage=None)),
    "a bill that is a text": lambda heard: http(heard.reply(usage="much")),
    "numbers of a bill as texts": lambda heard: http(
        heard.reply(usage={"cost": "0.001", "search_units": "1"})
    ),
    "a bill below zero": lambda heard: http(heard.reply(usage={"cost": -5, "search_units": -1})),
    "more dollars than there are": lambda heard: http(heard.reply(usage={"cost": 1e20})),
    "dollars beyond any float": lambda heard: http(heard.reply(usage={"cost": 1e300})),
    "more tokens than a ledger holds": lambda heard: http(
        heard.reply(usage={"cost": 0.001, "total_tokens": 10**19})
    ),
    "more search units than there are": lambda heard: http(
        heard.reply(usage={"cost": 0.001, "search_units": 1e308})
    ),
    "no id": lambda heard: http(heard.reply(id=None)),
    "an id of a megabyte": lambda heard: http(heard.reply(id="x" * 2**20)),
    "a NUL in the id": lambda heard: http(heard.reply(id="a\0b")),
    "numbers for names": lambda heard: http(heard.reply(id=7, provider=None)),
    "a slug with its variant": lambda heard: http(heard.reply()),
}
"""Odd, and no reason to lose a paid result: the scores are whole."""


@dataclass(frozen=True)
class Told:
    """
    What became of one run against a liar.
    """

    job: SmallJob
    summary: Summary
    billed: int

    def calls_of(self, position: int) -> list[dict[str, Any]]:
        """
        The calls about one group.
        """
        return [call for call in self.job.calls() if call["position"] == position]


def told(base: Path, plays: list[Lie]) -> Told:
    """
    Run a job of one group for each play, which is played as often as the group is asked about.
    """
    rows = groups(len(plays))
    plays_of = {row["query"]: play for row, play in zip(rows, plays, strict=True)}
    with Liar(lambda heard: plays_of[heard.asked["query"]](heard)) as liar:
        job = SmallJob(
            base,
            liar.port,
            output={"rejected_max": len(plays)},
            limits={"concurrency_max": 128},
        )
        summary = job.source(rows).run()
    return Told(job, summary, liar.billed)


LIES_A_RUN = 18
"""Fewer than the twenty rejections in a row that would stop a job."""


@dataclass(frozen=True)
class Liars:
    """
    Some runs in which every second reply is a lie.
    """

    runs: list[Told]

    def of(self, name: str) -> tuple[Told, int]:
        """
        The run in which a lie was told, and the position of the group.
        """
        run, place = divmod(list(LIES).index(name), LIES_A_RUN)
        return self.runs[run], 2 * place


def honest(heard: Heard) -> bytes:
    """
    A good reply.
    """
    return http(heard.reply())


@pytest.fixture(scope="module")
def liars(tmp_path_factory: pytest.TempPathFactory) -> Liars:
    """
    All lies, each repeated.
    """
    lies = [lie for lie, _ in LIES.values()]
    runs = [lies[n : n + LIES_A_RUN] for n in range(0, len(lies), LIES_A_RUN)]
    return Liars(
        [
            told(tmp_path_factory.mktemp("lied"), [play for lie in run for play in (lie, honest)])
            for run in runs
        ]
    )


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """
    A run in which every reply is odd.
    """
    return told(tmp_path_factory.mktemp("odd"), list(ODD.values()))


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_asked_about_once_more_and_rejected(liars: Liars, name: str) -> None:
    """
    What it said is never written; both calls are kept with what was wrong, and are paid for.
    """
    lied, position = liars.of(name)
    words = LIES[name][1]
    calls = lied.calls_of(position)
    rejects = [reject for reject in lied.job.rejects() if reject["position"] == position]

    assert [("bad_reply", 1), ("bad_reply", 2)] == [(c["failure"], c["attempt"]) for c in calls]
    assert [words in call["message"] for call in calls] == [True, True], calls[0]["message"]
    assert [COST_USD] * 2 == [call["cost_usd"] for call in calls]
    assert all(call["reply_bytes"] is not None for call in calls)
    assert [("bad_reply", 2)] == [(reject["kind"], reject["attempts"]) for reject in rejects]
    assert not [row for row in lied.job.rows() if row["query_id"] == f"q{1000 + position}"]


def test_whoever_stands_beside_a_lie_is_scored(liars: Liars) -> None:
    """
    And the account agrees with what the server answered.
    """
    for lied in liars.runs:
        summary, lies = lied.summary, lied.summary.groups // 2

        assert expected(groups(2 * lies)[1::2]) == lied.job.rows()
        assert (Exit.DONE, lies, lies) == (summary.exit_code, summary.ranked, summary.rejected)
        assert {"bad_reply": 2 * lies} == summary.calls_failed
        assert summary.calls == len(lied.job.calls()) == 3 * lies
        assert summary.cost_usd == pytest.approx(summary.calls * COST_USD)
        assert summary.calls - lied.billed in (0, 2)  # one lie is a 202, twice
        assert 0 == lied.job.cli("verify").code


@pytest.mark.parametrize("name", ODD)
def test_an_odd_reply_is_a_reply(odd: Told, name: str) -> None:
    """
    Its scores are paid for and whole; a bill that cannot be is replaced by the price.
    """
    position = list(ODD).index(name)
    row = groups(len(ODD))[position]
    found = [line for line in odd.job.rows() if line["query_id"] == row["query_id"]]
    calls = odd.calls_of(position)

    assert [line["relevance_score"] for line in expected([row])] == [
        line["relevance_score"] for line in found
    ]
    assert [(None, COST_USD)] == [(call["failure"], call["cost_usd"]) for call in calls]


def test_odd_replies_add_up(odd: Told) -> None:
    """
    However absurd a bill is, the account stays a number.
    """
    summary = odd.summary

    assert (Exit.DONE, {}, len(ODD)) == (summary.exit_code, summary.calls_failed, odd.billed)
    assert summary.cost_usd == pytest.approx(len(ODD) * COST_USD)
    assert math.isfinite(summary.search_units)
    assert 1 == sum("do not repeat the documents" in note for note in summary.notes)
    assert 0 == odd.job.cli("verify").code


# --- once, by the embedded server -----------------------------------------------------------------


SEEN = [
    Fault.WRONG_ECHO,
    Fault.LEFT_OUT,
    Fault.DUPLICATE_INDEX,
    Fault.OUT_OF_RANGE,
    Fault.NAN,
    Fault.GARBAGE,
    Fault.HTML,
    Fault.ERROR_IN_200,
    Fault.DROP_BODY,
]


def test_a_lie_told_once_costs_one_more_call(tmp_path: Path, server: Server) -> None:
    """
    Every group has its scores in the end, and every answer of the server is on our account. The
    first call, which goes alone, is answered well: the others are under way at once.
    """
    server.turn(faults=[f"{fault}@{number}" for number, fault in enumerate(SEEN, 2)])
    rows = groups(20)
    job = SmallJob(tmp_path, server.port, limits={"concurrency_max": 20}).source(rows)
    summary = job.run()
    bill = server.admin()

    assert expected(rows) == job.rows()
    assert len(SEEN) == sum(summary.calls_failed.values()) == summary.calls_repeated
    assert bill["billed_calls"] == summary.calls == 20 + len(SEEN)
    assert summary.cost_usd == pytest.approx(
        sum(k["nano_usd"] for k in bill["bill"].values()) / 1e9
    )
    assert 0 == job.cli("verify").code


def test_results_that_are_exchanged_whole_cannot_be_seen(tmp_path: Path, server: Server) -> None:
    """
    Index and echo exchanged together are a reply like any other: this is where proof ends.
    """
    server.turn(faults=["swapped"])
    rows = groups(1, candidates=2)
    job = SmallJob(tmp_path, server.port).source(rows)

    assert 0 == job.cli("run").code
    assert 0 == job.cli("verify").code
    scores = [row["relevance_score"] for row in expected(rows)]
    assert scores == [row["relevance_score"] for row in job.rows()]
    assert [row["index"] for row in expected(rows)] == [row["index"] for row in job.rows()][::-1]


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param({"model": "another-author/another-model"}, id="another model"),
        pytest.param({"model": f"{MODEL}-20260101"}, id="the same model of another day"),
        pytest.param({"model": "Cohere/Rerank-v3.5"}, id="another spelling"),
        pytest.param({"model": f"{MODEL}-mini"}, id="a name that begins alike"),
    ],
)
def test_another_model_in_mid_run_stops_the_job(tmp_path: Path, lie: dict[str, Any]) -> None:
    """
    None of its scores is written, all calls under way come home; with the right model it goes on.
    """
    rows = groups(30)
    right = False

    def answer(heard: Heard) -> bytes:
        wrong = heard.number >= 10 and not right
        return http(heard.reply(**(lie if wrong else {})))

    with Liar(answer) as liar:
        job = SmallJob(tmp_path, liar.port, limits={"concurrency_max": 4}).source(rows)
        half = job.run()
        right = True
        done = job.run()

    assert (Exit.PERSON, False) == (half.exit_code, half.success)
    assert lie["model"] in half.reason
    assert 9 <= half.ranked <= 12
    assert {"fatal": half.calls - half.ranked} == half.calls_failed
    assert {"another_model", "model_changed"} & {call["code"] for call in job.calls()}
    assert (Exit.DONE, 30) == (done.exit_code, done.ranked)
    assert expected(rows) == job.rows()
    assert done.calls == liar.billed == len(liar.heard)
    assert done.cost_usd == pytest.approx(liar.billed * COST_USD)


def test_another_model_in_a_later_run_stops_the_job(tmp_path: Path) -> None:
    """
    The ledger knows who has begun: scores of the same model of another day are not mixed in.
    """
    rows = groups(20)
    model = MODEL

    with Liar(lambda heard: http(heard.reply(model=model))) as liar:
        job = SmallJob(tmp_path, liar.port, limits={"concurrency_max": 4}).source(rows)
        begun = job.run(limit=10)
        kept = job.rows()
        model = f"{MODEL}-20260901"
        later = job.run()

    assert (Exit.DONE, 10) == (begun.exit_code, begun.ranked)
    assert (Exit.PERSON, 10) == (later.exit_code, later.ranked)
    assert f"this job's scores are {MODEL}'s, now {model} answers" in later.reason
    assert "with --restart every group is called again" in later.notes[-1]
    assert expected(rows[:10]) == kept == job.rows()
    assert not job.output.joinpath("_SUCCESS").exists()


def test_the_first_model_of_a_run_is_the_one_asked_for(tmp_path: Path) -> None:
    """
    A server that never had the model is found at its first reply.
    """
    with Liar(lambda heard: http(heard.reply(model="x/y"))) as liar:
        job = SmallJob(tmp_path, liar.port, limits={"concurrency_max": 2}).source(groups(9))
        summary = job.run()

    assert (Exit.PERSON, 0, []) == (summary.exit_code, summary.ranked, job.parts())
    assert summary.calls <= 2
    assert "asked for cohere/rerank-v3.5, served by x/y" in summary.reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    """
    Nobody hears of the key where it leads to; a person is told.
    """
    with Liar(lambda heard: http(heard.reply())) as elsewhere:
        where = {"Location": f"http://127.0.0.1:{elsewhere.port}/api/v1/rerank"}
        with Liar(lambda heard: http({}, status, where)) as liar:
            summary = SmallJob(tmp_path, liar.port).source(groups(3)).run()

    assert (Exit.PERSON, 0) == (summary.exit_code, summary.ranked)
    assert [] == elsewhere.heard
    assert str(status) in summary.reason
    assert 0.0 == summary.cost_usd


def test_an_absurd_retry_after_is_not_obeyed(tmp_path: Path, server: Server) -> None:
    """
    Thirty years, minus five seconds, NaN: as if nothing had been said.
    """
    server.turn(faults=["429@1..6"], retry_after="absurd")
    rows = groups(20)
    job = SmallJob(tmp_path, server.port, limits={"concurrency_max": 20}).source(rows)
    summary = job.run()

    assert (Exit.DONE, {"throttled": 6}) == (summary.exit_code, summary.calls_failed)
    assert expected(rows) == job.rows()
    assert summary.elapsed_s < 20
    assert summary.cost_usd == pytest.approx(20 * COST_USD)


# --- laws -----------------------------------------------------------------------------------------

TEXTS = ("one document", "another one", "the third")
ASKED = RerankRequest(Slice(0, 0, 3), "a query", TEXTS, (0, 1, 2))
PROVIDER = OPENROUTER.make(Settings(MODEL, "https://x.example", None, OpenRouterOptions()))
GOOD = json.dumps(
    Heard(1, {}, {"model": MODEL, "query": "a query", "documents": TEXTS}).reply()
).encode()
SCORES = PROVIDER.read(ASKED, HttpReply(200, {}, GOOD))


@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 40),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"null", b"[]", b"{", b"1e999", b"-0"])),
    st.sampled_from([200, 200, 200, 201, 302, 400, 404, 429, 500, 999]),
)
def test_whatever_becomes_of_a_body_it_is_scores_or_a_failure(
    start: int, length: int, put: bytes, status: int
) -> None:
    """
    Never an exception, and never a score that is not a number or has no document.
    """
    body = GOOD[:start] + put + GOOD[start + length :]
    answer = PROVIDER.read(ASKED, HttpReply(status, {}, body))

    if isinstance(answer, RerankReply):
        assert (200, 3) == (status, len(answer.scores))
        assert all(map(math.isfinite, answer.scores))
    else:
        assert isinstance(answer, Failure)
        assert answer.message
        assert status != 200 or answer.kind in (
            FailureKind.BAD_REPLY,
            FailureKind.FATAL,
            FailureKind.UNKNOWN,
            FailureKind.THROTTLED,
        )


def test_the_body_that_is_changed_is_a_good_one() -> None:
    """
    Else the law above would prove nothing.
    """
    assert isinstance(SCORES, RerankReply)
