"""
Some consecutive groups as Arrow holds them; Python strings are made a few groups at a time.

Owns how a row becomes a `Group`, what in its ids makes it a flawed one, and which groups have a
content key. Never reads a file: what cannot be decoded has been found before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from batchrank.domain import Document, Group, SourceBatch
from batchrank.policy.digest import content_of, pairs_of
from batchrank.policy.slicing import firsts, without_call
from batchrank.source.carried import block, plainly, taken_apart, with_contents
from batchrank.source.columns import Columns
from batchrank.source.rows import Flaw, Quick, reader

NO_QUERY_ID: Mapping[str, str | int] = {"string": "", "int64": -1}
"""What stands for a `query_id` that is null, by the ids' type; such a group is flawed."""


class Batch:
    """
    The groups `position <= p < position + rows`.
    """

    def __init__(self, position: int, columns: Columns, batch: pa.RecordBatch) -> None:
        table = columns.table
        documents = taken_apart(batch.column(table.documents))
        self.position = position
        self.rows: int = batch.num_rows
        self._columns = columns
        self._once = table.dedupe_documents
        self._starts = documents.starts
        self._block = block(position, batch, columns, documents)
        self._flaws = self._block.flaws
        self._ids = _query_ids(self._block.columns.column("query_id"))
        self._doc_ids = self._spotty_ids()
        reading = reader(columns, plainly(batch.column(table.query)), documents)
        self._asked = reading.asked
        # Here, where nobody waits for it, and not when the block is packed.
        self._contents = self._keys(reading if isinstance(reading, Quick) else None)
        self._pairs = [*self._pair_keys()] if columns.pairs else None

    @property
    def carried(self) -> bytes:
        """
        Ids and carried columns, packed anew each time as `carried` describes.
        """
        return with_contents(self._block, self._contents, self._pairs).packed()

    def group(self, position: int) -> Group:
        """
        Build the group at *position*; quickest in their order.
        """
        row = position - self.position
        if not 0 <= row < self.rows:
            raise IndexError(position)
        flaw = self._flaws.get(row)
        if flaw is None:
            try:
                query, documents, cut = self._asked(row)
                if self._doc_ids is not None:
                    self._check_ids(self._doc_ids[row], documents)
                places = firsts(documents) if self._once else ()
                return Group(position, self._ids[row], query, documents, None, places, cut)
            except Flaw as found:
                flaw = str(found)
        count = self._starts[row + 1] - self._starts[row]
        return Group(position, self._ids[row], "", (None,) * count, flaw)

    def _keys(self, quick: Quick | None) -> list[bytes | None]:
        cut = self._columns.table.max_chars is not None
        if quick is None or cut or self._doc_ids is not None:
            return [self._key(self.position + row) for row in range(self.rows)]
        keys = list(quick.contents())
        for row in self._flaws:
            keys[row] = None
        return keys

    def _key(self, position: int) -> bytes | None:
        group = self.group(position)
        return None if without_call(group) else content_of(group.query, group.documents)

    def _pair_keys(self) -> Iterator[list[bytes | None]]:
        for row, content in enumerate(self._contents):
            if content is None:
                yield [None] * (self._starts[row + 1] - self._starts[row])
            else:
                group = self.group(self.position + row)
                yield pairs_of(group.query, group.documents)

    def _spotty_ids(self) -> pa.ListArray | None:
        """
        The `doc_id`s if some are null, else nothing: then nobody has to look.
        """
        if self._columns.table.doc_id is None:
            return None
        ids = self._block.columns.column("doc_id")
        return ids if ids.values.null_count else None

    def _check_ids(self, ids: pa.ListScalar, documents: Sequence[Document | None]) -> None:
        """
        Whatever is sent needs an id; what is not sent may have none.
        """
        for index, (doc_id, document) in enumerate(zip(ids, documents, strict=True)):
            if document is not None and not doc_id.is_valid:
                raise Flaw(f"the document at index {index} has no {self._columns.table.doc_id}")


def _query_ids(ids: pa.Array) -> list[str | int]:
    missing = NO_QUERY_ID[str(ids.type)]
    return [missing if query_id is None else query_id for query_id in ids.to_pylist()]


class Altered:
    """
    A batch whose groups are other than its file says: *alter* makes them of those that are there.
    """

    def __init__(self, inner: SourceBatch, alter: Callable[[Group], Group]) -> None:
        self._inner = inner
        self._alter = alter
        self.position = inner.position
        self.rows = inner.rows

    @property
    def carried(self) -> bytes:
        """
        As that of the batch.
        """
        return self._inner.carried

    def group(self, position: int) -> Group:
        """
        As that of the batch, altered.
        """
        return self._alter(self._inner.group(position))
