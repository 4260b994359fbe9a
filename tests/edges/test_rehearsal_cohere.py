"""
The embedded server as Cohere speaks: held against Cohere's specification, and asked by our own
translation for Cohere.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batchrank.rehearsal import hashed_scores
from tests.e2e.small_jobs import SmallJob, expected, groups
from tests.edges.test_vendor_contracts import Contract
from tests.rehearsing import KEY, MODEL, Got, Server, asked, running


def reranked(server: Server, query: str = "what") -> Got:
    """
    What the server says at Cohere's path.
    """
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    return server.send("POST", "/v2/rerank", json.dumps(asked(query)).encode(), headers)


STATUSES = (400, 401, 404, 422, 429, 500, 503, 504)


def test_replies_and_errors_are_as_cohere_specifies_them() -> None:
    """
    With the same scores as at OpenRouter's path, and the statuses that the dials ask for.
    """
    contract = Contract("cohere")
    with running(faults=[f"{status}=meets {status}." for status in STATUSES]) as server:
        good, usual = reranked(server), server.rerank(asked())
        errors = {status: reranked(server, f"meets {status}.") for status in STATUSES}

    assert (200, usual.scores) == (good.status, good.scores)
    for status, got in {200: good, **errors}.items():
        specified = contract.reply(status)
        assert specified is not None
        assert status == got.status
        assert [] == contract.problems(specified, got.json)
    assert "document" not in good.json["results"][0]
    assert all(got.json["message"] for got in errors.values())


@pytest.mark.parametrize("fault", ["html", "garbage", "nan"])
def test_what_is_no_json_goes_out_as_it_is(fault: str) -> None:
    """
    A reply that is spoiled at one path is spoiled at the other.
    """
    with running(faults=[f"{fault}=meets"]) as server:
        spoiled = reranked(server, "meets it").body

    with pytest.raises(ValueError, match=r"."):
        json.loads(spoiled, parse_constant=lambda name: float(f"no number is called {name}"))


def test_a_job_for_cohere_can_be_run_against_it(tmp_path: Path) -> None:
    """
    In Cohere's own words, with search units that it bills.
    """
    rows = groups(7, candidates=4)
    with running(hashed_scores) as server:
        address = f"http://127.0.0.1:{server.port}"
        table = {"name": "cohere", "model": MODEL, "base_url": address}
        job = SmallJob(tmp_path, server.port, provider=table)
        job.change(provider={"splits": None}).source(rows)
        summary = job.run()

    assert (0, 7, 7.0) == (summary.exit_code, summary.calls_now, summary.search_units)
    assert [{**line, "model": MODEL, "provider": "cohere"} for line in expected(rows)] == job.rows()
