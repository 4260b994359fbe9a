"""
What rows hold, as one digest: of values in their order, however they are cut into batches.

For sources that nobody can look at from outside, such as a PostgreSQL: they are known by what they
gave. Owns that pyarrow's version, its buffers and Parquet's encoding make no difference.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


class Content:
    """
    A running digest of rows; *size_bytes* is what has been digested so far.
    """

    def __init__(self) -> None:
        self._columns: dict[tuple[str, ...], Any] = {}
        self.size_bytes = 0

    def add(self, rows: pa.Table) -> None:
        """
        Take the next rows.
        """
        for name, column in zip(rows.column_names, rows.columns, strict=True):
            for chunk in column.chunks:
                self._array((name,), chunk)

    def hex(self) -> str:
        """
        The digest of all rows so far.
        """
        whole = hashlib.sha256()
        for name in sorted(self._columns):
            whole.update(repr(name).encode() + self._columns[name].digest())
        return whole.hexdigest()

    def _array(self, path: tuple[str, ...], array: pa.Array) -> None:
        """
        Digest which values there are, and then those.
        """
        kind = array.type
        self._feed((*path, "there"), _bytes(array.is_valid().cast(pa.uint8())))
        there = array.drop_null()
        if pa.types.is_struct(kind):
            for place, child in enumerate(there.flatten()):
                self._array((*path, "field", kind.field(place).name), child)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            self._feed((*path, "lengths"), _bytes(pc.list_value_length(there).cast(pa.int64())))
            self._array((*path, "values"), there.flatten())
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self._feed((*path, "lengths"), _bytes(pc.binary_length(there).cast(pa.int64())))
            self._feed((*path, "text"), _text(there.cast(pa.large_string())))
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self._feed((*path, str(kind)), _bytes(there))
        else:  # rare among what is carried: dates, decimals, maps
            written = "".join(f"{value!r}\n" for value in there.to_pylist())
            self._feed((*path, str(kind)), written.encode("utf-8", "surrogatepass"))

    def _feed(self, path: tuple[str, ...], held: bytes | memoryview) -> None:
        self._columns.setdefault(path, hashlib.sha256()).update(held)
        self.size_bytes += len(held)


def _bytes(array: pa.Array) -> memoryview:
    """
    The values of an array without nulls, as they lie in memory.
    """
    width = array.type.bit_width // 8
    start = array.offset * width
    return memoryview(array.buffers()[1])[start : start + len(array) * width]


def _text(array: pa.Array) -> memoryview | bytes:
    """
    All characters of an array of texts without nulls.
    """
    _, offsets, values = array.buffers()
    if not len(array) or values is None:
        return b""
    places = memoryview(offsets).cast("q")
    return memoryview(values)[places[array.offset] : places[array.offset + len(array)]]
