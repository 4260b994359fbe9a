"""
JSON lines: a row of the output a line, in the job's own layout.

Owns what a value that JSON does not have becomes: days and times are text, as Arrow says them to
the last digit, durations whole numbers of their unit, decimals text, bytes Base64, maps lists of
pairs, and a number that is none is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.types as kinds

from batchrank.store.disk import whole
from batchrank.store.formats.published import Published
from batchrank.store.formats.terms import How, Tally

_ENCODER = msgspec.json.Encoder()


def write_jsonl(published: Published, path: Path, how: How) -> Tally:  # noqa: ARG001 - a format
    """
    Write the rows to *path*.

    Raises:
        StorageError: the disk.
    """
    tally = Tally()
    with whole(path) as file:
        for batch in published.rows():
            columns = [for_json(column).to_pylist() for column in batch.columns]
            names = batch.schema.names
            rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            file.write(_ENCODER.encode_lines(rows))
            tally.rows += batch.num_rows
    return tally


def json_texts(column: pa.Array) -> Sequence[str | None]:
    """
    Each value in JSON, but for those that are null.
    """
    values: list[Any] = for_json(column).to_pylist()
    return [None if value is None else _ENCODER.encode(value).decode() for value in values]


def for_json(column: pa.Array) -> pa.Array:
    """
    *column* with values that JSON, or what Python has for Arrow's, can say.
    """
    target = _json_type(column.type)
    return column if target == column.type else column.cast(target)


def _json_type(kind: pa.DataType) -> pa.DataType:
    if kinds.is_duration(kind):
        return pa.int64()
    if kinds.is_temporal(kind):  # Python's know neither nanoseconds nor the year 10000
        return pa.string()
    if kinds.is_struct(kind):
        return pa.struct([field.with_type(_json_type(field.type)) for field in kind])
    if kinds.is_map(kind):
        return pa.map_(_json_type(kind.key_type), _json_type(kind.item_type))
    if kinds.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(_json_type(kind.value_type)), kind.list_size)
    if kinds.is_list(kind):
        return pa.list_(kind.value_field.with_type(_json_type(kind.value_type)))
    return kind
