"""
Whole runs against servers that answer as a vendor other than OpenRouter does.

What a vendor's calls and replies look like is for its cases to show; here it is that the key goes
where it should, that the rest of the program works with such a vendor, and what a job file may say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchrank.errors import JobError
from batchrank.job.loading import load
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


def tei_reply(heard: Heard) -> bytes:
    """
    What TEI would say, for at most 32 texts.
    """
    texts = heard.asked["texts"]
    if len(texts) > 32:
        error = "batch size 33 > maximum allowed batch size 32"
        return http({"error": error, "error_type": "Validation"}, 422)
    scores = enumerate(hashed_scores(heard.asked["query"], texts))
    return http([{"index": index, "score": score} for index, score in scores])


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


def test_a_server_of_ones_own_needs_no_key_and_gets_what_it_takes(tmp_path: Path) -> None:
    """
    TEI: no key in any header, at most 32 texts a request, no cost, the same scores as in one piece.
    """
    rows = groups(2, candidates=70)
    with Liar(tei_reply) as server:
        job = job_for(tmp_path, server.port, "tei", "bge", key_file=None).source(rows)
        job.change(budget={"cost_usd_max": 1})
        planned = job.cli("plan", "--json").json
        summary = job.run()

    assert (0, 6, 0.0) == (summary.exit_code, summary.calls_now, summary.cost_usd)
    assert [6, 6] == list(planned["requests"])
    assert lines(rows, "bge", "tei") == job.rows()
    assert {""} == {heard.key for heard in server.heard}
    assert [23, 23, 23, 23, 24, 24] == sorted(len(heard.asked["texts"]) for heard in server.heard)


def test_a_server_of_ones_own_may_have_a_key(tmp_path: Path) -> None:
    """
    A job that names one sends it; what is too large for the server all the same is split.
    """
    rows = groups(1, candidates=40)
    with Liar(tei_reply) as server:
        job = job_for(tmp_path, server.port, "tei", "bge", documents_max=40).source(rows)
        summary = job.run()

    assert (0, 3) == (summary.exit_code, summary.calls_now)
    assert lines(rows, "bge", "tei") == job.rows()
    assert {KEY} == {heard.key for heard in server.heard}


def test_a_key_goes_into_the_header_that_a_vendor_or_a_job_names(tmp_path: Path) -> None:
    """
    Pinecone has one of its own; Azure takes either.
    """

    def reply(heard: Heard) -> bytes:
        documents = heard.asked["documents"]
        texts = [d if isinstance(d, str) else d["text"] for d in documents]
        scores = enumerate(hashed_scores(heard.asked["query"], texts))
        results = [{"index": n, "score": s, "relevance_score": s} for n, s in scores]
        return http({"data": results, "results": results})

    asked: tuple[tuple[str, dict[str, str], tuple[str, str]], ...] = (
        ("pinecone", {"api_version": "2025-10"}, ("api-key", KEY)),
        ("azure", {}, ("authorization", f"Bearer {KEY}")),
        ("azure", {"key_header": "api-key"}, ("api-key", KEY)),
    )
    for n, (name, options, (header, value)) in enumerate(asked):
        folder = tmp_path / str(n)
        folder.mkdir()
        with Liar(reply) as server:
            job = job_for(folder, server.port, name, "m", options=options).source(groups(1))

            assert 0 == job.run().exit_code
        (heard,) = server.heard
        assert value == heard.headers[header]
        assert 1 == sum(KEY in text for text in heard.headers.values())


def test_pairs_that_may_depend_on_each_other_are_not_cut_apart(tmp_path: Path) -> None:
    """
    Before anybody is called the first group that would have to be is told, with where it lies and
    what can be done. Documents that are not sent do not count.
    """
    rows = groups(3, candidates=4)
    for document in rows[0]["documents"][2:]:
        document["text"] = ""
    with Liar(cohere_reply) as server:
        job = job_for(tmp_path, server.port, "compatible", "m", documents_max=3)
        job.source(rows)
        planned = job.cli("plan")
        refused = job.cli("run")
        job.change(provider={"splits": True})
        cut = job.cli("run", "--json")

    assert (2, 5) == (refused.code, len(server.heard))
    assert "2 of 3 groups with more documents than the 3 that one request may" in planned.out
    told = "group 1 (query_id 'q1001', row 1 of groups.parquet): 4 documents, and one request"
    assert f"{told} to compatible holds 3" in refused.err
    assert "provider.splits = true" in refused.err
    assert 0 == cut.code


def test_a_top_n_that_is_sent_lets_no_group_be_cut(tmp_path: Path) -> None:
    """
    The best of each slice are not the best of the group: refused, whoever is asked.
    """
    with Liar(cohere_reply) as server:
        job = job_for(
            tmp_path, server.port, "cohere", "rerank-v3.5", documents_max=3, send_top_n=True
        ).change(output={"top_n": 2})
        job.source(groups(1, candidates=4))
        refused = job.cli("run")

    assert (2, 0) == (refused.code, len(server.heard))
    assert "leave provider.send_top_n out" in refused.err


@pytest.mark.parametrize(
    ("provider", "more", "told"),
    [
        pytest.param({"name": "llmapi"}, {}, "publishes neither address", id="nothing is public"),
        pytest.param({"name": "tei"}, {}, "say where your server is", id="a server without one"),
        pytest.param({"name": "azure"}, {}, "RESOURCE.services.ai.azure.com", id="a resource"),
        pytest.param(
            {"name": "cohere"}, {"source": {"image": "picture"}}, "takes texts only", id="images"
        ),
        pytest.param(
            {"name": "tei", "base_url": "http://127.0.0.1", "send_top_n": True},
            {"output": {"top_n": 3}},
            "has no field for it",
            id="top_n",
        ),
        pytest.param({"name": "pinecone"}, {}, "api_version", id="an option that has to be told"),
        pytest.param(
            {"name": "cohere", "options": {"body": {"documents": []}}},
            {},
            "filled by batchrank itself",
            id="a field of ours",
        ),
        pytest.param(
            {"name": "cohere", "options": {"headers": {"X-Api-Key": "sk-canary"}}},
            {},
            "a key never stands in a job file",
            id="a key in a header",
        ),
        pytest.param(
            {"name": "cohere", "options": {"path": "rerank"}},
            {},
            "expected a path such as /v1/rerank",
            id="a path without its slash",
        ),
        pytest.param(
            {"name": "cohere", "base_url": "http://cohere.example"},
            {},
            "would send the key unencrypted",
            id="a key without encryption",
        ),
    ],
)
def test_what_a_vendor_cannot_do_is_told_before_anything_is_paid(
    tmp_path: Path, provider: dict[str, Any], more: dict[str, Any], told: str
) -> None:
    """
    With what to do about it; and no key is repeated.
    """
    job = SmallJob(tmp_path, provider={"model": "m", "key_file": "key", **provider}, **more)
    job.write_key(KEY)

    with pytest.raises(JobError) as refused:
        load(job.file)

    assert told in str(refused.value)
    assert "sk-canary" not in str(refused.value)


def test_without_a_key_the_network_of_ones_own_may_be_plain(tmp_path: Path) -> None:
    """
    There is nothing to encrypt that a key could be taken from.
    """
    table = {"name": "tei", "model": "m", "base_url": "http://tei.internal:8080"}
    job = SmallJob(tmp_path, provider=table)

    assert load(job.file).first.key is None


def test_a_job_of_another_vendor_can_be_rehearsed(tmp_path: Path) -> None:
    """
    At its prices and in pieces of its size; its options are for the vendor alone.
    """
    provider = {"name": "cohere", "model": "rerank-v3.5", "options": {"priority": 3}}
    job = SmallJob(tmp_path, provider=provider).source(groups(3))

    ran = job.cli("rehearse", "--latency", "0", "--json")

    assert 0 == ran.code
    assert 0.006 == pytest.approx(ran.json["summary"]["cost_usd"])
