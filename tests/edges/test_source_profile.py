"""
A profile counts what a plan needs, within its time or completely.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.config.schema import SourceTable
from batchrank.domain import Positions
from batchrank.source import ParquetSource, Profile, open_source

ROWS: list[dict[str, Any]] = [
    {"id": "q1", "query": "née", "documents": [{"text": "a", "url": None}] * 3},
    {
        "id": "q2",
        "query": "b",
        "documents": [{"text": " ", "url": None}, {"text": "12", "url": "u"}],
    },
    {"id": "q2", "query": " ", "documents": [{"text": "a", "url": None}]},
    {"id": "q3", "query": "c", "documents": []},
    {"id": "q4", "query": "c", "documents": None},
    {"id": None, "query": "c", "documents": [{"text": "a", "url": None}] * 2},
]


def source_of(base: Path, rows: list[dict[str, Any]], row_group_size: int = 1000) -> ParquetSource:
    """
    The source of one file.
    """
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, base / "a.parquet", row_group_size=row_group_size)
    mapping: dict[str, Any] = {"query_id": "id"} if "id" in rows[0] else {}
    if isinstance(rows[0]["documents"][0], dict):
        mapping["image"] = "url"
    return open_source(SourceTable(path="a.parquet", **mapping), base)


def test_a_profile_counts_groups_texts_and_what_is_not_sent(tmp_path: Path) -> None:
    """
    Each of six small groups is odd in its own way.
    """
    profile = source_of(tmp_path, ROWS).profile(60.0)

    assert profile.complete
    assert {3: 1, 2: 2, 1: 1, 0: 2} == profile.candidates
    assert {3: 1, 1: 1, 0: 4} == profile.sent
    assert (2, 4 + 1, 4, (4, 1)) == _of(profile.queries)
    assert (4, 3 + 2, 2, (1, 1, 1, 2)) == _of(profile.documents)
    assert (2, 1, 1) == (profile.empty, profile.blank_queries, profile.blank_documents)
    assert (2, 1) == (profile.repeated_documents, profile.images)
    assert (6, 1) == (profile.query_ids, profile.repeated_query_ids)
    assert {"id is null": 1} == profile.flaws
    assert profile.row_group_bytes_max > 0


def test_a_profile_counts_what_is_sent(tmp_path: Path) -> None:
    """
    Texts as they are cut, and equal ones once where that is asked; what only becomes equal by the
    cut is equal.
    """
    rows: list[dict[str, Any]] = [
        {"query": "née", "documents": ["aé", "aéx", "b", None, "   x", "aéy"]},
        {"query": " ", "documents": ["long", "long"]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")

    def profile(**settings: Any) -> Profile:
        return open_source(SourceTable(path="a.parquet", **settings), tmp_path).profile(60.0)

    plain, cut = profile(), profile(max_chars=2)
    once = profile(max_chars=2, dedupe_documents=True)

    assert [0, 5, 5] == [found.cut_documents for found in (plain, cut, once)]
    assert [1, 2, 2] == [found.blank_documents for found in (plain, cut, once)]
    assert [1, 3, 3] == [found.repeated_documents for found in (plain, cut, once)]
    assert [{5: 1, 0: 1}, {4: 1, 0: 1}, {2: 1, 0: 1}] == [f.sent for f in (plain, cut, once)]
    assert (2, 3 + 1, 3, (3, 1)) == _of(once.documents)


def _of(lengths: Any) -> tuple[int, int, int, tuple[int, ...]]:
    return lengths.count, lengths.total_bytes, lengths.bytes_max, lengths.sample


def ticking(step_s: float) -> Callable[[], float]:
    """
    A clock that moves by *step_s* whenever somebody looks at it.
    """
    now = 0.0

    def look() -> float:
        nonlocal now
        now += step_s
        return now

    return look


def many(rows: int) -> list[dict[str, Any]]:
    """
    Groups that can be told apart by their lengths.
    """
    return [{"query": "x" * (n + 1), "documents": ["d"]} for n in range(rows)]


def test_a_sample_is_spread_over_the_source_and_ends_in_time(tmp_path: Path) -> None:
    """
    Row groups from everywhere are begun; the same seed looks at the same ones.
    """
    source = source_of(tmp_path, many(400), row_group_size=4)

    def looked_at(seed: int) -> Profile:
        return source.profile(20.0, seed=seed, clock=ticking(1.0))

    seen = sorted((length - 1) // 4 for length in looked_at(0).queries.sample)

    assert 4 * 5 < len(seen) < 4 * 20
    assert seen[0] < 25
    assert seen[-1] >= 75
    assert looked_at(0) == looked_at(0)
    assert looked_at(1) != looked_at(0)


def test_at_least_one_batch_is_looked_at(tmp_path: Path) -> None:
    """
    However little time there is.
    """
    source = source_of(tmp_path, many(300))

    profile = source.profile(0.0)

    assert (300, 256, False) == (profile.groups, profile.sampled, profile.complete)


def test_a_full_profile_takes_its_time(tmp_path: Path) -> None:
    """
    Every group is looked at, whatever the clock says.
    """
    source = source_of(tmp_path, many(300), row_group_size=7)

    assert source.profile(0.0, full=True, clock=ticking(1e6)).complete


def test_lengths_are_sampled_fairly_and_in_bounded_memory(tmp_path: Path) -> None:
    """
    Of more lengths than are kept, early and late ones stay alike.
    """
    rows = [{"query": "q", "documents": ["x" * (1 + n // 100)] * 60} for n in range(400)]

    documents = source_of(tmp_path, rows).profile(60.0, full=True).documents

    assert (24_000, 10_000) == (documents.count, len(documents.sample))
    for length in (1, 2, 3, 4):
        assert 2_000 < documents.sample.count(length) < 3_000


def test_what_is_done_is_not_looked_at(tmp_path: Path) -> None:
    """
    However many row groups of it come first, and whatever the clock says.
    """
    source = source_of(tmp_path, many(600), row_group_size=300)
    done = Positions(600, [*range(450), 599])

    whole = source.profile(60.0, full=True, done=done)
    hurried = source.profile(0.0, done=Positions(600, range(299)), clock=ticking(1.0))

    assert (149, 149, 2) == (whole.groups, whole.sampled, whole.batches)
    assert list(range(451, 600)) == sorted(whole.queries.sample)
    assert (301, 1) == (hurried.groups, hurried.batches)
    assert hurried.sampled >= 1
    assert source.profile(0.0, done=Positions(600, range(600))).complete
