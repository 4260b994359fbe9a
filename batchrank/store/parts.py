"""
From ledger rows to one Parquet file: what a part holds, and proof that it can be read.

Owns the layouts, ranks, and everything that makes a part a pure function of input, settings,
accepted replies and pyarrow's version: fixed row groups, source order, ties kept, no time of day.
Publishes nothing (`output` does) and calls nobody: rendering a part again is always free.

Candidates are columns from the ledger to the file, never Python objects: a part is rendered beside
the calls of a run, and pyarrow leaves the interpreter to them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrank.domain import Served
from batchrank.errors import StorageError
from batchrank.policy.digest import DIGEST_BYTES, digest_of
from batchrank.store import blocks
from batchrank.store.reading import LedgerReader, RankedRow
from batchrank.store.tables import SCORE_BYTES, unpack_scores, unpack_shares

PYARROW: str = pa.__version__
"""Who writes the parts: another version may write other bytes for the same rows."""

ROW_GROUP_ROWS = {"candidates": 65_536, "groups": 2_048}
"""Every row group but a part's last has exactly so many rows, each written by one call."""

CANDIDATES_TOGETHER = 32_768
"""So many are put in order at once, unless one block has more: half a row group of candidates."""


@dataclass(frozen=True, slots=True)
class Layout:
    """
    The settings that shape parts and no score; *asking* is the digest of who is asked, and how.
    """

    layout: Literal["candidates", "groups"] = "candidates"
    top_n: int | None = None
    part_groups: int = 10_000
    asking: bytes = b""


# --- one block of groups --------------------------------------------------------------------------


_ZERO = pa.array([0], pa.int32())
_DIGEST = pa.binary(DIGEST_BYTES)
_NO_RANK, _NO_SCORE = pa.scalar(None, pa.int32()), pa.scalar(None, pa.float64())
_FROM_THE_BEST = [("group", "ascending"), ("score", "descending")]


@dataclass(frozen=True, slots=True)
class _Rows:
    """
    The ranked groups of a block, and their candidates in output order.

    *groups* are rows of the block; the candidates of the n-th are `ends[n] <= row < ends[n + 1]`.
    *parents* are rows of the block, too, *children* places in its flattened lists, *served* ids.
    """

    groups: pa.Array
    ends: pa.Array
    parents: pa.Array
    children: pa.Array
    indices: pa.Array
    ranks: pa.Array
    scores: pa.Array
    served: pa.Array

    def best(self, count: int) -> _Rows:
        """
        The rows with a rank, up to *count* of each group.
        """
        kept = pc.fill_null(pc.less_equal(self.ranks, count), False)
        before = pa.concat_arrays([_ZERO, pc.cumulative_sum(kept.cast(pa.int32()))])
        places = self.parents, self.children, self.indices
        values = self.ranks, self.scores, self.served
        columns = (column.filter(kept) for column in (*places, *values))
        return _Rows(self.groups, before.take(self.ends), *columns)


def _in_order(block: pa.RecordBatch, first: int, ranked: Sequence[RankedRow]) -> _Rows:
    """
    The candidates of *ranked*, of which row n of *block* holds the one at position `first + n`.

    From the best: ties keep source order, what has no score comes last and has no rank.
    """
    counts = block.column("documents")
    groups = pa.array([row.position - first for row in ranked], pa.int64())
    own = counts.take(groups)
    scores = _scores(ranked, own)
    ends = _ends(own)
    group = _owners(ends)
    table = pa.record_batch({"group": group, "score": scores})
    order = pc.sort_indices(table, sort_keys=_FROM_THE_BEST)  # stable, nulls at the end
    before = ends.take(group)
    indices = pc.subtract(order, before)
    ranks = pc.subtract(pa.arange(1, len(scores) + 1), before)
    scores = scores.take(order)
    return _Rows(
        groups,
        ends,
        groups.take(group),
        pc.add(indices, _ends(counts).take(groups).take(group)),
        indices.cast(pa.int32()),
        pc.if_else(scores.is_valid(), ranks.cast(pa.int32()), _NO_RANK),
        scores,
        _served(ranked, own, group, order),
    )


def _scores(ranked: Sequence[RankedRow], counts: pa.Array) -> pa.Array:
    """
    All scores one after another, null for a candidate that has none.
    """
    lengths = pa.array([len(row.scores) for row in ranked], pa.int64())
    if not lengths.equals(pc.multiply(counts.cast(pa.int64()), SCORE_BYTES)):
        raise _miscounted(ranked, counts.to_pylist())
    joined = unpack_scores(b"".join([row.scores for row in ranked]))
    scores = pa.Array.from_buffers(pa.float64(), len(joined), [None, pa.py_buffer(joined)])
    return pc.if_else(pc.is_nan(scores), _NO_SCORE, scores)


def _miscounted(ranked: Sequence[RankedRow], counts: Sequence[int]) -> StorageError:
    position, count, length = next(
        (row.position, count, len(row.scores))
        for row, count in zip(ranked, counts, strict=True)
        if len(row.scores) != count * SCORE_BYTES
    )
    return _damaged(f"group {position} has {count} candidates and {length / SCORE_BYTES:g} scores")


def _served(
    ranked: Sequence[RankedRow], counts: pa.Array, group: pa.Array, order: pa.Array
) -> pa.Array:
    """
    The id of who scored each candidate, in *order*; null where nobody was asked.
    """
    if all(row.shares is None for row in ranked):
        return pa.array([row.served for row in ranked], pa.int64()).take(group)
    ids, ends = [], [0]
    for row, count in zip(ranked, counts.to_pylist(), strict=True):
        shares = unpack_shares(row.shares) if row.shares else [(count, row.served)]
        if shares[-1][0] != count:
            raise _damaged(f"group {row.position} does not say who scored all of it")
        ids += [served for _, served in shares]
        ends += [ends[-1] + stop for stop, _ in shares]
    return pa.array(ids, pa.int64()).take(_owners(pa.array(ends, pa.int32()))).take(order)


def _damaged(what: str) -> StorageError:
    return StorageError(
        what, "the ledger is damaged: do not use this output; begin anew with --restart"
    )


def _ends(counts: pa.Array) -> pa.Array:
    """
    Where the lists of so many elements begin and end, one after another.
    """
    return pa.concat_arrays([_ZERO, pc.cumulative_sum(counts)])


def _owners(ends: pa.Array) -> pa.Array:
    """
    For each element of the lists that have these *ends*, which list it is in.
    """
    elements = pa.nulls(ends[-1].as_py())
    return pc.list_parent_indices(pa.ListArray.from_arrays(ends, elements))


# --- layouts --------------------------------------------------------------------------------------


def _columns(
    block: pa.RecordBatch, rows: _Rows, who: dict[int, Served], digests: _Digests
) -> dict[str, pa.Array]:
    """
    Everything that is known of each candidate, by output column; *digests* are those of the block.
    """
    names, parents, children = block.schema.names, rows.parents, rows.children
    ids = pa.array(list(who), pa.int64())
    served = pc.index_in(rows.served, ids)
    if served.null_count > rows.served.null_count:
        raise _damaged("it is not known any more who scored some of the groups")
    columns = {
        "query_id": block.column("query_id").take(parents),
        "doc_id": block.column("doc_id").flatten().take(children)
        if "doc_id" in names
        else pa.nulls(len(children), pa.string()),
        "index": rows.indices,
        "rank": rows.ranks,
        "relevance_score": rows.scores,
        "model": pa.array([one.model for one in who.values()], pa.string()).take(served),
        "provider": pa.array([one.provider for one in who.values()], pa.string()).take(served),
        "digest": digests.groups.take(parents),
    }
    if digests.pairs is not None:
        columns["pair_digest"] = digests.pairs.take(children)
    for name in names:
        if name.startswith("g:"):
            columns[name[2:]] = block.column(name).take(parents)
        elif name.startswith("c:"):
            columns[name[2:]] = block.column(name).flatten().take(children)
    return columns


class _Digests(NamedTuple):
    """
    What each group of a block asks, null where nobody had to be asked; and each pair of all groups
    one after another, null for one that was not sent, where the block tells pairs apart.
    """

    groups: pa.Array
    pairs: pa.Array | None


def _digests(block: pa.RecordBatch, asking: bytes) -> _Digests:
    names = block.schema.names
    if "content" not in names:
        return _Digests(pa.nulls(block.num_rows, _DIGEST), None)
    groups = _asked(block.column("content"), asking)
    if "pairs" not in names:
        return _Digests(groups, None)
    return _Digests(groups, _asked(block.column("pairs").flatten(), asking))


def _asked(keys: pa.Array, asking: bytes) -> pa.Array:
    return pa.array([key and digest_of(asking, key) for key in keys.to_pylist()], _DIGEST)


def _as_candidates(
    block: pa.RecordBatch, rows: _Rows, who: dict[int, Served], digests: _Digests
) -> pa.Table:
    return pa.table(_columns(block, rows, who, digests))


def _as_groups(
    block: pa.RecordBatch, rows: _Rows, who: dict[int, Served], digests: _Digests
) -> pa.Table:
    columns = _columns(block, rows, who, digests)
    nested = ["doc_id", "index", "rank", "relevance_score", "model", "provider"]
    nested += ["pair_digest"] if digests.pairs is not None else []
    nested += [name[2:] for name in block.schema.names if name.startswith("c:")]
    results = pa.StructArray.from_arrays([columns[name] for name in nested], names=nested)
    table = {
        "query_id": block.column("query_id").take(rows.groups),
        "digest": digests.groups.take(rows.groups),
    }
    for name in block.schema.names:
        if name.startswith("g:"):
            table[name[2:]] = block.column(name).take(rows.groups)
    table["results"] = pa.ListArray.from_arrays(rows.ends, results)
    return pa.table(table)


_LAYOUTS = {"candidates": _as_candidates, "groups": _as_groups}


# --- a whole part ---------------------------------------------------------------------------------


def tables(ledger: LedgerReader, layout: Layout, start: int, stop: int) -> Iterator[pa.Table]:
    """
    The rows of `start <= position < stop`, some groups at a time, in source order.

    Raises:
        StorageError: the ledger lacks the ids of some of these groups.
    """
    who = ledger.served()
    for first, block in _together(_blocks(ledger, start, stop)):
        rows = _in_order(block, first, ledger.ranked(first, first + block.num_rows))
        if layout.top_n is not None:
            rows = rows.best(layout.top_n)
        yield _LAYOUTS[layout.layout](block, rows, who, _digests(block, layout.asking))


def _blocks(ledger: LedgerReader, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """
    The blocks of `start <= position < stop`, each with its first position, cut to what is new.
    """
    reached = start
    for position, rows, body in ledger.carried(start, stop):
        end = min(position + rows, stop)
        if end <= reached:
            continue
        if position > reached and ledger.count_ranked(reached, position):
            break
        first = max(position, reached)
        yield first, blocks.opened(body).slice(first - position, end - first)
        reached = end
    if reached < stop and ledger.count_ranked(reached, stop):
        raise StorageError(
            f"the ledger lacks the ids of groups {reached} to {stop - 1}",
            "it is damaged: begin anew with --restart, and report this",
        )


def _together(
    found: Iterable[tuple[int, pa.RecordBatch]],
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """
    The same groups in longer blocks: every step of pyarrow's waits for the interpreter once.
    """
    held: list[pa.RecordBatch] = []
    first = after = candidates = 0
    for position, block in found:
        more = pc.sum(block.column("documents")).as_py() or 0
        follows = position == after and held and block.schema.equals(held[0].schema)
        if held and not (follows and candidates + more <= CANDIDATES_TOGETHER):
            yield first, pa.concat_batches(held)
            held, candidates = [], 0
        if not held:
            first = position
        held.append(block)
        after, candidates = position + block.num_rows, candidates + more
    if held:
        yield first, pa.concat_batches(held)


@dataclass(frozen=True, slots=True)
class Rendered:
    """
    What was written: the SHA-256 of the bytes, and what each row group adds up to.
    """

    sha256: str
    totals: list[Totals]

    @property
    def rows(self) -> int:
        """
        Rows of the whole part.
        """
        return sum(rows for rows, _ in self.totals)


class _Digesting:
    """
    A file that digests what is written to it.
    """

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def render(
    ledger: LedgerReader, layout: Layout, start: int, stop: int, schema: pa.Schema, path: Path
) -> Rendered:
    """
    Write the part of `start <= position < stop` to *path*.

    Raises:
        OSError: from the disk.
        StorageError: the ledger contradicts itself.
    """
    size = ROW_GROUP_ROWS[layout.layout]
    totals = []
    with path.open("wb") as file:
        digesting = _Digesting(file)
        with pq.ParquetWriter(
            digesting, schema, version="2.6", compression="zstd", write_page_checksum=True
        ) as writer:
            for table in _regrouped(tables(ledger, layout, start, stop), size, schema):
                writer.write_table(table, row_group_size=size)
                totals.append(totals_of(table))
    return Rendered(digesting.digest.hexdigest(), totals)


def _regrouped(pieces: Iterable[pa.Table], size: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """
    Cut *pieces* anew into tables of exactly *size* rows, but for the last.
    """
    held, rows = [schema.empty_table()], 0
    for piece in pieces:
        held.append(piece if piece.schema.equals(schema) else piece.cast(schema))
        rows += piece.num_rows
        if rows >= size:
            whole = pa.concat_tables(held)
            cuts = range(0, rows - size + 1, size)
            yield from (whole.slice(at, size).combine_chunks() for at in cuts)
            held, rows = [whole.slice(cuts[-1] + size)], rows % size
    if rows:
        yield pa.concat_tables(held).combine_chunks()


def schema_of(carried: bytes, layout: Layout) -> pa.Schema:
    """
    The schema of every part of a job, from any of its packed blocks.
    """
    block = blocks.opened(carried).slice(0, 0)
    none = _digests(block, b"")
    return _LAYOUTS[layout.layout](block, _in_order(block, 0, []), {}, none).schema


# --- proof ----------------------------------------------------------------------------------------

Totals = tuple[int, tuple[float | None, ...]]
"""The rows of a row group, and for each leaf column its sum (of lengths, where it is text)."""


def totals_of(table: pa.Table) -> Totals:
    """
    What the columns of one row group add up to: the same before and after the disk.
    """
    return table.num_rows, tuple(
        total for column in table.columns for total in _leaf_totals(column.combine_chunks())
    )


def _leaf_totals(column: pa.Array) -> Iterator[float | None]:
    kind = column.type
    if pa.types.is_float16(kind):
        yield pc.sum(column.cast(pa.float32())).as_py()  # of which pyarrow has no sum
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _leaf_totals(child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield pc.sum(pc.list_value_length(column)).as_py()
        yield from _leaf_totals(column.flatten())
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield pc.sum(column).as_py()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield pc.sum(pc.binary_length(column)).as_py()
    else:
        yield float(column.null_count)


def prove(path: Path, expected: Rendered) -> None:
    """
    Read a part back: its bytes are those that were written, and a reader finds the rows in them.

    Raises:
        StorageError: it cannot be read whole, or holds something else than was written.
    """
    try:
        if sha256_of(path) != expected.sha256:
            raise StorageError(f"{path} was written and reads back as other bytes")
        found = list(_read_totals(path))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"{path} was written and cannot be read: {error}") from error
    if [repr(totals) for totals in found] != [repr(totals) for totals in expected.totals]:
        raise StorageError(f"{path} was written and reads back as something else")


def _read_totals(path: Path) -> Iterator[Totals]:
    with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
        for number in range(file.num_row_groups):
            yield totals_of(file.read_row_group(number, use_threads=False))


def sha256_of(path: Path) -> str:
    """
    The hex SHA-256 of a file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
