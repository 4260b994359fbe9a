"""
Which columns hold what, in which types, and where their leaves stand in a file.

Owns the plain types that all files are brought to, and the choice of what has to be decoded.
Whether a file fits is told in `fitting`. Reads no data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as kinds

from batchrank.config.schema import SourceTable
from batchrank.source.texts import TextRule, distinct

Path = tuple[str, ...]
"""A column, or a column and a field of the structs in it."""


@dataclass(frozen=True, slots=True)
class Columns:
    """
    What is read of a file's schema, and as what.

    Attributes:
        rule: how a document's text is made.
        structs: the documents are structs, not strings.
        types: the plain type of each column, and of each field of the documents, that is used.
        carried_columns, carried_fields: what is carried over, in the order of `carry`.
        pairs: each pair of a query and a document has a content key of its own.
    """

    table: SourceTable
    rule: TextRule
    structs: bool
    types: Mapping[Path, pa.DataType]
    carried_columns: tuple[str, ...]
    carried_fields: tuple[str, ...]
    pairs: bool = False

    def of_field(self, name: str) -> pa.DataType:
        """
        The plain type of a field of the documents.
        """
        return self.types[self.table.documents, name]

    @property
    def doc_id_type(self) -> pa.DataType | None:
        """
        The plain type of one `doc_id`; None if there are none.
        """
        if self.table.doc_id is None:
            return None
        if self.structs:
            return self.of_field(self.table.doc_id)
        return self.types[self.table.doc_id,].value_type

    @property
    def carried_paths(self) -> tuple[Path, ...]:
        """
        What the carried block is made of: ids, and what is carried over.
        """
        table = self.table
        paths: list[Path] = [(name,) for name in (table.query_id, *self.carried_columns) if name]
        fields: list[Path] = [(table.documents, name) for name in self.carried_fields]
        return distinct((*paths, *self._doc_id_paths(), *fields))

    @property
    def score_paths(self) -> tuple[Path, ...]:
        """
        What a group is made of: whatever is carried over, they are the same.
        """
        table = self.table
        paths: list[Path] = [(name,) for name in (table.query, table.query_id) if name]
        named = (*self.rule.fields, table.image) if self.structs else ()
        fields: list[Path] = [(table.documents, name) for name in named if name]
        documents: tuple[Path, ...] = () if self.structs else ((table.documents,),)
        return distinct((*paths, *documents, *fields, *self._doc_id_paths()))

    def _doc_id_paths(self) -> tuple[Path, ...]:
        name = self.table.doc_id
        if name is None:
            return ()
        return ((self.table.documents, name),) if self.structs else ((name,),)


# --- types ----------------------------------------------------------------------------------------


def plain(kind: pa.DataType) -> pa.DataType:
    """
    The type with 32-bit offsets, nullable, without dictionaries, views and extensions, all through.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if kinds.is_dictionary(kind):
        return plain(kind.value_type)
    if kinds.is_large_string(kind) or kinds.is_string_view(kind):
        return pa.string()
    if kinds.is_large_binary(kind) or kinds.is_binary_view(kind):
        return pa.binary()
    if kinds.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    if is_list(kind):
        return pa.list_(plain(kind.value_type))
    if kinds.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if kinds.is_struct(kind):
        return pa.struct([(field.name, plain(field.type)) for field in kind])
    return kind


def is_list(kind: pa.DataType) -> bool:
    """
    Tell whether a type is one of Arrow's five lists.
    """
    checks = (
        kinds.is_list,
        kinds.is_large_list,
        kinds.is_fixed_size_list,
        kinds.is_list_view,
        kinds.is_large_list_view,
    )
    return any(check(kind) for check in checks)


def id_type(kind: pa.DataType) -> pa.DataType:
    """
    What ids of a plain type travel as: string or int64.
    """
    return pa.string() if kinds.is_string(kind) else pa.int64()


def is_number(kind: pa.DataType) -> bool:
    """
    Tell whether values are numbers or booleans, for which YAML has words of its own.
    """
    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind))


# --- leaves ---------------------------------------------------------------------------------------


def leaves(schema: pa.Schema, documents: str) -> dict[Path, range]:
    """
    Where the leaves of each column, and of each field of the documents, stand among a file's.

    Parquet numbers leaves depth first; Arrow's schema has the same order. Paths by name will not
    do: writers call the steps between a list and its element as they like.
    """
    places: dict[Path, range] = {}
    at = 0
    for field in schema:
        kind = plain(field.type)
        places[field.name,] = range(at, at + _leaf_count(kind))
        if field.name == documents and is_list(kind) and kinds.is_struct(kind.value_type):
            start = at
            for child in kind.value_type:
                places[documents, child.name] = range(start, start + _leaf_count(child.type))
                start += _leaf_count(child.type)
        at += _leaf_count(kind)
    return places


def _leaf_count(kind: pa.DataType) -> int:
    if kinds.is_struct(kind):
        return sum(_leaf_count(field.type) for field in kind)
    if kinds.is_map(kind):
        return _leaf_count(kind.key_type) + _leaf_count(kind.item_type)
    return _leaf_count(kind.value_type) if is_list(kind) else 1


def chosen(places: Mapping[Path, range], paths: Iterable[Path]) -> list[int]:
    """
    The numbers of the leaves of *paths*, each once, in the file's order.
    """
    return sorted({number for path in paths for number in places[path]})
