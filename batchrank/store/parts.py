"""
From ledger rows to one Parquet file: what a part holds, and proof that it can be read.

Owns the layouts, ranks, and everything that makes a part a pure function of input, settings,
accepted replies and pyarrow's version: fixed row groups, source order, ties kept, no time of day.
Publishes nothing (`output` does) and calls nobody: rendering a part again is always free.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrank.domain import Served
from batchrank.errors import StorageError
from batchrank.store import blocks
from batchrank.store.reading import LedgerReader, RankedRow
from batchrank.store.tables import unpack_scores, unpack_shares

PYARROW: str = pa.__version__
"""Who writes the parts: another version may write other bytes for the same rows."""

ROW_GROUP_ROWS = {"candidates": 65_536, "groups": 2_048}
"""Every row group but a part's last has exactly so many rows, each written by one call."""


@dataclass(frozen=True, slots=True)
class Layout:
    """
    The settings that shape parts and no score.
    """

    layout: Literal["candidates", "groups"] = "candidates"
    top_n: int | None = None
    part_groups: int = 10_000


# --- one block of groups --------------------------------------------------------------------------


@dataclass(slots=True)
class _Rows:
    """
    Columns of candidates in output order. *parents* are rows of the block, *children* places in
    its flattened lists.
    """

    parents: array[int] = field(default_factory=lambda: array("q"))
    children: array[int] = field(default_factory=lambda: array("q"))
    indices: array[int] = field(default_factory=lambda: array("i"))
    ranks: list[int | None] = field(default_factory=list)
    scores: list[float | None] = field(default_factory=list)
    served: list[int | None] = field(default_factory=list)
    groups: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("i"))


def ranking(scores: Sequence[float], top_n: int | None) -> list[tuple[int, int | None]]:
    """
    Pairs of (index, rank) from the best: ties keep source order, what has no score comes last.

    With *top_n* only so many are kept, and nothing without a score.
    """
    scored = [index for index, score in enumerate(scores) if not math.isnan(score)]
    order = sorted(scored, key=scores.__getitem__, reverse=True)
    ranked: list[tuple[int, int | None]] = [(index, n) for n, index in enumerate(order[:top_n], 1)]
    if top_n is None and len(scored) < len(scores):
        ranked += [(index, None) for index, score in enumerate(scores) if math.isnan(score)]
    return ranked


def _collect(
    block: pa.RecordBatch, first: int, ranked: Iterable[RankedRow], top_n: int | None
) -> _Rows:
    rows = _Rows()
    counts = block.column("documents").to_pylist()
    starts = _starts(counts)
    for row in ranked:
        place = row.position - first
        scores = unpack_scores(row.scores)
        if len(scores) != counts[place]:
            raise StorageError(
                f"group {row.position} has {counts[place]} candidates and {len(scores)} scores",
                "the ledger is damaged: do not use this output; begin anew with --restart",
            )
        _add(rows, place, starts[place], scores, row, top_n)
    return rows


def _starts(counts: Sequence[int]) -> list[int]:
    starts, at = [], 0
    for count in counts:
        starts.append(at)
        at += count
    return starts


def _add(
    rows: _Rows, place: int, start: int, scores: array[float], row: RankedRow, top_n: int | None
) -> None:
    ranked = ranking(scores, top_n)
    rows.groups.append(place)
    for index, rank in ranked:
        rows.parents.append(place)
        rows.children.append(start + index)
        rows.indices.append(index)
        rows.ranks.append(rank)
        rows.scores.append(None if rank is None else scores[index])
    rows.served += _served_by(row, [index for index, _ in ranked])
    rows.ends.append(len(rows.ranks))


def _served_by(row: RankedRow, indices: Sequence[int]) -> list[int | None]:
    if row.shares is None:
        return [row.served] * len(indices)
    shares = unpack_shares(row.shares)
    return [next(served for stop, served in shares if index < stop) for index in indices]


# --- layouts --------------------------------------------------------------------------------------


def _columns(block: pa.RecordBatch, rows: _Rows, who: dict[int, Served]) -> dict[str, pa.Array]:
    """
    Everything that is known of each candidate, by output column.
    """
    parents, children = pa.array(rows.parents, pa.int64()), pa.array(rows.children, pa.int64())
    ids = sorted(who)
    places = {number: place for place, number in enumerate(ids)}
    served = pa.array([None if n is None else places[n] for n in rows.served], pa.int32())
    models = pa.array([who[n].model for n in ids], pa.string())
    providers = pa.array([who[n].provider for n in ids], pa.string())
    names = block.schema.names
    columns = {
        "query_id": block.column("query_id").take(parents),
        "doc_id": block.column("doc_id").flatten().take(children)
        if "doc_id" in names
        else pa.nulls(len(children), pa.string()),
        "index": pa.array(rows.indices, pa.int32()),
        "rank": pa.array(rows.ranks, pa.int32()),
        "relevance_score": pa.array(rows.scores, pa.float64()),
        "model": models.take(served),
        "provider": providers.take(served),
    }
    for name in names:
        if name.startswith("g:"):
            columns[name[2:]] = block.column(name).take(parents)
        elif name.startswith("c:"):
            columns[name[2:]] = block.column(name).flatten().take(children)
    return columns


def _as_candidates(block: pa.RecordBatch, rows: _Rows, who: dict[int, Served]) -> pa.Table:
    return pa.table(_columns(block, rows, who))


def _as_groups(block: pa.RecordBatch, rows: _Rows, who: dict[int, Served]) -> pa.Table:
    columns = _columns(block, rows, who)
    nested = ["doc_id", "index", "rank", "relevance_score", "model", "provider"]
    nested += [name[2:] for name in block.schema.names if name.startswith("c:")]
    results = pa.StructArray.from_arrays([columns[name] for name in nested], names=nested)
    groups = pa.array(rows.groups, pa.int64())
    ends = pa.array([0, *rows.ends], pa.int32())
    table = {"query_id": block.column("query_id").take(groups)}
    for name in block.schema.names:
        if name.startswith("g:"):
            table[name[2:]] = block.column(name).take(groups)
    table["results"] = pa.ListArray.from_arrays(ends, results)
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
    reached = start
    for position, rows, body in ledger.carried(start, stop):
        end = min(position + rows, stop)
        if end <= reached:
            continue
        if position > reached and ledger.count_ranked(reached, position):
            break
        block = blocks.opened(body)
        ranked = ledger.ranked(max(position, reached), end)
        collected = _collect(block, position, ranked, layout.top_n)
        yield _LAYOUTS[layout.layout](block, collected, who)
        reached = end
    if reached < stop and ledger.count_ranked(reached, stop):
        raise StorageError(
            f"the ledger lacks the ids of groups {reached} to {stop - 1}",
            "it is damaged: begin anew with --restart, and report this",
        )


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
    held = schema.empty_table()
    for piece in pieces:
        held = pa.concat_tables([held, piece.cast(schema)])
        while held.num_rows >= size:
            yield held.slice(0, size).combine_chunks()
            held = held.slice(size)
    if held.num_rows:
        yield held.combine_chunks()


def schema_of(carried: bytes, layout: Layout) -> pa.Schema:
    """
    The schema of every part of a job, from any of its packed blocks.
    """
    block = blocks.opened(carried).slice(0, 0)
    return _LAYOUTS[layout.layout](block, _Rows(), {}).schema


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
