"""
What of a group's texts is sent: so much of each document, and equal ones once; told before and
after, and the same whether a run ends or not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchrank.errors import ChangedError
from batchrank.examine.plan import plan
from tests.e2e.small_jobs import Heard, Liar, SmallJob, expected, http

CHARS_MAX = 11
TEXTS = ["\ufeffe\u0301 is long enough", "b", "\ufeffe\u0301 is long, too", None, "b", "c" * 40]
"""The first and the third are the same once they are cut."""

ROWS = [
    {
        "query_id": f"q{n}",
        "query": f"subject {n}",
        "documents": [{"id": f"d{n}-{i}", "text": text} for i, text in enumerate(TEXTS)],
    }
    for n in range(6)
]


def good(heard: Heard) -> bytes:
    """
    An answer that scores.
    """
    return http(heard.reply())


def cut(row: dict[str, Any]) -> dict[str, Any]:
    """
    A row as if its texts had been no longer.
    """
    documents = [{**d, "text": d["text"] and d["text"][:CHARS_MAX]} for d in row["documents"]]
    return {**row, "documents": documents}


def job_of(base: Path, port: int) -> SmallJob:
    """
    A job of these rows that is thrifty.
    """
    source = {"max_chars": CHARS_MAX, "dedupe_documents": True}
    return SmallJob(base, port, source=source).source(ROWS)


def scores(job: SmallJob) -> list[tuple[Any, ...]]:
    """
    Each candidate's score, without its rank.
    """
    return sorted((r["query_id"], r["index"], r["relevance_score"]) for r in job.rows())


def wanted() -> list[tuple[Any, ...]]:
    """
    What asking for every text, as it is cut, would give.
    """
    rows = expected([cut(row) for row in ROWS])
    return sorted((r["query_id"], r["index"], r["relevance_score"]) for r in rows)


def test_equal_texts_are_sent_once_and_scored_each(tmp_path: Path) -> None:
    """
    In two runs: the sum of what was cut is that of one, and a third run changes nothing.
    """
    with Liar(good) as liar:
        job = job_of(tmp_path, liar.port)
        foretold = plan(job.job)
        planned = "\n".join(foretold.warnings)
        first, second, third = job.run(limit=2), job.run(), job.run()

    assert "18 documents are cut to source.max_chars (11)" in planned
    assert 18 == foretold.as_data()["documents_cut"]
    assert "12 documents stood in the same group before: sent and scored once" in planned
    assert [6, 18, 18] == [summary.documents_cut for summary in (first, second, third)]
    assert "18 documents cut" in third.as_text()
    sent = ["\ufeffe\u0301 is long e"[:CHARS_MAX], "b", "c" * CHARS_MAX]
    assert [sent] * 6 == [heard.asked["documents"] for heard in liar.heard]
    assert wanted() == scores(job)


def test_texts_come_together_again_from_halves_of_two_runs(tmp_path: Path) -> None:
    """
    A server that takes one document at a time, and whose key is refused in between.
    """
    refused = {9}

    def answer(heard: Heard) -> bytes:
        if heard.number in refused:
            return http({"error": {"code": 401, "message": "no"}}, 401)
        if len(heard.asked["documents"]) > 1:
            return http({"error": {"code": 413, "message": "too large"}}, 413)
        return good(heard)

    with Liar(answer) as liar:
        job = job_of(tmp_path, liar.port).change(limits={"concurrency": 1})
        stopped = job.run()
        finished = job.run()

    assert (3, 0) == (stopped.exit_code, finished.exit_code)
    alone = [heard.asked for heard in liar.heard if heard.number not in refused]
    paid = [(a["query"], *a["documents"]) for a in alone if len(a["documents"]) == 1]
    assert len(set(paid)) == len(paid) == 6 * 3
    assert wanted() == scores(job)


@pytest.mark.parametrize("setting", [{"max_chars": 12}, {"dedupe_documents": False}])
def test_what_is_sent_is_not_changed_in_mid_run(tmp_path: Path, setting: dict[str, Any]) -> None:
    """
    It decides scores.
    """
    with Liar(good) as liar:
        job = job_of(tmp_path, liar.port)
        job.run(limit=2)
        with pytest.raises(ChangedError, match=rf"source\.{next(iter(setting))}"):
            job.change(source=setting).run()

    assert 2 == len(liar.heard)
