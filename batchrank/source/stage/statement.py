"""
What a user's SQL may be: one SELECT that reads, and nothing else.

Owns the reading of its parse tree: which parts of a query are let through, by lists of what is
allowed wherever a part could do more than read. In DuckDB 2.0 a SELECT can write: through
`WITH x AS (COPY … TO …)`, and through table functions that take SQL as text, which do so from
inside a subquery too. Never runs the SQL, and never pastes a value into it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from batchrank.errors import Problem, SourceError
from batchrank.source.stage.sql import literal

READERS = frozenset(
    [
        "parquet_scan",
        "read_blob",
        "read_csv",
        "read_csv_auto",
        "read_json",
        "read_json_auto",
        "read_json_objects",
        "read_json_objects_auto",
        "read_ndjson",
        "read_ndjson_auto",
        "read_ndjson_objects",
        "read_parquet",
        "read_text",
    ]
)
"""Table functions that read files; DuckDB holds them to the folders that the job names."""

MAKERS = frozenset(
    ["generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"]
)
"""Table functions that make rows of their arguments."""

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_TABLES = frozenset(
    {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION"}
)
_FORBIDDEN = frozenset(
    [
        "current_setting",
        "currval",
        "getenv",
        "getvariable",
        "json_execute_serialized_sql",
        "nextval",
        "pg_sleep",
        "query",
        "query_table",
        "setseed",
        "setval",
        "sleep_ms",
        "write_log",
    ]
)
"""Functions that run SQL, change or wait for something, or tell of the machine."""

_UNSTABLE = frozenset(
    [
        "ago",
        "current_localtime",
        "current_localtimestamp",
        "gen_random_uuid",
        "get_current_time",
        "get_current_timestamp",
        "now",
        "random",
        "today",
        "transaction_timestamp",
        "uuid",
        "uuidv4",
        "uuidv7",
    ]
)
_UNSTABLE_NAMES = frozenset(
    {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}
)
"""These stand without parentheses, so that they look like columns."""
_KINDS = {
    "COPY_QUERY_NODE": "COPY",
    "DELETE_QUERY_NODE": "DELETE",
    "INSERT_QUERY_NODE": "INSERT",
    "SHOW_REF": "DESCRIBE, SHOW and SUMMARIZE",
    "UPDATE_QUERY_NODE": "UPDATE",
}
_NOWHERE = 2**64 - 1
_QUOTED = re.compile(rb"'(?:[^']|'')*'")
_ONE_SELECT = "give one SELECT that only reads; everything else belongs before this job"


@dataclass(frozen=True, slots=True)
class _Edit:
    """
    A relative path in the SQL that was made absolute; *start* and *stop* count bytes of the text.
    """

    start: int
    stop: int
    by: bytes


@dataclass(frozen=True, slots=True)
class Statement:
    """
    A SELECT that was looked at, made by `select`.

    Attributes:
        text: as the user wrote it.
        parameters: the values that it uses, by their names in it.
        key: the setting that holds it, for messages.
        unused: names of values that it does not use.
        unstable: what in it makes two runs differ: random(), now(), TABLESAMPLE.
    """

    text: str
    parameters: Mapping[str, object]
    key: str
    unused: tuple[str, ...] = ()
    unstable: tuple[str, ...] = ()
    _body: bytes = field(default=b"", repr=False)
    _edits: tuple[_Edit, ...] = field(default=(), repr=False)
    _before: str = field(default="SELECT * FROM (\n", repr=False)
    _after: str = field(default="\n) AS q", repr=False)

    @property
    def sql(self) -> str:
        """
        What is run: the SELECT as a subquery, its relative paths made absolute.
        """
        return f"{self._before}{self._rendered().decode()}{self._after}"

    def within(self, before: str, after: str) -> Statement:
        """
        The same SELECT in the middle of other SQL, so that places in errors are still its own.
        """
        return replace(self, _before=before + self._before, _after=self._after + after)

    def place(self, position: int) -> int | None:
        """
        Where in `text` a place in `sql` is, both in bytes; None if it is not in what was written.
        """
        if not self.text:
            return None
        position -= len(self._before.encode())
        if not 0 <= position <= len(self._rendered()):
            return None
        for edit in self._edits:
            if position < edit.start:
                break
            position = max(edit.start, position - len(edit.by) + edit.stop - edit.start)
        return position

    def _rendered(self) -> bytes:
        body = self._body
        for edit in reversed(self._edits):
            body = body[: edit.start] + edit.by + body[edit.stop :]
        return body


def select(
    text: str,
    parameters: Mapping[str, object],
    *,
    key: str = "source.sql",
    base: Path | None = None,
) -> Statement:
    """
    Look at a user's SQL, without running it or knowing its tables.

    Values are bound by name (`$date`). With *base*, relative paths that are written out in it begin
    there; without it, where the process was started.

    Raises:
        SourceError: it is not exactly one SELECT that only reads; with its line and column.
    """
    with _scratch().cursor() as scratch:
        tree = _tree(scratch, text, key)
        body = _without_end(text)
        named = next(iter(scratch.extract_statements(text))).named_parameters
    found = _Found(tree)
    found.refuse(text, key)
    for name in sorted(named):
        if name.lower() not in map(str.lower, parameters):
            raise _no_value(name, found.parameters.get(name.lower()), parameters, text, key)
    used, unused = _bound(named, parameters)
    edits = tuple(found.absolute(body, base)) if base is not None else ()
    return Statement(text, used, key, unused, found.unstable(), body, edits)


@cache
def _scratch() -> duckdb.DuckDBPyConnection:
    """
    An empty database that takes statements apart and runs none; to open one takes as long as to
    look at ten statements.
    """
    return duckdb.connect(":memory:", config={"python_enable_replacements": False})


def ours(sql: str, key: str) -> Statement:
    """
    A SELECT that this program has made for the setting *key*: there is nothing to look at.
    """
    return Statement("", {}, key, _body=sql.encode(), _before="", _after="")


def refusal(key: str, text: str, place: int | None, what: str, hint: str = "") -> SourceError:
    """
    The error that says *what* is wrong at a place (in bytes) of the SQL in *key*, and shows it.
    """
    if place is None:
        return SourceError("", hint, [Problem(0, key, what)])
    raw = text.encode()
    start = raw.rfind(b"\n", 0, place) + 1
    line = raw.count(b"\n", 0, place) + 1
    column = len(raw[start:place].decode(errors="replace"))
    shown = raw[start:].split(b"\n", 1)[0].decode(errors="replace").replace("\t", " ").rstrip()
    left = max(0, column - 60)
    margin = f"      {line} | "
    excerpt = f"{margin}{shown[left : left + 80]}\n{' ' * (len(margin) + column - left)}^"
    told = f"in its line {line}, column {column + 1}: {what}\n{excerpt}"
    return SourceError("", hint, [Problem(0, key, told)])


# --- reading --------------------------------------------------------------------------------------


def _tree(scratch: duckdb.DuckDBPyConnection, text: str, key: str) -> dict[str, Any]:
    """
    The parse tree of the one SELECT.
    """
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise SourceError("", "save it as UTF-8", [Problem(0, key, "it is no valid text")])
    if "\0" in text:
        raise refusal(key, text, text.encode().index(b"\0"), "a NUL character", _ONE_SELECT)
    try:
        row = scratch.execute("SELECT json_serialize_sql($sql)", {"sql": text}).fetchone()
        assert row is not None
        said: dict[str, Any] = json.loads(row[0])
    except RecursionError as error:
        raise refusal(key, text, None, "it is nested too deeply", "write it in parts") from error
    if said["error"] and said["error_type"] != "not implemented":
        place = int(said["position"]) if "position" in said else None
        raise refusal(key, text, place, said["error_message"], _ONE_SELECT)
    kinds = _kinds(scratch, text, key)
    if len(kinds) != 1:
        what = f"{len(kinds)} statements ({', '.join(kinds)})" if kinds else "no statement"
        raise refusal(key, text, None, f"there must be one SELECT, and there is {what}")
    if said["error"]:
        raise _no_select(key, text, kinds[0])
    tree: dict[str, Any] = said["statements"][0]
    return tree


def _kinds(scratch: duckdb.DuckDBPyConnection, text: str, key: str) -> list[str]:
    try:
        return [statement.type.name for statement in scratch.extract_statements(text)]
    except duckdb.Error as error:
        raise refusal(key, text, None, str(error).partition("\n")[0], _ONE_SELECT) from error


def _no_select(key: str, text: str, kind: str) -> SourceError:
    if kind == "MULTI":
        return refusal(
            key, text, None, "a PIVOT without IN is more than one statement",
            "name the columns that it makes: PIVOT … ON name IN ('a', 'b') USING …",
        )  # fmt: skip
    return refusal(key, text, None, f"it is {kind}, and only a SELECT is run", _ONE_SELECT)


def _without_end(text: str) -> bytes:
    """
    The statement without the semicolon that may end it, and what follows; a BOM becomes blanks.
    """
    raw = text.encode()
    ends = [
        start for start, _ in duckdb.tokenize(text) if raw[start : start + 1] == b";"
    ]  # a semicolon in a string or comment is inside its token, not at its start
    body = raw[: ends[0]] if ends else raw
    return body.replace(b"\xef\xbb\xbf", b"   ", 1) if body.startswith(b"\xef\xbb\xbf") else body


def _no_value(
    name: str, place: int | None, parameters: Mapping[str, object], text: str, key: str
) -> SourceError:
    there = ", ".join(f"${known}" for known in sorted(parameters)) or "none"
    if name.isdigit():
        hint = f"values are bound by name, as in $date; those that there are: {there}"
        return refusal(key, text, place, "this value has no name", hint)
    hint = f"give it one in source.parameters; those that there are: {there}"
    return refusal(key, text, place, f"${name} has no value", hint)


def _bound(
    named: set[str], parameters: Mapping[str, object]
) -> tuple[dict[str, object], tuple[str, ...]]:
    """
    The values of the names in the SQL, whose letters may be large or small, and the names left.
    """
    given = {name.lower(): value for name, value in parameters.items()}
    low = {name.lower() for name in named}
    unused = sorted(name for name in parameters if name.lower() not in low)
    return {name: given[name.lower()] for name in sorted(named)}, tuple(unused)


# --- the tree -------------------------------------------------------------------------------------


class _Found:
    """
    What there is in a parse tree: queries, tables and functions, each with its node, and names.

    Attributes:
        parameters: where each is first, in bytes.
    """

    def __init__(self, tree: dict[str, Any]) -> None:
        self._queries: list[tuple[str, Any]] = []
        self._tables: list[tuple[str, Any]] = []
        self._functions: list[tuple[str, Any]] = []
        self._names: set[str] = set()
        self._sampled = False
        self.parameters: dict[str, int] = {}
        for node in _nodes(tree):
            self._note(node)

    def _note(self, node: dict[str, Any]) -> None:
        kind = str(node.get("type", ""))
        if "cte_map" in node or kind.endswith("_NODE") or "info_type" in node:
            self._queries.append((kind, node))
        elif "sample" in node:
            self._tables.append((kind, node))
        if "function_name" in node:
            self._functions.append((str(node["function_name"]).lower(), node))
        if node.get("class") == "COLUMN_REF":
            self._names |= {str(name).lower() for name in node["column_names"][-1:]}
        if node.get("class") == "PARAMETER":
            self.parameters.setdefault(str(node["identifier"]).lower(), node["query_location"])
        self._sampled |= bool(node.get("sample"))

    def refuse(self, text: str, key: str) -> None:
        """
        Raise for the first thing that is not on the lists.
        """
        for kind, node in self._queries:
            if kind not in _QUERIES:
                what = f"{_KINDS.get(kind, kind or node.get('info_type'))} is not allowed in it"
                raise refusal(key, text, _first_place(node), what, _ONE_SELECT)
        for kind, node in self._tables:
            if kind not in _TABLES:
                what = f"{_KINDS.get(kind, kind)} cannot be read from"
                raise refusal(key, text, _first_place(node), what, _ONE_SELECT)
            if kind == "TABLE_FUNCTION":
                name = str(node["function"].get("function_name", "")).lower()
                self._refuse_function(name, node, text, key, in_from=True)
                self._refuse_rejects(node["function"], text, key)
        for name, node in self._functions:
            self._refuse_function(name, node, text, key, in_from=False)

    @staticmethod
    def _refuse_function(
        name: str, node: Mapping[str, Any], text: str, key: str, *, in_from: bool
    ) -> None:
        if name in _FORBIDDEN or (in_from and name not in READERS | MAKERS):
            allowed = ", ".join(sorted(READERS | MAKERS)) if in_from else ""
            hint = f"in FROM there may be tables, views and {allowed}" if allowed else _ONE_SELECT
            raise refusal(key, text, _first_place(node), f"{name}() is not allowed in it", hint)

    @staticmethod
    def _refuse_rejects(function: Mapping[str, Any], text: str, key: str) -> None:
        for node in _nodes({"arguments": function["arguments"]}):
            if node.get("column_names") in (["store_rejects"], ["rejects_table"], ["rejects_scan"]):
                what = f"{node['column_names'][0]} is not allowed in it: it makes tables"
                hint = "take ignore_errors = true to leave lines out, or mend the file"
                raise refusal(key, text, _first_place(node), what, hint)

    def unstable(self) -> tuple[str, ...]:
        """
        What makes the same SQL return other rows the next time.
        """
        called = {f"{name}()" for name, _ in self._functions if name in _UNSTABLE}
        said = called | (self._names & _UNSTABLE_NAMES)
        return (*sorted(said), *(["TABLESAMPLE"] if self._sampled else []))

    def absolute(self, body: bytes, base: Path) -> Iterator[_Edit]:
        """
        Yield what makes relative paths begin at *base*, in order of place.
        """
        edits = {}
        for kind, node in self._tables:
            if kind == "BASE_TABLE" and re.search(r"[./*]", str(node["table_name"])):
                edits.update(_made_absolute(node, str(node["table_name"]), body, base))
            elif kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() in READERS:
                for constant in _beginnings(node["function"]["arguments"][:1]):
                    literal = constant["literal"]
                    edits.update(_made_absolute(constant, str(literal["text"]), body, base))
        yield from (edits[start] for start in sorted(edits))


def _nodes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Yield every object of the tree, outer ones first; without recursion, however deep it is.
    """
    left: list[Any] = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left += reversed(node.values())
        elif isinstance(node, list):
            left += reversed(node)


def _first_place(node: Mapping[str, Any]) -> int | None:
    """
    The first place that is known of a node or what is in it.
    """
    for inner in _nodes(dict(node)):
        place = inner.get("query_location", _NOWHERE)
        if place != _NOWHERE:
            return int(place)
    return None


def _beginnings(arguments: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """
    Yield the strings that paths begin with: of a list each one's, of a concatenation the first.
    """
    for argument in arguments:
        node = argument["expression"]
        name = node.get("function_name", "")
        if node["class"] == "CONSTANT" and node["literal"].get("kind") == "STRING":
            yield node
        elif name == "list_value":
            yield from _beginnings(node["arguments"])
        elif name in ("||", "concat", "format", "printf"):
            yield from _beginnings(node["arguments"][:1])


def _made_absolute(node: Mapping[str, Any], path: str, body: bytes, base: Path) -> dict[int, _Edit]:
    start = node["query_location"]
    quoted = _QUOTED.match(body, start) if start < len(body) else None
    if quoted is None or "://" in path or path.startswith(("/", "~", "file:")):
        return {}
    whole = os.path.join(base.absolute(), path)  # noqa: PTH118 - keeps a last /
    return {start: _Edit(start, quoted.end(), literal(whole).encode())}
