"""
Content keys as Arrow finds them are those that the plain rule makes of each group.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.config.schema import SourceTable
from batchrank.domain import Positions
from batchrank.policy.digest import content_of, pairs_of
from batchrank.policy.slicing import without_call
from batchrank.source import open_source
from batchrank.store import blocks
from tests.laws import law

TEXTS = st.none() | st.text(st.sampled_from("a \u3000é\ufeff\U0001f600"), max_size=4)
DOCUMENT = pa.struct([("id", pa.string()), ("title", pa.string()), ("text", pa.string())])
ROW = st.fixed_dictionaries(
    {
        "query": TEXTS,
        "documents": st.none()
        | st.lists(
            st.none() | st.fixed_dictionaries({"id": TEXTS, "title": TEXTS, "text": TEXTS}),
            max_size=4,
        ),
    }
)
SCHEMA = pa.schema([("query", pa.string()), ("documents", pa.list_(DOCUMENT))])

RULES: list[dict[str, Any]] = [
    {"text": "text"},
    {"text": "text", "doc_id": "id"},
    {"template": "{title}: {text}"},
    {"yaml": ("title", "text")},
    {"text": "text", "image": "title"},
    {"text": "text", "max_chars": 2},
    {"text": "text", "dedupe_documents": True},
]


def keys(source: Any) -> tuple[list[bytes | None], list[bytes | None]]:
    """
    The keys in the blocks, and those that the groups say they should be.
    """
    found, expected = [], []
    for batch in source.batches(Positions(source.total), source.total):
        found += blocks.contents(batch.carried)
        for position in range(batch.position, batch.position + batch.rows):
            group = batch.group(position)
            called = without_call(group) is None
            expected.append(content_of(group.query, group.documents) if called else None)
    return found, expected


@law(60)
@given(st.sampled_from(RULES), st.lists(ROW, min_size=1, max_size=8), st.integers(1, 9))
def test_blocks_hold_the_key_of_every_group_that_needs_a_call(
    rule: dict[str, Any], rows: list[dict[str, Any]], row_group: int
) -> None:
    """
    However texts are made, and wherever nulls, blanks and missing ids stand.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=row_group)

        found, expected = keys(open_source(SourceTable(path="a.parquet", **rule), Path(folder)))

    assert expected == found


@law(30)
@given(st.sampled_from(RULES), st.lists(ROW, min_size=1, max_size=8), st.integers(1, 9))
def test_blocks_hold_the_key_of_every_pair_that_would_be_sent(
    rule: dict[str, Any], rows: list[dict[str, Any]], row_group: int
) -> None:
    """
    If that is asked for; each list is as long as the group has documents.
    """
    found: list[list[bytes | None]] = []
    expected: list[list[bytes | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=row_group)
        source = open_source(SourceTable(path="a.parquet", **rule), Path(folder))
        plain = source.no_rows()
        source.key_pairs()
        for batch in source.batches(Positions(source.total), source.total):
            found += blocks.pairs(batch.carried) or []
            for position in range(batch.position, batch.position + batch.rows):
                group = batch.group(position)
                called = without_call(group) is None
                keys = pairs_of(group.query, group.documents)
                expected.append(keys if called else [None] * len(keys))

    assert expected == found
    assert blocks.pairs(plain) is None
    assert [] == blocks.pairs(source.no_rows())


def test_long_portions_have_the_same_keys(tmp_path: Path) -> None:
    """
    Strings are made some groups at a time, keys of a whole batch.
    """
    documents = [[f"{n} {i} " * 500 for i in range(n % 40)] for n in range(300)]
    table = pa.table({"query": [f"q{n}" for n in range(300)], "documents": documents})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=70)

    found, expected = keys(open_source(SourceTable(path="a.parquet"), tmp_path))

    assert expected == found
    assert 8 == found.count(None)


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_the_type_of_a_column_is_no_part_of_a_key(tmp_path: Path, kind: pa.DataType) -> None:
    """
    Nor is who wrote the file.
    """
    table = pa.table(
        {
            "query": pa.array(["q"]).cast(kind),
            "documents": pa.array([["a", None, "b"]]).cast(pa.list_(kind)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")

    found, _ = keys(open_source(SourceTable(path="a.parquet"), tmp_path))

    assert [content_of("q", ["a", None, "b"])] == found
