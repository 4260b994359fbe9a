"""
Whole runs against servers that answer as a vendor other than OpenRouter does.

What a vendor's calls and replies look like is for its cases to show; here it is that the key goes
where it should, that the rest of the program works with such a vendor, and what a job file may say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from batchrank.rehearsal import hashed_scores
from tests.e2e.small_jobs import KEY, Heard, Liar, SmallJob, expected, groups, http


def cohere_reply(heard: Heard) -> bytes:
    """
    What Cohere would say.
    """
    scores = hashed_scores(heard.asked["query"], heard.asked["documents"])
    results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
    meta = {"billed_units": {"search_units": 1}}
    return http({"id": f"c-{heard.number}", "results": results[::-1], "meta": meta})


def job_for(base: Path, port: int, name: str, model: str, **provider: Any) -> SmallJob:
    """
    A job that asks the server at *port* as the vendor *name* is asked.
    """
    address = f"http://127.0.0.1:{port}"
    table = {"name": name, "model": model, "base_url": address, **provider}
    return SmallJob(base, port, provider=table)


def lines(rows: list[dict[str, Any]], model: str, provider: str) -> list[dict[str, Any]]:
    """
    What should be in the output.
    """
    return [{**line, "model": model, "provider": provider} for line in expected(rows)]


def test_cohere_is_asked_paid_and_written_down(tmp_path: Path) -> None:
    """
    With its key in its header, its search units at its price, and its name in every row.
    """
    rows = groups(12, candidates=5)
    with Liar(cohere_reply) as server:
        job = job_for(tmp_path, server.port, "cohere", "rerank-v3.5").source(rows)
        summary = job.run()
        again = job.run()

    assert (0, 12, 0) == (summary.exit_code, summary.calls_now, again.calls_now)
    assert lines(rows, "rerank-v3.5", "cohere") == job.rows()
    assert {KEY} == {heard.key for heard in server.heard}
    assert (12.0, 0.024) == (summary.search_units, summary.cost_usd)
    assert {"priced"} == {name for name, cost in summary.cost_usd_by_source.items() if cost}
