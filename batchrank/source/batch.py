"""
Some consecutive groups as Arrow holds them; Python strings are made group by group.

Owns how a row becomes a `Group`, and what in a row makes it a flawed one. Never reads a file: what
cannot be decoded has been found before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.types as kinds

from batchrank.domain import Document, Group, RichDocument
from batchrank.source.carried import Lists, block, fields_of, plainly, taken_apart
from batchrank.source.columns import Columns, is_list, is_number
from batchrank.source.texts import Yaml, is_blank

T = TypeVar("T")

NO_QUERY_ID = {"string": "", "int64": -1}
"""What stands for a `query_id` that is null, by the ids' type; such a group is flawed."""


class _Flaw(Exception):
    """
    The group at hand cannot be asked; the message becomes its flaw.
    """


class Batch:
    """
    The groups `position <= p < position + rows`.
    """

    def __init__(self, position: int, columns: Columns, batch: pa.RecordBatch) -> None:
        table = columns.table
        self.position = position
        self.rows: int = batch.num_rows
        self._columns = columns
        self._documents = taken_apart(batch.column(table.documents))
        self._block = block(position, batch, columns, self._documents)
        self._queries = plainly(batch.column(table.query))
        self._ids = self._block.columns.column("query_id")
        self._doc_ids = self._spotty_ids()
        self._texts, self._images = _read_out(columns, self._documents)

    @property
    def carried(self) -> bytes:
        """
        Ids and carried columns, packed anew each time as `carried` describes.
        """
        return self._block.packed()

    def group(self, position: int) -> Group:
        """
        Build the group at *position*.
        """
        row = position - self.position
        if not 0 <= row < self.rows:
            raise IndexError(position)
        query_id = self._ids[row].as_py()
        if query_id is None:
            query_id = NO_QUERY_ID[str(self._ids.type)]
        flaw = self._block.flaws.get(row)
        if flaw is None:
            try:
                return Group(position, query_id, self._query(row), self._group_documents(row))
            except _Flaw as found:
                flaw = str(found)
        return Group(position, query_id, "", (None,) * self._documents.count(row), flaw)

    def _spotty_ids(self) -> pa.ListArray | None:
        """
        The `doc_id`s if some are null, else nothing: then nobody has to look.
        """
        if self._columns.table.doc_id is None:
            return None
        ids = self._block.columns.column("doc_id")
        return ids if ids.values.null_count else None

    def _query(self, row: int) -> str:
        name = self._columns.table.query
        return _spoken(name, self._queries[row].as_py) or ""

    def _group_documents(self, row: int) -> tuple[Document | None, ...]:
        start, count = self._documents.starts[row], self._documents.count(row)
        if not count:
            return ()
        rule = self._columns.rule
        if self._texts:
            texts = rule.texts([_values(name, a, start, count) for name, a in self._texts])
        else:
            texts = [None] * count
        documents: Sequence[Document | None] = texts
        if self._images is not None:
            images = _values(*self._images, start, count)
            documents = list(map(_document, texts, images))
        self._check_ids(row, documents)
        return tuple(documents)

    def _check_ids(self, row: int, documents: Sequence[Document | None]) -> None:
        """
        Whatever is sent needs an id; what is not sent may have none.
        """
        if self._doc_ids is None:
            return
        for index, (doc_id, document) in enumerate(zip(self._doc_ids[row], documents, strict=True)):
            if document is not None and not doc_id.is_valid:
                raise _Flaw(f"the document at index {index} has no {self._columns.table.doc_id}")


def _document(text: str | None, image: object) -> Document | None:
    return text if is_blank(image) else RichDocument(text, str(image))


Named = tuple[str, pa.Array]


def _read_out(columns: Columns, documents: Lists) -> tuple[list[Named], Named | None]:
    """
    The arrays that texts are made of, and the array of images.
    """
    if not columns.structs:
        return [(columns.table.documents, documents.values)], None
    fields = fields_of(documents.values)
    worded = _for_yaml if isinstance(columns.rule, Yaml) else _as_text
    image = columns.table.image
    texts = [(name, worded(fields[name])) for name in columns.rule.fields]
    return texts, (image, fields[image]) if image else None


def _as_text(array: pa.Array) -> pa.Array:
    return array if kinds.is_string(array.type) else array.cast(pa.string())


def _for_yaml(array: pa.Array) -> pa.Array:
    """
    Values that YAML has words for: dates and decimals as text, short floats by their short names.
    """
    kind = array.type
    if kinds.is_float32(kind) or kinds.is_float16(kind):
        return array.cast(pa.string()).cast(pa.float64())
    if is_list(kind) or kinds.is_struct(kind) or is_number(kind):
        return array
    return _as_text(array)


def _values(name: str, array: pa.Array, start: int, count: int) -> list[object | None]:
    values = array.slice(start, count)
    try:
        return values.to_pylist()  # type: ignore[no-any-return] # pyarrow has no types
    except UnicodeDecodeError:
        for index in range(count):
            _spoken(f"{name} at index {index}", values[index].as_py)
        raise


def _spoken(what: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except UnicodeDecodeError as error:
        raise _Flaw(f"{what} is not UTF-8") from error
