"""
Whether a file's columns can be used as the job says: checked before anything is paid.

Owns the reading of `[source]` against a schema, and the wording of everything that does not fit,
told at once. Reads no data.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa
import pyarrow.types as kinds

from batchrank.config.schema import SourceTable
from batchrank.errors import Problem, SourceError
from batchrank.source.columns import Columns, Path, is_list, is_number, plain
from batchrank.source.texts import Plain, Template, TextRule, Yaml, distinct, template

Check = Callable[[pa.DataType], bool]


# --- which types will do --------------------------------------------------------------------------


def _is_string(kind: pa.DataType) -> bool:
    return bool(kinds.is_string(kind))


def _is_struct(kind: pa.DataType) -> bool:
    return bool(kinds.is_struct(kind))


def _is_id(kind: pa.DataType) -> bool:
    return _is_string(kind) or bool(kinds.is_integer(kind) and not kinds.is_uint64(kind))


def _is_id_list(kind: pa.DataType) -> bool:
    return is_list(kind) and _is_id(kind.value_type)


def _is_scalar(kind: pa.DataType) -> bool:
    written = (_is_string, is_number, kinds.is_decimal, kinds.is_date, kinds.is_time)
    return kinds.is_timestamp(kind) or any(check(kind) for check in written)


def _is_yaml(kind: pa.DataType) -> bool:
    return _is_scalar(kind) or _is_nested_yaml(kind)


def _is_nested_yaml(kind: pa.DataType) -> bool:
    if kinds.is_struct(kind):
        names = {field.name for field in kind}
        return len(names) == len(kind) and all(_is_nested_yaml(field.type) for field in kind)
    if is_list(kind):
        return _is_nested_yaml(kind.value_type)
    return _is_string(kind) or is_number(kind)


_AN_ID = "a string or an integer of at most 64 bits with a sign"
_TEXT_FIELDS: Mapping[type[TextRule], tuple[str, Check, str]] = {
    Plain: ("text", _is_string, "a string"),
    Template: ("template", _is_scalar, "a string, a number, a date or a time"),
    Yaml: ("yaml", _is_yaml, "a string, a number, a date, or a list or struct of these"),
}
"""By rule: its key, which plain types its fields may have, and that in words."""


# --- fitting --------------------------------------------------------------------------------------


def fit(schema: pa.Schema, table: SourceTable, where: str) -> Columns:
    """
    Map *schema*; *where* names its file in the message.

    Raises:
        SourceError: with everything that does not fit, and what is there instead.
    """
    fitting = _Fitting(schema, table)
    columns = fitting.columns()
    if columns is None or fitting.problems:
        raise SourceError(
            f"{where} does not fit the job:",
            "it holds " + ", ".join(f"{field.name}: {named(field.type)}" for field in schema),
            fitting.problems,
        )
    return columns


def named(kind: pa.DataType) -> str:
    """
    Name a type as people do: without the names that lists give to their elements.
    """
    kind = plain(kind)
    if is_list(kind):
        return f"list<{named(kind.value_type)}>"
    if kinds.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {named(field.type)}' for field in kind)}>"
    return str(kind)


class _Fitting:
    """
    One attempt to map a schema: gathers types and problems as it goes.
    """

    def __init__(self, schema: pa.Schema, table: SourceTable) -> None:
        self.table = table
        self.held = [(field.name, field.type) for field in schema]
        self.types: dict[Path, pa.DataType] = {}
        self.problems: list[Problem] = []

    def columns(self) -> Columns | None:
        table = self.table
        self._column("query", table.query, _is_string, "a string")
        self._column("query_id", table.query_id, _is_id, _AN_ID)
        mark = f"{table.documents}."
        fields = tuple(name.removeprefix(mark) for name in table.carry if name.startswith(mark))
        columns = tuple(name for name in table.carry if not name.startswith(mark))
        for name in columns:
            self._column("carry", name, lambda _: True, "")
        element = self._element()
        if table.documents in columns:
            self._say("carry", f"carry fields of {table.documents} ({mark}price), not all of it")
        if element is None:
            return None
        structs = _is_struct(plain(element))
        rule = self._structs(element, fields) if structs else self._strings(fields)
        return Columns(table, rule, structs, self.types, columns, fields)

    def _element(self) -> pa.DataType | None:
        """
        The type of one document, if there are any.
        """
        wanted = "a list of strings or of structs"
        name = self.table.documents
        if self._column("documents", name, _is_candidates, wanted) is None:
            return None
        del self.types[name,]
        return dict(self.held)[name].value_type

    def _strings(self, carried: Sequence[str]) -> TextRule:
        table = self.table
        self.types[table.documents,] = pa.list_(pa.string())
        wanted = "a list of strings or integers, one for each document"
        if kind := self._column("doc_id", table.doc_id, _is_id_list, wanted):
            self.types[table.doc_id or "",] = pa.list_(kind.value_type)
        fieldless = f"{table.documents} is a list of strings and has no fields"
        for key in ("text", "template", "yaml", "image"):
            if getattr(table, key) is not None:
                self._say(key, fieldless)
        if carried:
            self._say("carry", fieldless)
        return Plain()

    def _structs(self, element: pa.DataType, carried: Sequence[str]) -> TextRule:
        table = self.table
        there = [(field.name, field.type) for field in element]
        rule = self._rule([name for name, _ in there])
        key, check, wanted = _TEXT_FIELDS[type(rule)]
        for name in rule.fields:
            self._field(key, name, there, check, wanted)
        self._field("image", table.image, there, _is_string, "a string")
        self._field("doc_id", table.doc_id, there, _is_id, _AN_ID)
        for name in carried:
            self._field("carry", name, there, lambda _: True, "")
        return rule

    def _rule(self, there: Sequence[str]) -> TextRule:
        table = self.table
        if table.yaml is not None:
            return Yaml(distinct(table.yaml))
        if table.template is not None:
            return template(table.template)
        if table.text is not None or "text" in there:
            return Plain((table.text or "text",))
        if table.image is None:
            self._say("text", f"say which field of {table.documents} is the text")
        return Plain()

    def _column(self, key: str, name: str | None, check: Check, wanted: str) -> pa.DataType | None:
        if name is None:
            return None
        kind = self._found(key, name, self.held, "column", check, wanted)
        if kind is not None:
            self.types[name,] = kind
        return kind

    def _field(
        self,
        key: str,
        name: str | None,
        there: Sequence[tuple[str, pa.DataType]],
        check: Check,
        wanted: str,
    ) -> None:
        if name is None:
            return
        documents = self.table.documents
        kind = self._found(key, name, there, f"field of {documents}", check, wanted)
        if kind is not None:
            self.types[documents, name] = kind

    def _found(
        self,
        key: str,
        name: str,
        there: Sequence[tuple[str, pa.DataType]],
        what: str,
        check: Check,
        wanted: str,
    ) -> pa.DataType | None:
        found = [kind for other, kind in there if other == name]
        if not found:
            near = self._fields_called(name) if key == "carry" else []
            near += difflib.get_close_matches(name, [other for other, _ in there], 1)
            guess = f"; did you mean {near[0]}?" if near else ""
            self._say(key, f"no {what} is called {name}{guess}")
        elif len(found) > 1:
            self._say(key, f"more than one {what} is called {name}")
        elif not check(plain(found[0])):
            self._say(key, f"{name} is {named(found[0])}, not {wanted}")
        elif not _can_be_plain(found[0]):
            self._say(key, f"{name} is {found[0]}, which pyarrow cannot convert")
        else:
            return plain(found[0])
        return None

    def _fields_called(self, name: str) -> list[str]:
        """
        The field of the documents that the last step of *name* names, as `carry` names it.
        """
        documents, field = self.table.documents, name.rpartition(".")[2]
        kind = plain(dict(self.held).get(documents, pa.null()))
        structs = is_list(kind) and _is_struct(kind.value_type)
        there = structs and field in {one.name for one in kind.value_type}
        return [f"{documents}.{field}"] if there else []

    def _say(self, key: str, message: str) -> None:
        problem = Problem(0, f"source.{key}", message)
        if problem not in self.problems:
            self.problems.append(problem)


def _is_candidates(kind: pa.DataType) -> bool:
    return is_list(kind) and (_is_struct(kind.value_type) or _is_string(kind.value_type))


def _can_be_plain(kind: pa.DataType) -> bool:
    try:
        pa.nulls(0, kind).cast(plain(kind))
    except pa.ArrowNotImplementedError:
        return False
    return True


def disagreement(one: Columns, where: str, other: Columns, elsewhere: str) -> str | None:
    """
    Say which columns of two files of one source have different types, if any.
    """
    found = [
        f"{'.'.join(path)} is {named(one.types[path])} there and {named(other.types[path])} here"
        for path in one.types
        if path in other.types and one.types[path] != other.types[path]
    ]
    if one.structs != other.structs:
        held = {True: "structs", False: "strings"}
        document = one.table.documents
        found.append(
            f"{document} holds {held[one.structs]} there and {held[other.structs]} here",
        )
    return f"{where} and {elsewhere} differ: {'; '.join(found)}" if found else None
