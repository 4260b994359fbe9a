"""
What a row asks: a query and its documents, as Python's strings.

Owns two ways from Arrow to strings which find the same. `Quick` takes some rows at once, of texts
that Arrow itself can make, all of them UTF-8. `Careful` goes group by group, by any rule, and says
of a text that is not UTF-8 where it stands. Knows no ids, and never reads a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from itertools import pairwise, repeat
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from batchrank.config.braces import pieces
from batchrank.domain import Document, RichDocument
from batchrank.policy.digest import DIGEST_BYTES, HEAD, NOT_SENT, head_of
from batchrank.source.carried import Lists, fields_of, is_sound
from batchrank.source.columns import Columns, is_list, is_number
from batchrank.source.texts import Template, TextRule, Yaml, is_blank, shortened

T = TypeVar("T")

PORTION_BYTES_MAX = 256 * 1024
"""Of Arrow's memory that becomes strings at once, unless a single group has more.

A call to pyarrow costs as much as 40 texts, so groups share it. A whole batch would share it too,
but where texts are short, or a single emoji is in each, its strings take many times its 4 MiB."""

FILLED_BYTES_MAX = 8 * 1024 * 1024
"""Of texts that a template makes of a batch at once; the batch itself has about 4 MiB."""

HELD_BYTES, HELD_PIECES = 2047, 8
"""
From 2,048 bytes on hashlib lets go of the interpreter's lock. To get it back from a busy event loop
takes longer than to digest some thousands, and costs the loop a switch between threads, too.
"""

_NULL = pa.scalar(None, pa.string())

Asked = tuple[str, tuple[Document | None, ...], int]
"""The query of a row, empty if it is null, its documents, and how many of them were cut."""


class Flaw(Exception):
    """
    The group at hand cannot be asked; the message becomes its flaw.
    """


def reader(columns: Columns, queries: pa.Array, documents: Lists) -> Quick | Careful:
    """
    The quickest way that can read these rows.
    """
    texts, images = _read_out(columns, documents)
    made = None if images else _made(columns.rule, dict(texts))
    if made is None or not is_sound(queries):
        return Careful(columns, queries, documents.starts, texts, images)
    longer: Sequence[int] = ()
    if columns.table.max_chars is not None:
        made, longer = cut(made, documents.starts, columns.table.max_chars)
    return Quick(queries, documents.starts, made, longer=longer)


def _made(rule: TextRule, fields: Mapping[str, pa.Array]) -> pa.Array | None:
    """
    The documents' texts, null where there is nothing to send; None if Arrow cannot make them.
    """
    if isinstance(rule, Yaml) or not all(map(is_sound, fields.values())):
        return None
    if isinstance(rule, Template):
        return filled(rule, fields)
    (texts,) = fields.values()
    return without_blanks(texts)


# --- quick ----------------------------------------------------------------------------------------


class Quick:
    """
    Rows of which each document is one of *texts*, null if it is not sent; a portion of them is held
    as strings. *longer* says by row how many were cut; empty if none was.
    """

    def __init__(
        self,
        queries: pa.Array,
        starts: Sequence[int],
        texts: pa.Array,
        portion_bytes_max: int = PORTION_BYTES_MAX,
        longer: Sequence[int] = (),
    ) -> None:
        self._queries = queries.fill_null("")
        self._starts = starts
        self._texts = texts
        self._longer = longer
        self._portion_bytes_max = portion_bytes_max
        nbytes = self._queries.nbytes + self._texts.nbytes
        self._rows_at_once = max(1, portion_bytes_max * len(queries) // max(1, nbytes))
        self._start = self._stop = 0
        self._portion: list[Asked] = []

    def asked(self, row: int) -> Asked:
        """
        What a row asks; rows are quick in their order, and right in any.
        """
        if not self._start <= row < self._stop:
            self._read(row, min(row + self._rows_at_once, len(self._queries)))
        return self._portion[row - self._start]

    def contents(self) -> Iterator[bytes | None]:
        """
        What `content_of` makes of each row, None where nobody has to be asked.

        No string is made for it: the texts of a row lie side by side in Arrow's memory.
        """
        begun = sha256(HEAD)
        lengths = pc.fill_null(pc.binary_length(self._texts), NOT_SENT).cast(pa.int64())
        numbers = _memory(lengths, 1)[8 * lengths.offset :]
        ends, texts = _flat(self._texts)
        query_ends, queries = _flat(self._queries)
        asks = pc.invert(_blank(self._queries)).to_pylist()
        sent = [0, *pc.cumulative_sum(self._texts.is_valid().cast(pa.int64())).to_pylist()]
        for row, (start, stop) in enumerate(pairwise(self._starts)):
            if not asks[row] or sent[start] == sent[stop]:
                yield None
                continue
            query = queries[query_ends[row] : query_ends[row + 1]]
            digesting = begun.copy()
            digesting.update(head_of(stop - start, len(query)))
            digesting.update(query)
            digesting.update(numbers[8 * start : 8 * stop])
            for piece in _pieces(texts[ends[start] : ends[stop]]):
                digesting.update(piece)
            yield digesting.digest()[:DIGEST_BYTES]

    def _read(self, start: int, stop: int) -> None:
        queries, texts = self._slices(start, stop)
        if queries.nbytes + texts.nbytes > 2 * self._portion_bytes_max:
            stop = start + 1  # far more than the mean foretold
            queries, texts = self._slices(start, stop)
        held = tuple(texts.to_pylist())
        first = self._starts[start]
        cuts = pairwise(self._starts[start : stop + 1])
        documents = [held[cut - first : end - first] for cut, end in cuts]
        longer = self._longer[start:stop] if self._longer else repeat(0, stop - start)
        self._portion = list(zip(queries.to_pylist(), documents, longer, strict=True))
        self._start, self._stop = start, stop

    def _slices(self, start: int, stop: int) -> tuple[pa.Array, pa.Array]:
        first = self._starts[start]
        texts = self._texts.slice(first, self._starts[stop] - first)
        return self._queries.slice(start, stop - start), texts


def _pieces(texts: memoryview) -> Iterator[memoryview]:
    """
    Texts in pieces so small that hashlib keeps the interpreter's lock, if there are not too many.
    """
    size = HELD_BYTES if len(texts) < HELD_BYTES * HELD_PIECES else len(texts)
    for at in range(0, len(texts), size):
        yield texts[at : at + size]


def _flat(texts: pa.Array) -> tuple[memoryview, memoryview]:
    """
    Where each text begins and ends, and the bytes of all; a text that is null has none.
    """
    texts = texts.fill_null("")
    starts = _memory(texts, 1).cast("i")
    return starts[texts.offset :], _memory(texts, 2)


def _memory(array: pa.Array, number: int) -> memoryview:
    return memoryview(array.buffers()[number] or b"\0" * 4)


def without_blanks(texts: pa.Array) -> pa.Array:
    """
    The texts, which are UTF-8, with null for each that `is_blank`; the same array if none is.
    """
    blank = _blank(texts)
    return pc.if_else(blank, _NULL, texts) if blank.true_count else texts


def cut(texts: pa.Array, starts: Sequence[int], chars_max: int) -> tuple[pa.Array, Sequence[int]]:
    """
    The texts, none of them blank, as `shortened` makes them; and how many were longer by row, or
    nothing if none was.
    """
    long = pc.fill_null(pc.greater(pc.utf8_length(texts), chars_max), False)
    if not long.true_count:
        return texts, ()
    before = [0, *pc.cumulative_sum(long.cast(pa.int64())).to_pylist()]
    beginnings = pc.utf8_slice_codeunits(texts, 0, chars_max)  # that is what Arrow calls characters
    return without_blanks(beginnings), [before[end] - before[at] for at, end in pairwise(starts)]


def filled(rule: Template, fields: Mapping[str, pa.Array]) -> pa.Array | None:
    """
    What `rule.texts` makes of *fields*, which are UTF-8, if it is at most `FILLED_BYTES_MAX`.
    """
    words: list[pa.Array | str] = []
    for literal, name, _ in pieces(rule.form):
        words += [literal] if name is None else [literal, fields[name]]
    blank = reduce(pc.and_, (pc.fill_null(_blank(texts), True) for texts in fields.values()))
    sizes = (len(w.encode()) * len(blank) if isinstance(w, str) else w.nbytes for w in words)
    if sum(sizes) > FILLED_BYTES_MAX:
        return None
    nothing = {"null_handling": "replace", "null_replacement": ""}
    joined = pc.binary_join_element_wise(*words, "", **nothing)  # the last one stands between
    return pc.if_else(blank, _NULL, joined) if blank.true_count else joined


def _blank(texts: pa.Array) -> pa.BooleanArray:
    """
    Which texts are blank, null for null.

    Arrow finds white space as `str.isspace` does, and leaves the interpreter to other threads.
    """
    return pc.or_(pc.utf8_is_space(texts), pc.equal(pc.binary_length(texts), 0))


# --- careful --------------------------------------------------------------------------------------

Named = tuple[str, pa.Array]


class Careful:
    """
    Rows of which each document is made of the fields *texts*, and perhaps has one of *images*.
    """

    def __init__(
        self,
        columns: Columns,
        queries: pa.Array,
        starts: Sequence[int],
        texts: Sequence[Named],
        images: Named | None,
    ) -> None:
        self._name = columns.table.query
        self._rule = columns.rule
        self._chars_max = columns.table.max_chars
        self._queries = queries
        self._starts = starts
        self._texts = texts
        self._images = images

    def asked(self, row: int) -> Asked:
        """
        What a row asks.

        Raises:
            Flaw: a text of it is not UTF-8.
        """
        query = _spoken(self._name, self._queries[row].as_py) or ""
        start, stop = self._starts[row], self._starts[row + 1]
        return query, *self._documents(start, stop - start)

    def _documents(self, start: int, count: int) -> tuple[tuple[Document | None, ...], int]:
        """
        So many documents, and how many of them were cut.
        """
        texts: Sequence[str | None] = [None] * count
        longer = 0
        if self._texts and count:
            texts = self._rule.texts([_values(name, a, start, count) for name, a in self._texts])
        if self._chars_max is not None:
            texts, longer = shortened(texts, self._chars_max)
        if self._images is None:
            return tuple(texts), longer
        return tuple(map(_document, texts, _values(*self._images, start, count))), longer


def _document(text: str | None, image: object) -> Document | None:
    return text if is_blank(image) else RichDocument(text, str(image))


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
        raise Flaw(f"{what} is not UTF-8") from error


# --- fields ---------------------------------------------------------------------------------------


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
