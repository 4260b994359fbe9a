"""
What a part needs besides scores: ids and carried columns of a batch, packed as one block.

A block is an Arrow IPC stream (zstd) of one record batch, a row for each group, with these columns:

=============  ====================  ===============================================================
`query_id`     string or int64       as in the source; int64 positions if it is not mapped
`documents`    int32                 how many candidates the group has; 0 where the list is null
`doc_id`       list<string | int64>  only if it is mapped
`g:<name>`     as in the source      a carried column, in the order of `carry`
`c:<name>`     list<as in source>    a carried field of the candidates, in the order of `carry`
`content`      16 bytes              the group's content key; null where nobody has to be asked
`pairs`        list<16 bytes>        only if told: the content key of each pair; null if not sent
=============  ====================  ===============================================================

Every list has exactly `documents` elements and is never null. Types are plain: no dictionaries, no
views, 32-bit offsets. All blocks of a source have the same schema. Text that is not UTF-8 is null
here, and its group has a flaw; where a group has too few or too many ids they are cut or filled up
with null, and the group has a flaw. Never reads a file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from batchrank.policy.digest import DIGEST_BYTES
from batchrank.source.columns import Columns, id_type, is_list, plain

_ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")

_CONTENT = pa.field("content", pa.binary(DIGEST_BYTES))
_PAIRS = pa.field("pairs", pa.list_(pa.binary(DIGEST_BYTES)))


@dataclass(frozen=True, slots=True)
class Lists:
    """
    A list column taken apart: the elements of row n are `starts[n] <= i < starts[n + 1]`.
    """

    starts: Sequence[int]
    values: pa.Array

    def again(self, values: pa.Array) -> pa.ListArray:
        """
        Lists of the same lengths, of other *values*.
        """
        return pa.ListArray.from_arrays(pa.array(self.starts, pa.int32()), values)

    def count(self, row: int) -> int:
        """
        How many elements a row has.
        """
        return self.starts[row + 1] - self.starts[row]


@dataclass(frozen=True, slots=True)
class Block:
    """
    The columns of a block, and by row what is wrong with its group.
    """

    columns: pa.RecordBatch
    flaws: dict[int, str]

    def packed(self) -> bytes:
        """
        The block as bytes; the same columns make the same bytes.
        """
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.columns.schema, options=_ZSTD) as stream:
            stream.write_batch(self.columns)
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow has no types


def plainly(array: pa.Array) -> pa.Array:
    """
    The array in its plain type; the same array if it is plain already.

    Lists are rebuilt by hand: pyarrow's own cast takes list views with nulls apart wrongly.
    """
    kind = array.type
    target = plain(kind)
    if kind == target:
        return array
    if kinds.is_fixed_size_list(kind):
        blank = pa.scalar([None] * kind.list_size, kind)  # flatten leaves out what is null
        values = plainly(array.fill_null(blank).flatten())
        return pa.FixedSizeListArray.from_arrays(values, kind.list_size, mask=array.is_null())
    if is_list(kind):
        lists = taken_apart(array)
        starts = pa.array(lists.starts, pa.int32())
        return pa.ListArray.from_arrays(starts, lists.values, mask=array.is_null())
    if kinds.is_struct(kind):
        children = [plainly(child) for child in array.flatten()]
        return pa.StructArray.from_arrays(children, fields=list(target), mask=array.is_null())
    return array.cast(target)


def taken_apart(array: pa.Array) -> Lists:
    """
    A list column of any kind and its elements in plain types, null lists as empty ones.
    """
    lengths = (length or 0 for length in pc.list_value_length(array).to_pylist())
    return Lists(list(accumulate(lengths, initial=0)), plainly(pc.list_flatten(array)))


def fields_of(documents: pa.Array) -> dict[str, pa.Array]:
    """
    The fields of struct documents, null where the struct is.
    """
    names = [field.name for field in documents.type]
    return dict(zip(names, documents.flatten(), strict=True))


def schema_of(columns: Columns) -> pa.Schema:
    """
    The schema of every block, down to the names that lists give to their elements.
    """
    schema = _schema_of(columns).append(_CONTENT)
    return schema.append(_PAIRS) if columns.pairs else schema


def _schema_of(columns: Columns) -> pa.Schema:
    query_id = columns.table.query_id
    schema = [
        ("query_id", id_type(columns.types[query_id,]) if query_id else pa.int64()),
        ("documents", pa.int32()),
    ]
    if columns.doc_id_type:
        schema.append(("doc_id", pa.list_(id_type(columns.doc_id_type))))
    schema += [(f"g:{name}", columns.types[name,]) for name in columns.carried_columns]
    schema += [(f"c:{name}", pa.list_(columns.of_field(name))) for name in columns.carried_fields]
    return pa.schema(schema)


NOTHING_MAPPED = pa.schema([("query_id", pa.string()), ("documents", pa.int32()), _CONTENT])
"""The schema of a source without a file: nothing says what its columns would be."""


def no_rows(schema: pa.Schema) -> bytes:
    """
    A block of no groups, for whoever needs to know what the columns are.
    """
    return Block(pa.RecordBatch.from_pylist([], schema=schema), {}).packed()


def block(position: int, batch: pa.RecordBatch, columns: Columns, documents: Lists) -> Block:
    """
    Make the block of *batch*, whose first group stands at *position*, but for the content keys.
    """
    return _Building(position, batch, columns, documents).block()


def with_contents(
    made: Block,
    keys: Sequence[bytes | None],
    pairs: Sequence[Sequence[bytes | None]] | None,
) -> Block:
    """
    The block with the content keys of its groups, and of their pairs if told: it is whole now.
    """
    columns = made.columns.append_column(_CONTENT, pa.array(keys, _CONTENT.type))
    if pairs is not None:
        columns = columns.append_column(_PAIRS, pa.array(pairs, _PAIRS.type))
    return Block(columns, made.flaws)


class _Building:
    """
    A block on its way: columns and flaws as they are found.
    """

    def __init__(
        self, position: int, batch: pa.RecordBatch, columns: Columns, documents: Lists
    ) -> None:
        self.batch = batch
        self.columns = columns
        self.documents = documents
        self.position = position
        self.flaws: dict[int, str] = {}
        self.arrays: dict[str, pa.Array] = {}

    def block(self) -> Block:
        columns, documents, schema = self.columns, self.documents, _schema_of(self.columns)
        fields = fields_of(documents.values) if columns.structs else {}
        self.arrays["query_id"] = self._query_ids()
        counts = [documents.count(row) for row in range(self.batch.num_rows)]
        self.arrays["documents"] = pa.array(counts, pa.int32())
        if (name := columns.table.doc_id) is not None:
            values = fields[name] if columns.structs else self._beside(name)
            self.arrays["doc_id"] = self._children(name, values.cast(id_type(values.type)))
        for name in columns.carried_columns:
            values, bad = sound(plainly(self.batch.column(name)))
            self.arrays[f"g:{name}"] = values
            self._find_fault(name, bad)
        for name in columns.carried_fields:
            self.arrays[f"c:{name}"] = self._children(name, fields[name])
        arrays = [self.arrays[field.name] for field in schema]
        return Block(pa.RecordBatch.from_arrays(arrays, schema=schema), self.flaws)

    def _query_ids(self) -> pa.Array:
        name = self.columns.table.query_id
        rows = self.batch.num_rows
        if name is None:
            return pa.array(range(self.position, self.position + rows), pa.int64())
        values = plainly(self.batch.column(name))
        ids, bad = sound(values.cast(id_type(values.type)))
        self._find_fault(name, bad)
        if ids.null_count:
            for row in (row for row in range(rows) if not ids[row].is_valid):
                self.flaws.setdefault(row, f"{name} is null")
        return ids

    def _beside(self, name: str) -> pa.Array:
        """
        The ids that stand in a list of their own, made to fit the documents.
        """
        ids, documents = taken_apart(self.batch.column(name)), self.documents
        if ids.starts == documents.starts:
            return ids.values
        for row in range(self.batch.num_rows):
            held, wanted = ids.count(row), documents.count(row)
            if held != wanted:
                self.flaws.setdefault(row, f"{name} has {held} ids for {wanted} documents")
        return ids.values.take(pa.array(_fitted(ids, documents), pa.int64()))

    def _children(self, name: str, values: pa.Array) -> pa.ListArray:
        values, bad = sound(values)
        starts = self.documents.starts
        self._find_fault(name, [bisect_right(starts, index) - 1 for index in bad])
        return self.documents.again(values)

    def _find_fault(self, name: str, rows: Sequence[int]) -> None:
        for row in rows:
            self.flaws.setdefault(row, f"{name} holds text that is not UTF-8")


def _fitted(ids: Lists, documents: Lists) -> list[int | None]:
    """
    For each document the place of its id, None where there is none.
    """

    def places(row: int) -> Iterator[int | None]:
        start, held = ids.starts[row], ids.count(row)
        return (start + n if n < held else None for n in range(documents.count(row)))

    return list(chain.from_iterable(places(row) for row in range(len(documents.starts) - 1)))


def sound(array: pa.Array) -> tuple[pa.Array, list[int]]:
    """
    The array with null for what is not valid (text that is not UTF-8), and where that was.
    """
    if is_sound(array):
        return array, []
    bad = [row for row in range(len(array)) if not is_sound(array.take(pa.array([row])))]
    held = set(bad)
    rows = [None if row in held else row for row in range(len(array))]
    return array.take(pa.array(rows, pa.int64())), bad


def is_sound(array: pa.Array) -> bool:
    """
    Tell whether everything in it is valid: of texts, that they are UTF-8.
    """
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
