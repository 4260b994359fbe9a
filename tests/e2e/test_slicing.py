"""
Groups that are larger than a request may be, asked of the embedded server as TEI and Cohere are.

Which requests a group makes is for `unit/test_slicing` to show; here it is that the scores are the
same as in one piece, that nothing is paid twice, and that a limit is met once and not every night.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from tests.e2e.jobs import Watched, embedded
from tests.e2e.killing import SLICE_DURABLE, killed
from tests.e2e.small_jobs import SmallJob, groups

MANY = 5_000

SHAPES: dict[str, dict[str, Any]] = {
    "tei": {"model": "bge", "key_file": None},
    "cohere": {"model": "rerank-v3.5"},
    "openrouter": {"model": "cohere/rerank-v3.5"},
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Watched]:
    """
    One server for all.
    """
    with embedded() as server:
        yield server


@pytest.fixture
def server(shared: Watched) -> Iterator[Watched]:
    """
    The shared server, with nothing counted and no dial turned.
    """
    shared.reset()
    yield shared
    shared.turn(documents_max=None, body_bytes_max=None, faults=None, latency=None)


def job_for(folder: Path, server: Watched, name: str, **provider: Any) -> SmallJob:
    """
    A job in a folder of its own that asks the server as the vendor *name* is asked.
    """
    folder.mkdir(exist_ok=True)
    base_url = server.base_url if name == "openrouter" else server.base_url.removesuffix("/api/v1")
    table = {"name": name, "base_url": base_url, **SHAPES[name], **provider}
    return SmallJob(folder, server.port, provider=table)


def scores_of(job: SmallJob) -> list[tuple[Any, Any]]:
    """
    What does not depend on who was asked.
    """
    return [(row["doc_id"], row["relevance_score"]) for row in job.rows()]


def test_scores_of_slices_are_those_of_the_whole(tmp_path: Path, server: Watched) -> None:
    """
    A group of 5,000 in one piece, in 157 of TEI's, in 5 of Cohere's.
    """
    rows = groups(1, MANY)
    whole, teis, coheres = (
        job_for(tmp_path / name, server, name).source(rows)
        for name in ("openrouter", "tei", "cohere")
    )

    calls = [job.run().calls for job in (whole, teis, coheres)]

    assert [1, 157, 5] == calls
    assert MANY == len(whole.rows())
    assert scores_of(whole) == scores_of(teis) == scores_of(coheres)


@pytest.mark.parametrize(("name", "calls"), [("tei", 157), ("cohere", 5)])
def test_a_kill_between_slices_pays_none_again_that_is_durable(
    tmp_path: Path, server: Watched, name: str, calls: int
) -> None:
    """
    One slice at a time is under way: at most one is asked twice, and the parts are the same bytes.
    """
    rows = groups(1, MANY)
    whole, job = (
        job_for(tmp_path / one, server, name)
        .source(rows)
        .change(limits={"concurrency": 1, "concurrency_max": None})
        for one in ("undisturbed", "killed")
    )
    whole.run()
    server.reset()

    ended = killed(job.file, SLICE_DURABLE, 2)
    summary = job.run()

    assert (-SIGKILL, 0, calls) == (ended, summary.exit_code, summary.calls)
    asked = server.arrivals()
    assert calls == len(asked)
    assert calls <= asked.total() <= calls + 1
    assert [p.read_bytes() for p in whole.parts()] == [p.read_bytes() for p in job.parts()]


@pytest.mark.parametrize(
    ("name", "dials", "words"),
    [
        pytest.param("tei", {"documents_max": 8}, "kept to 8 documents from", id="422 that says"),
        pytest.param("tei", {"body_bytes_max": 300}, " bytes from here on", id="413"),
        pytest.param("cohere", {"body_bytes_max": 300}, " bytes from here on", id="413 of Cohere"),
        pytest.param("openrouter", {"documents_max": 8}, " bytes from here on", id="OpenRouter"),
    ],
)
def test_a_limit_that_was_met_is_known_the_next_night(
    tmp_path: Path, server: Watched, name: str, dials: dict[str, Any], words: str
) -> None:
    """
    The first run finds it, and says so; the next begins within it, and nothing is refused.
    """
    server.turn(**dials)
    job = job_for(tmp_path, server, name).source(groups(30, 20))

    first = job.run()
    again = job.change(output={"path": "tomorrow"}).run()

    assert (0, 0) == (first.exit_code, again.exit_code)
    assert first.calls_failed["bad_group"] > 0
    assert {} == again.calls_failed
    assert words in " ".join(first.notes)
    assert [] == [note for note in again.notes if "refused" in note]


def test_one_slice_that_fails_for_good_rejects_the_group_and_its_cost_is_told(
    tmp_path: Path, server: Watched
) -> None:
    """
    In the rejects, in the calls, and in the summary; the night goes on.
    """
    server.turn(faults=["400@2"])
    job = job_for(tmp_path, server, "cohere", documents_max=2)
    job.source(groups(3, 6)).change(
        limits={"concurrency": 1, "concurrency_max": None}, output={"rejected_max": 1}
    )

    summary = job.run()

    (reject,) = job.rejects()
    spent = [call["cost_usd"] for call in job.calls() if call["position"] == reject["position"]]
    assert (0, 2, 1) == (summary.exit_code, summary.ranked, summary.rejected)
    assert [0.002, 0.0] == spent
    assert (0.002, 0.002) == (reject["cost_usd"], summary.cost_usd_rejected)
    assert "$0.0020 for groups that were rejected" in summary.as_text()


def test_one_document_that_is_too_large_costs_no_call(tmp_path: Path, server: Watched) -> None:
    """
    Its group is rejected before it is sent; so is one whose query is.
    """
    rows = groups(3)
    rows[0]["documents"][1]["text"] = "long " * 1_000
    rows[1]["query"] = "long " * 1_000
    job = job_for(tmp_path, server, "cohere", bytes_max=2_000, tokens_max=1_000).source(rows)
    job.change(output={"rejected_max": 2})

    summary = job.run()

    assert (0, 1, 2) == (summary.exit_code, summary.calls, summary.rejected)
    assert {"too_large": 2} == summary.rejects_by_kind
    told = [reject["message"] for reject in job.rejects()]
    assert "the candidate at index 1, with the query: more than the 2,000 bytes that one" in told[0]
