"""
Rows of candidates in order, folded into groups: one row for each run of equal query ids.

Owns where a group begins and ends in a stream of batches, and what in its rows cannot be a group.
Sorts nothing: rows of one query come one after the other. Holds one group that is not complete,
and no more rows than a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from batchrank.source.stage.forms import FLAW

CANDIDATES_MAX = 100_000
"""Of one query; so many rows are no list to rerank but a column that is no id."""

OF_GROUP = ("query_id", "query")
_SHOWN_CHARS = 60


class NoGroup(Exception):
    """
    Rows of which no group can be made: *what* is wrong with those of *query_id*, if they have one,
    and a *remedy*.
    """

    def __init__(self, query_id: object, what: str, remedy: str) -> None:
        super().__init__(what)
        self.query_id = None if query_id is None else str(query_id)
        self.what = what
        self.remedy = remedy


def folded(batches: Iterable[pa.RecordBatch], depth: int | None) -> Iterator[pa.RecordBatch]:
    """
    Yield the groups as `query_id`, `query` and `documents`, a list of structs with all the rest; of
    each group the first *depth* rows (None: all). Where rows have flaws, so have the groups.

    Raises:
        NoGroup: a row without a query id, a query with two texts, or far too many candidates.
    """
    tail: pa.Table | None = None
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        if rows.num_rows == 0:
            continue
        rows = rows if tail is None else pa.concat_tables([tail, rows]).combine_chunks()
        starts = _starts(rows["query_id"])
        if len(starts) > 1:
            yield _groups(rows.slice(0, starts[-1]), starts[:-1], depth)
        tail = rows.slice(starts[-1])
        if tail.num_rows > CANDIDATES_MAX:
            raise _too_many(tail)
    if tail is not None:
        yield _groups(tail, [0], depth)


def _starts(ids: pa.ChunkedArray) -> list[int]:
    """
    The rows at which another query begins.
    """
    if ids.null_count:
        raise NoGroup(
            None, "there are rows without a query_id",
            "leave them out, or name another column as source.query_id",
        )  # fmt: skip
    if len(ids) < 2:
        return [0]
    changes = pc.indices_nonzero(pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)))
    return [0, *pc.add(changes, 1).to_pylist()]


def _groups(rows: pa.Table, starts: list[int], depth: int | None) -> pa.RecordBatch:
    rows = rows.combine_chunks()
    _check_queries(rows, starts)
    names = [name for name in rows.column_names if name not in (*OF_GROUP, FLAW)]
    arrays = [_one(rows[name]) for name in names]
    documents = pa.StructArray.from_arrays(arrays, names)
    offsets = pa.array([*starts, rows.num_rows], pa.int32())
    lists = pa.ListArray.from_arrays(offsets, documents)
    if depth is not None:
        lists = pc.list_slice(lists, 0, depth)
    heads = pa.array(starts, pa.int64())
    first = [_one(rows[name].take(heads)) for name in OF_GROUP]
    columns = dict(zip((*OF_GROUP, "documents"), (*first, lists), strict=True))
    if FLAW in rows.column_names:
        columns[FLAW] = _flaws(rows, starts, depth)
    return pa.RecordBatch.from_pydict(columns)


def _flaws(rows: pa.Table, starts: list[int], depth: int | None) -> pa.Array:
    """
    Of each group the first flaw that a row has which is in it.
    """
    offsets = pa.array([*starts, rows.num_rows], pa.int32())
    lists = pa.ListArray.from_arrays(offsets, _one(rows[FLAW])).to_pylist()
    return pa.array([next(filter(None, flaws[:depth]), None) for flaws in lists], pa.string())


def _one(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _check_queries(rows: pa.Table, starts: list[int]) -> None:
    """
    All rows of a group have the same query.
    """
    texts = rows["query"]
    if len(texts) < 2:
        return
    here, before = texts.slice(1), texts.slice(0, len(texts) - 1)
    same = pc.fill_null(pc.equal(here, before), False)
    same = pc.or_(same, pc.and_(pc.is_null(here), pc.is_null(before)))
    begun = set(starts)
    for row in pc.indices_nonzero(pc.invert(same)).to_pylist():
        if row + 1 not in begun:
            query_id = rows["query_id"][row + 1].as_py()
            one, other = (_shown(texts[at].as_py()) for at in (row, row + 1))
            raise NoGroup(
                query_id, f"query_id {query_id!r} has two queries, {one} and {other}",
                "give each query an id of its own, or name another column as source.query_id",
            )  # fmt: skip


def _shown(query: str | None) -> str:
    return repr(query if query is None else query[:_SHOWN_CHARS])


def _too_many(rows: pa.Table) -> NoGroup:
    query_id = rows["query_id"][0].as_py()
    return NoGroup(
        query_id, f"query_id {query_id!r} has more than {CANDIDATES_MAX:,} candidates",
        "name another column as source.query_id, or give each query fewer",
    )  # fmt: skip
