"""
Nights of which only single documents have changed: no pair that has a score is paid for again.

The vendor of these tests is OpenRouter's, with the promise that OpenRouter does not give.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.events import ReplyRead, Silence
from batchrank.job import load
from batchrank.job.opening import opened
from batchrank.job.reusing import reuse
from batchrank.job.world import Wishes
from batchrank.providers import OPENROUTER, VENDORS, Vendor
from tests.e2e.forks import Fork
from tests.e2e.jobs import faults_of
from tests.e2e.killing import PATIENCE_S, run_until
from tests.e2e.small_jobs import (
    Heard,
    Liar,
    SmallJob,
    cli,
    expected,
    groups,
    http,
    texts_of,
)
from tests.laws import law

pytestmark = pytest.mark.campaign

MODEL = "cohere/rerank-5-fast"
"""It is billed by tokens."""

ALONE = replace(OPENROUTER, scores_pairs_alone=True, documents_max=2)

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True, scope="module")
def _alone() -> Iterator[None]:
    """
    A vendor that scores pairs alone, and takes few documents at once.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VENDORS, ALONE.name, ALONE)
        yield


@pytest.fixture
def liar() -> Iterator[Liar]:
    """
    A server whose scores are a function of query and document.
    """
    with Liar(lambda heard: http(heard.reply())) as liar:
        yield liar


def sent(liar: Liar) -> Counter[tuple[str, str]]:
    """
    How often each pair was sent; what was heard is forgotten.
    """
    heard, liar.heard[:] = [*liar.heard], []
    return Counter(pair for one in heard for pair in pairs_in(one))


def pairs_in(heard: Heard) -> list[tuple[str, str]]:
    """
    The pairs of a request.
    """
    return [(heard.asked["query"], text) for text in heard.asked["documents"]]


def night(
    base: Path, liar: Liar, name: str, rows: Rows, source: Any = None, **output: object
) -> SmallJob:
    """
    The job of a night in a folder of all nights, not run yet.
    """
    told = {"path": name, "part_groups": 4, "reuse": ["no"], "reuse_pairs": True, **output}
    (base / "no").mkdir(exist_ok=True)
    (base / "no/_SUCCESS").touch()
    file = f"{name}.parquet"
    tables = {"source": {"path": file, **(source or {})}, "output": told}
    job = SmallJob(base, liar.port, provider={"model": MODEL}).change(**tables)
    job.file = job.file.rename(base / f"{name}.toml")
    job.output = base / name
    return job.source(rows, file, row_group_size=5)


def scores(job: SmallJob) -> Rows:
    """
    The rows of an output, without digests and model.
    """
    held = job.rows()
    return [{k: v for k, v in row.items() if k not in ("pair_digest", "model")} for row in held]


def wanted(rows: Rows) -> Rows:
    """
    The rows that there are when everybody is called.
    """
    return [{k: v for k, v in row.items() if k != "model"} for row in expected(rows)]


# --- what is sent ---------------------------------------------------------------------------------

TEXTS = st.sampled_from(["one", "two", "three", "four", None])


@st.composite
def some_groups(draw: st.DrawFn) -> Rows:
    """
    Groups of few texts, so that they meet their like in another night, and in their own.
    """
    asked = draw(
        st.lists(st.tuples(st.sampled_from("qr"), st.lists(TEXTS, max_size=6)), max_size=12)
    )
    asked.append(("q", ["one"]))
    return [
        {
            "query_id": f"q{p}",
            "query": query,
            "documents": [{"id": f"d{p}-{n}", "text": text} for n, text in enumerate(texts)],
        }
        for p, (query, texts) in enumerate(asked)
    ]


def to_send(rows: Rows, before: Rows, *, once: bool, dedupe: bool) -> Counter[tuple[str, str]]:
    """
    The pairs of *rows* that nobody asked about before.
    """
    whole = {(row["query"], *texts_of(row)) for row in before}
    known = {(row["query"], text) for row in before for text in texts_of(row)}
    asked = [(row["query"], *texts_of(row)) for row in rows]
    found: Counter[tuple[str, str]] = Counter()
    for query, *texts in dict.fromkeys(asked) if dedupe else asked:
        if (query, *texts) not in whole:
            each = dict.fromkeys(texts) if once else texts
            found.update((query, t) for t in each if t is not None and (query, t) not in known)
    return found


@law(4)
@given(
    some_groups(),
    some_groups(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["candidates", "groups"]),
)
def test_exactly_the_pairs_that_are_new_are_sent(
    first: Rows, second: Rows, once: bool, dedupe: bool, layout: str
) -> None:
    """
    And every score is the one that calling everybody gives, where calls hold two documents at most.
    """
    source = {"dedupe_documents": once, "dedupe": dedupe}
    with tempfile.TemporaryDirectory() as folder, Liar(lambda h: http(h.reply())) as liar:
        base = Path(folder)
        assert 0 == night(base, liar, "first", first, source, layout=layout).run().exit_code
        assert to_send(first, [], once=once, dedupe=dedupe) == sent(liar)
        job = night(base, liar, "second", second, source, reuse=["first"])

        summary = job.run()

        assert to_send(second, first, once=once, dedupe=dedupe) == sent(liar)
        assert (0, []) == (summary.exit_code, faults_of(job.file))
        assert wanted(second) == scores(job)


def changed(count: int = 30) -> tuple[Rows, Rows, Counter[tuple[str, str]]]:
    """
    Two nights, and the pairs that are new in the second: one or two in most groups.
    """
    first, second = groups(count, 5), groups(count, 5)
    new = [(p, n) for p in range(count) for n in range(5) if (p * 5 + n) % 4 == 0 and p % 5]
    for p, n in new:
        second[p]["documents"][n]["text"] += " again"
    asked = Counter((second[p]["query"], second[p]["documents"][n]["text"]) for p, n in new)
    return first, second, asked


def test_plan_foretells_what_run_does_not_send(tmp_path: Path, liar: Liar) -> None:
    """
    Documents that are known, and groups that are known whole document by document.
    """
    first, second, new = changed()
    second[0]["documents"].reverse()
    second[5]["documents"].pop()
    night(tmp_path, liar, "first", first).run()
    sent(liar)
    job = night(tmp_path, liar, "second", second, reuse=["first"])
    as_new = night(tmp_path, liar, "as_new", second)

    foretold, dear = job.cli("plan", "--json").json, as_new.cli("plan", "--json").json
    words = job.cli("plan").out
    summary = job.run()
    calls = len(liar.heard)

    known = 24 * 5 - new.total()
    assert (6, known) == (foretold["reused"], foretold["documents_reused"])
    assert (6, known) == (summary.reused, summary.documents_reused)
    assert new == sent(liar)
    assert [24, 72] == foretold["requests"]
    assert calls == summary.calls
    assert 24 <= calls <= 72
    for less, more in zip(foretold["tokens"], dear["tokens"], strict=True):
        assert new.total() / 150 == pytest.approx(less / more, abs=0.02)
    assert f"{known} documents of groups that have changed, from earlier outputs: not sent" in words
    assert f"{known} documents of changed groups not sent" in summary.as_text()
    told = [note for note in summary.notes if "score" in note]
    assert ["4 groups have", "2 groups more have", f"{known} documents of"] == [
        " ".join(note.split()[: 4 if "more" in note else 3]) for note in told
    ]
    assert wanted(second) == scores(job)


# --- interrupted ----------------------------------------------------------------------------------


def _run_alone(job: Path) -> None:
    VENDORS[ALONE.name] = ALONE
    run_until(job, ReplyRead.name, 20)


def test_whoever_is_killed_sends_no_pair_again(tmp_path: Path, liar: Liar) -> None:
    """
    But for calls in flight. What was found need not be there any more.
    """
    first, second, new = changed(60)
    night(tmp_path, liar, "first", first).run()
    sent(liar)
    job = night(tmp_path, liar, "second", second, reuse=["first"])
    fork = Fork(_run_alone, job.file)
    try:
        assert -SIGKILL == fork.wait(PATIENCE_S)
    finally:
        fork.kill()
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    job = night(tmp_path, liar, "second", second)

    summary = job.run()

    calls = sent(liar)
    assert set(new) == set(calls)
    assert calls.total() - new.total() <= 8 * 2
    assert (0, []) == (summary.exit_code, faults_of(job.file))
    assert 48 * 5 - new.total() == summary.documents_reused
    assert wanted(second) == scores(job)


def test_a_refused_group_is_asked_again_about_what_is_new(tmp_path: Path) -> None:
    """
    What was known of it still is.
    """
    first, second, new = changed(8)
    refused = True

    def answer(heard: Heard) -> bytes:
        again = any("again" in text for text in heard.asked["documents"])
        bad = {"error": {"code": 400, "message": "no"}}
        return http(bad, 400) if refused and again else http(heard.reply())

    with Liar(answer) as liar:
        night(tmp_path, liar, "first", first).run()
        job = night(tmp_path, liar, "second", second, reuse=["first"])
        rejected = job.run()
        sent(liar)
        refused = False

        summary = job.run(retry_rejects=True)

        assert (1, 6, 0, 0) == (
            rejected.exit_code,
            rejected.rejected,
            summary.exit_code,
            summary.rejected,
        )
        assert new == sent(liar)
        assert wanted(second) == scores(job)


def test_in_a_mended_file_nothing_is_known_of_what_was_there_before(
    tmp_path: Path, liar: Liar
) -> None:
    """
    Groups without an outcome are looked up anew.
    """
    first, second, _ = changed(12)
    night(tmp_path, liar, "first", first).run()
    job = night(tmp_path, liar, "second", second, reuse=["first"])
    with opened(load(job.file), Wishes(), Silence()) as world:
        reuse(world, Silence(), world.done())
        before = world.ledger.tally()["documents_reused"]
    second[6]["documents"] = first[7]["documents"]
    second[7]["query"] = "another"
    second[8]["documents"][0]["text"] = first[8]["documents"][0]["text"]
    job.source(second, "second.parquet", row_group_size=5)
    sent(liar)

    summary = job.run(accept=[str(tmp_path / "second.parquet")])

    assert to_send(second, first, once=False, dedupe=False) == sent(liar)
    assert summary.documents_reused < before
    assert (0, []) == (summary.exit_code, faults_of(job.file))
    assert wanted(second) == scores(job)


# --- which outputs --------------------------------------------------------------------------------


def test_an_output_that_does_not_tell_pairs_apart_gives_whole_groups(
    tmp_path: Path, liar: Liar
) -> None:
    """
    And it is told. When it is written again with the setting, nobody is called for it.
    """
    first, second, new = changed()
    old = night(tmp_path, liar, "first", first, reuse_pairs=False)
    old.run()
    sent(liar)
    before = set(pq.read_schema(old.parts()[0]).names)
    job = night(tmp_path, liar, "second", second, reuse=["first"])
    words = "first was written without output.reuse_pairs: it gives whole groups only"
    assert any(words in warning for warning in job.cli("plan", "--json").json["warnings"])

    again = night(tmp_path, liar, "first", first).run()
    summary = job.run()

    assert {"pair_digest"} == {*pq.read_schema(old.parts()[0]).names} - before
    assert 0 == again.calls_now
    assert not any("whole groups only" in note for note in summary.notes)
    assert new == sent(liar)


def test_what_top_n_has_left_of_a_group_is_taken_pair_by_pair(tmp_path: Path, liar: Liar) -> None:
    """
    A score is a score: only those that were cut are asked for.
    """
    rows = groups(6, 4)
    night(tmp_path, liar, "first", rows, top_n=3).run()
    sent(liar)

    summary = night(tmp_path, liar, "second", rows, reuse=["first"]).run()

    assert (0, 18, 6) == (summary.reused, summary.documents_reused, sent(liar).total())
    assert not any("they are called" in note for note in summary.notes)


@pytest.mark.parametrize(
    ("vendor", "tables", "words"),
    [
        pytest.param(
            OPENROUTER,
            {},
            "do not depend on the other documents: openrouter does not promise it",
            id="a vendor that does not promise it",
        ),
        pytest.param(
            ALONE,
            {"provider": {"name": "lexical", "model": None, "key_file": None, "base_url": None}},
            "do not depend on the other documents: lexical does not promise it",
            id="a scorer that looks at the whole group",
        ),
        pytest.param(
            ALONE,
            {"provider": {"splits": False}},
            "do not depend on the other documents",
            id="a model that its owner knows better",
        ),
        pytest.param(
            ALONE,
            {"provider": {"model": "cohere/rerank-v3.5"}},
            "of cohere/rerank-v3.5, it is billed by search units",
            id="search units",
        ),
        pytest.param(
            ALONE,
            {"provider": {"model": "x/y"}},
            "of x/y, no price of it is known",
            id="no price",
        ),
        pytest.param(ALONE, {"output": {"reuse": None}}, "reuse_pairs needs reuse", id="no reuse"),
    ],
)
def test_it_is_refused_where_it_would_be_wrong_or_save_nothing(
    tmp_path: Path,
    liar: Liar,
    monkeypatch: pytest.MonkeyPatch,
    vendor: Vendor,
    tables: dict[str, Any],
    words: str,
) -> None:
    """
    Before anything is paid, with its line.
    """
    monkeypatch.setitem(VENDORS, vendor.name, vendor)
    job = night(tmp_path, liar, "job", groups(1))
    file = job.file
    job.file = tmp_path / "job.toml"
    job.change(**tables)

    refused = cli("run", file)

    lines = file.read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.startswith("reuse_pairs"))
    assert 2 == refused.code
    assert f"line {line}" in refused.err
    assert words in refused.err
    assert not sent(liar)


def test_where_nobody_is_paid_fewer_documents_are_less_work_all_the_same(
    tmp_path: Path, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A server of one's own has no price, and needs none.
    """
    monkeypatch.setitem(VENDORS, ALONE.name, replace(ALONE, bills=False))
    old, new = groups(2), groups(3)
    first = night(tmp_path, liar, "first", old)
    second = night(tmp_path, liar, "second", new, reuse=["first"])
    for job in first, second:
        job.change(provider={"model": "mine"})

    assert 0 == first.run().exit_code
    sent(liar)
    assert 0 == second.run().exit_code

    assert to_send(new, old, once=False, dedupe=False) == sent(liar)


def test_who_runs_a_model_may_say_that_it_scores_pairs_alone(tmp_path: Path, liar: Liar) -> None:
    """
    Nobody else can know that of a server of one's own.
    """
    job = night(tmp_path, liar, "job", groups(1))
    file = job.file
    job.file = tmp_path / "job.toml"
    job.change(provider={"splits": True})

    assert 0 == cli("plan", file).code
