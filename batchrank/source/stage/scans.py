"""
How DuckDB reads the files of an input: as which format, with which columns, of which types.

Owns what DuckDB would otherwise guess from a file's beginning. Columns of CSV and TSV are text, but
for scores and ranks, so that an id such as 007, or a day, stays what it is; a line that does not
fit is refused, never read in some other way. Several files have the same columns, in any order, of
the same types. Values of Hive's folders (`dt=2026-11-21`) are text, and give way to the files'.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa

from batchrank.errors import SourceError
from batchrank.source.fitting import named
from batchrank.source.reading import opened
from batchrank.source.stage.asking import rows_of, types_of
from batchrank.source.stage.endings import packing_of
from batchrank.source.stage.forms import NEGATIVE, POSITIVE
from batchrank.source.stage.inputs import Input, wrong
from batchrank.source.stage.looking import Relation, Types
from batchrank.source.stage.sql import literal, literals, quoted
from batchrank.source.stage.statement import ours

TREC = {
    "query_id": "VARCHAR",
    "iteration": "VARCHAR",
    "doc_id": "VARCHAR",
    "rank": "DOUBLE",
    "score": "DOUBLE",
    "tag": "VARCHAR",
}
"""The six columns of a TREC run (trec_eval's README)."""

_FILE, _ROW = "batchrank_file", "file_row_number"
"""Where a row stands; DuckDB numbers them in Parquet only, and from 0."""

_HEADLESS: Mapping[str, Mapping[int, Sequence[str]]] = {
    "queries": {2: ("query_id", "query")},
    "corpus": {2: ("doc_id", "text"), 3: ("doc_id", "title", "text")},
    "run": {3: ("query_id", "doc_id", "rank")},
}
"""Columns of files that name none, by what they are for and by how many there are."""

_DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Roles:
    """
    What the job uses columns as: *ids*, *texts* of queries and documents, *numbers* that order
    candidates, and *more*.
    """

    ids: frozenset[str]
    texts: frozenset[str]
    numbers: frozenset[str]
    more: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        """
        Every column that is used.
        """
        return self.ids | self.texts | self.numbers | self.more


@dataclass(frozen=True, slots=True)
class _Scan:
    """
    What stands behind FROM; *rows* makes it of further options, and *names* are the columns that
    the files themselves have.
    """

    rows: Callable[[str], str]
    names: AbstractSet[str]


def relation_of(connection: duckdb.DuckDBPyConnection, given: Input, roles: Roles) -> Relation:
    """
    How *given* is read.

    Raises:
        SourceError: DuckDB cannot make sense of the files, or they differ.
    """
    if not given.paths:
        raise SourceError(
            f"source.{given.key}: there are no files", "nothing can be joined with it"
        )
    scan = _SCANS[given.format](connection, given, roles)
    hive = _hive(given.with_rows, scan.names)
    sql = scan.rows(hive)
    types = _types(connection, sql, given)
    located = f"{hive}, filename='{_FILE}'"
    places = f"DISTINCT {_FILE}"
    if given.format == "parquet":
        located, places = f"{located}, {_ROW}=true", f"{_FILE}, {_ROW}"
    return Relation(given.name, sql, types, scan.rows(located), places)


def _types(connection: duckdb.DuckDBPyConnection, sql: str, given: Input) -> Types:
    return types_of(connection, ours(f"SELECT * FROM {sql}", f"source.{given.key}"))


def _hive(paths: Iterable[Path], names: AbstractSet[str]) -> str:
    """
    Whether folders are columns, too: if none of them has the name of a column of the files.
    """
    folders = {part for path in paths for part in path.parent.parts}
    keys = {folder.partition("=")[0].lower() for folder in folders if "=" in folder}
    on = bool(keys) and not keys & set(map(str.lower, names))
    return f", hive_partitioning={str(on).lower()}, hive_types_autocast=false"


# --- text -----------------------------------------------------------------------------------------


def _csv(_: object, given: Input, roles: Roles) -> _Scan:
    """
    As RFC 4180 has it, with a head.
    """
    first = next(filter(None, map(first_line, given.paths)), "")
    names = {delimiter: roles.all & set(_fields(first, delimiter)) for delimiter in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda each: len(names[each]))
    return _with_heads(given, roles, delimiter, '"')


def _tsv(_: object, given: Input, roles: Roles) -> _Scan:
    """
    With a head if its first line has one of our names; else ids and texts, as in MS MARCO's files.
    """
    head = _fields(next(filter(None, map(first_line, given.paths)), ""), "\t")
    if roles.all & set(head):
        return _with_heads(given, roles, "\t", "")
    names = _HEADLESS.get(given.key, {}).get(len(head), ())
    if not names:
        raise wrong(
            given.key,
            f"the first line of {given.name} names none of the columns that the job does",
            "give it a first line with the columns' names",
        )
    columns = {name: "DOUBLE" if name in ("rank", *roles.numbers) else "VARCHAR" for name in names}
    return _lines(given.paths, columns, "\t", "", head=False)


def _trec(_: object, given: Input, __: Roles) -> _Scan:
    first = next(filter(None, map(first_line, given.paths)), "")
    return _lines(given.paths, TREC, "\t" if "\t" in first else " ", "", head=False)


def _with_heads(given: Input, roles: Roles, delimiter: str, quote: str) -> _Scan:
    """
    Files that name their columns, each in an order of its own.
    """
    heads = [(tuple(_fields(first_line(path), delimiter)), path) for path in given.paths]
    heads = [(head, path) for head, path in heads if head]
    if not heads:
        raise wrong(
            given.key,
            f"{given.name} is empty, without even a first line",
            "give it a first line with the columns' names",
        )
    names = heads[0][0]
    for head, path in heads:
        _check_head(given.key, head, path, heads[0])
    scans = [
        _lines([path for _, path in held], _as_text(head, roles), delimiter, quote, head=True)
        for head, held in groupby(sorted(heads), key=lambda each: each[0])
    ]
    if len(scans) == 1:
        return scans[0]
    return _Scan(
        lambda more: f"({' UNION ALL BY NAME '.join(f'FROM {s.rows(more)}' for s in scans)})",
        set(names),
    )


def _check_head(
    key: str, head: Sequence[str], path: Path, first: tuple[Sequence[str], Path]
) -> None:
    low = [name.lower() for name in head]
    twice = next((name for name in head if low.count(name.lower()) > 1), None)
    if twice is not None:
        message = f"the first line of {path.name} names {twice or 'nothing'} twice"
        raise wrong(key, message, "give each column a name of its own")
    for one, other in ((head, first[0]), (first[0], head)):
        if more := [name for name in one if name not in other]:
            has, lacks = (path, first[1]) if one is head else (first[1], path)
            raise wrong(
                key,
                f"the first line of {has.name} names {', '.join(more)}, that of {lacks.name} does"
                " not",
                "all files of a source need the same columns, and their names in the first line",
            )


def _as_text(names: Iterable[str], roles: Roles) -> dict[str, str]:
    return {name: "DOUBLE" if name in roles.numbers else "VARCHAR" for name in names}


def _lines(
    paths: Iterable[Path], columns: Mapping[str, str], delimiter: str, quote: str, *, head: bool
) -> _Scan:
    told = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in columns.items())
    options = (
        f"delim={literal(delimiter)}, quote={literal(quote)}, escape={literal(quote)},"
        f" header={str(head).lower()}, auto_detect=false, strict_mode=true, columns={{{told}}}"
    )
    files = _list(paths)
    return _Scan(lambda more: f"read_csv({files}, {options}{more})", columns.keys())


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def first_line(path: Path) -> str:
    """
    The first line of a file, packed or not; empty if there is none.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        with pa.input_stream(str(path), compression=packing_of(path)) as held:
            start: bytes = held.read(_HEAD_BYTES)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            f"{path.name} cannot be read: {error}", "look whether it is what its ending says"
        ) from error
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise SourceError(f"{path.name} is UTF-16, not UTF-8", "save the file as UTF-8")
    return start.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").rstrip("\r")


# --- with types -----------------------------------------------------------------------------------


def _parquet(_: object, given: Input, roles: Roles) -> _Scan:
    """
    Files of the same types: DuckDB would make 0 of 0.7 where the first file has integers.
    """
    first: tuple[str, Mapping[str, str]] | None = None
    for path, file in zip(given.paths, given.files, strict=True):
        if path not in given.with_rows:
            continue
        with opened(path, file.path) as held:
            types = {field.name: named(field.type) for field in held.schema}
        first = first or (file.path, types)
        for name in sorted(roles.all & types.keys() & first[1].keys()):
            if types[name] != first[1][name]:
                raise wrong(
                    given.key,
                    f"{name} is {first[1][name]} in {first[0]} and {types[name]} in {file.path}",
                    "all files of a source need the same types",
                )
    files = _list(given.with_rows)
    return _Scan(lambda more: f"read_parquet({files}{more})", first[1].keys() if first else set())


_TYPE_ENDS = r"(?=[,)\[]|$)"
_LIKE_TEXT = re.compile(
    rf"(?<![\w\"])(DATE|TIMESTAMP WITH TIME ZONE|TIMESTAMP(?:_\w+)?|TIME|UUID){_TYPE_ENDS}"
)
_MIXED = re.compile(rf"(?<![\w\"])JSON{_TYPE_ENDS}")
"""DuckDB's type of values that are of several kinds."""


def _json(connection: duckdb.DuckDBPyConnection, given: Input, roles: Roles) -> _Scan:
    """
    Of types that all lines have: a guess from the first of them would round what comes later.
    """
    files = _list(given.paths)
    lines = "format='newline_delimited'"
    looked = f"read_json({files}, {lines}, sample_size=-1, maximum_sample_files=-1"
    types = _types(connection, f"{looked}, hive_partitioning=false)", given)
    if list(types) == ["json"]:
        raise wrong(
            given.key,
            f"{given.name} does not hold one JSON object in each line",
            "write each row as an object in a line of its own, as jq -c '.[]' does of an array",
        )
    kept = {name: _settled(name, kind, roles, given) for name, kind in types.items()}

    def reading(columns: Mapping[str, str]) -> str:
        told = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in columns.items())
        return f"read_json({files}, {lines}, columns={{{told}}}"

    short = _of_64_bits(connection, f"{reading(kept)})", kept, given)
    settled = reading(kept | dict.fromkeys(short, "BIGINT"))
    return _Scan(lambda more: f"{settled}{more})", types.keys())


def _of_64_bits(
    connection: duckdb.DuckDBPyConnection, sql: str, types: Types, given: Input
) -> list[str]:
    """
    The columns of long integers that have none: a negative number is long to DuckDB, too.
    """
    long = [name for name, kind in types.items() if kind == "HUGEINT"]
    if not long:
        return []
    fit = ", ".join(f"bool_and(TRY_CAST({quoted(n)} AS BIGINT) = {quoted(n)})" for n in long)
    (row,) = rows_of(connection, ours(f"SELECT {fit} FROM {sql}", f"source.{given.key}"))
    return [name for name, do_fit in zip(long, row, strict=True) if do_fit is not False]


def _settled(name: str, kind: str, roles: Roles, given: Input) -> str:
    """
    The type that a column of JSON is read as.
    """
    kind = _LIKE_TEXT.sub("VARCHAR", kind)
    if kind != "HUGEINT":
        kind = re.sub(rf"(?<![\w\"])HUGEINT{_TYPE_ENDS}", "BIGINT", kind)
    if name in roles.numbers:
        return "DOUBLE"
    if name in roles.ids or name in (POSITIVE, NEGATIVE):
        return _MIXED.sub("VARCHAR", kind)
    for field in roles.ids:
        kind = re.sub(rf'(?<![\w"])("?{re.escape(field)}"? )JSON{_TYPE_ENDS}', r"\1VARCHAR", kind)
    if name in roles.texts and _MIXED.search(kind):
        raise wrong(
            given.key,
            f"{name} in {given.name} is text in some lines and something else in others, or is"
            " nowhere anything",
            "write it alike in all of them",
        )
    return kind


_SCANS: Mapping[str, Callable[[duckdb.DuckDBPyConnection, Input, Roles], _Scan]] = {
    "parquet": _parquet,
    "csv": _csv,
    "tsv": _tsv,
    "trec": _trec,
    "json": _json,
}
"""How files of each format stand behind FROM."""


def _list(paths: Iterable[Path]) -> str:
    return literals(map(str, paths))
