"""
The files of an input: which there are, what they are known by, and how DuckDB reads them.

Owns the formats that are known by a file's ending, and what is read as text whatever it looks like:
an id such as 007, or a day, stays what it is.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from batchrank.config.schema import StoresTable
from batchrank.domain import SourceFile
from batchrank.errors import Problem, SourceError, StorageError
from batchrank.places.remote import Place, Remote, StoreError
from batchrank.places.stores import AT_HOME
from batchrank.source.files import find, relative
from batchrank.source.reading import opened
from batchrank.source.stage.asking import types_of
from batchrank.source.stage.endings import FORMATS, format_of
from batchrank.source.stage.forms import Relation, Types
from batchrank.source.stage.statement import ours

TREC = {
    "query_id": "VARCHAR",
    "iteration": "VARCHAR",
    "doc_id": "VARCHAR",
    "rank": "BIGINT",
    "score": "DOUBLE",
    "tag": "VARCHAR",
}
"""The six columns of a TREC run (trec_eval's README)."""

_LIKE_TEXT = re.compile(r"\b(DATE|TIMESTAMP WITH TIME ZONE|TIMESTAMP(?:_\w+)?|TIME|UUID)\b")
_HASHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Input:
    """
    The files of one key of `[source]`, in order, with their identities.

    *places* is where they lie; *paths* are the files that DuckDB reads: the same, or copies of what
    lies in a store.
    """

    key: str
    places: tuple[Place, ...]
    files: tuple[SourceFile, ...]
    format: str
    paths: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """
        What it is called in messages.
        """
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].path}{more}" if self.files else f"source.{self.key}"


def input_of(
    key: str,
    path: str,
    base: Path,
    *,
    require_success: bool = False,
    stores: StoresTable = AT_HOME,
) -> Input:
    """
    The files that *path* names, each known by its size and a digest: of its footer if it is
    Parquet, else of all its bytes.

    Raises:
        NotReady: upstream has not finished.
        SourceError: there are none, or files of several formats.
    """
    paths = find(path, base, require_success=require_success, stores=stores)
    formats = {format_of(each) for each in paths}
    if len(formats) > 1 or None in formats:
        strange = next((each.name for each in paths if format_of(each) is None), paths[0].name)
        raise _wrong(
            key,
            f"{strange} is of no format that is known by its ending"
            if None in formats
            else f"files of several formats: {', '.join(sorted(map(str, formats)))}",
            "one of " + ", ".join(FORMATS),
        )
    form = next(iter(formats), None) or "parquet"
    files = tuple(identity(each, relative(each, base), form) for each in paths)
    here = tuple(each for each in paths if isinstance(each, Path))
    return Input(key, paths, files, form, here)


def fetched(given: Input, folder: Path) -> Input:
    """
    *given* with copies below *folder* of what lies in a store: each object is read once.

    Raises:
        SourceError: the store refuses, or an object is another by now.
        StorageError: there is no room.
    """
    paths = []
    for number, (place, file) in enumerate(zip(given.places, given.files, strict=True)):
        if isinstance(place, Remote):
            to = folder / given.key / str(number) / place.name
            paths.append(_copied(place, file, given.format, to))
        else:
            paths.append(place)
    return replace(given, paths=tuple(paths))


def _copied(place: Remote, file: SourceFile, form: str, to: Path) -> Path:
    try:
        blocks = place.blocks()
        to.parent.mkdir(parents=True)
        with to.open("wb") as held:
            held.writelines(blocks)
    except StoreError as error:
        why = f"{place} cannot be read: {error}"
        raise SourceError(why, "look whether the store answers, and run again") from error
    except OSError as error:
        raise StorageError(
            f"{place} cannot be copied to {to.parent}: {error.strerror or error}",
            "make room: what lies in a store and is no nested Parquet is copied to be sorted",
            out_of_space=True,
        ) from error
    if identity(to, file.path, form) != file:
        raise SourceError(f"{place} was changed while it was read", "run again")
    return to


def identity(path: Place, name: str, form: str) -> SourceFile:
    """
    What a file is known by.
    """
    if form == "parquet":
        with opened(path, name) as file:
            return file.identity
    digest, size = hashlib.sha256(), 0
    try:
        for block in _blocks(path):
            digest.update(block)
            size += len(block)
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror or error}") from error
    return SourceFile(name, size, digest.hexdigest(), ())


def _blocks(path: Place) -> Iterator[bytes]:
    if isinstance(path, Remote):
        yield from path.blocks()
        return
    with path.open("rb") as held:
        while block := held.read(_HASHED_BYTES):
            yield block


def relation_of(
    connection: duckdb.DuckDBPyConnection, given: Input, texts: AbstractSet[str]
) -> Relation:
    """
    How *given* is read. Columns named in *texts* are read as text, and so is what only looks like a
    day or a time in files without types.

    Raises:
        SourceError: DuckDB cannot make sense of the files.
    """
    if not given.paths:
        raise SourceError(
            f"source.{given.key}: there are no files", "nothing can be joined with it"
        )
    files = "[" + ", ".join(_literal(str(path)) for path in given.paths) + "]"
    sql = _SCANS[given.format](files, given, texts)
    types = types_of(connection, ours(f"SELECT * FROM {sql}", f"source.{given.key}"))
    if given.format == "json":
        sql = _typed_json(files, types)
        types = types_of(connection, ours(f"SELECT * FROM {sql}", f"source.{given.key}"))
    return Relation(given.name, sql, types)


def _csv(files: str, given: Input, texts: AbstractSet[str]) -> str:
    wanted = texts & set(_head(given.paths[0], ","))
    as_text = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in sorted(wanted))
    return (
        f"read_csv({files}, header=true, types={{{as_text}}})"
        if as_text
        else (f"read_csv({files}, header=true)")
    )


def _tsv(files: str, given: Input, texts: AbstractSet[str]) -> str:
    """
    With a head if its first line has one of our names; else ids and texts, as in MS MARCO's files.
    """
    head = _head(given.paths[0], "\t")
    plain = f"delim='\\t', quote='', escape='', header={str(bool(texts & set(head))).lower()}"
    if texts & set(head):
        names = head
    else:
        names = list(_HEADLESS.get(given.key, {}).get(len(head), ()))
        if not names:
            raise _wrong(
                given.key,
                f"the first line of {given.name} names none of {', '.join(sorted(texts))}",
                "give it a first line with the columns' names",
            )
    columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in names)
    return f"read_csv({files}, {plain}, columns={{{columns}}}, auto_detect=false)"


_HEADLESS: Mapping[str, Mapping[int, Sequence[str]]] = {
    "queries": {2: ("query_id", "query")},
    "corpus": {2: ("doc_id", "text"), 3: ("doc_id", "title", "text")},
    "run": {3: ("query_id", "doc_id", "rank")},
}
"""Columns of files that name none, by what they are for and by how many there are."""


def _trec(files: str, given: Input) -> str:
    columns = ", ".join(f"{_literal(name)}: {_literal(kind)}" for name, kind in TREC.items())
    delimiter = "\t" if "\t" in _first_line(given.paths[0]) else " "
    return (
        f"read_csv({files}, delim={_literal(delimiter)}, quote='', escape='', header=false,"
        f" auto_detect=false, columns={{{columns}}})"
    )


def _typed_json(files: str, types: Types) -> str:
    kept = ((name, _LIKE_TEXT.sub("VARCHAR", kind)) for name, kind in types.items())
    columns = ", ".join(f"{_literal(name)}: {_literal(kind)}" for name, kind in kept)
    return f"read_json({files}, format='newline_delimited', columns={{{columns}}})"


_Scan = Callable[[str, Input, AbstractSet[str]], str]
_SCANS: Mapping[str, _Scan] = {
    "parquet": lambda files, *_: f"read_parquet({files})",
    "csv": _csv,
    "tsv": _tsv,
    "trec": lambda files, given, _: _trec(files, given),
    "json": lambda files, *_: f"read_json({files}, format='newline_delimited')",
}
"""How files of each format stand behind FROM."""


def _head(path: Path, delimiter: str) -> list[str]:
    line = _first_line(path)
    return next(csv.reader([line], delimiter=delimiter), []) if line else []


def _first_line(path: Path) -> str:
    if path.suffix == ".zst":
        return ""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", errors="replace") as held:
            return str(held.readline(1 << 20)).rstrip("\r\n")
    except OSError as error:
        raise SourceError(f"{path.name} cannot be read: {error.strerror or error}") from error


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _wrong(key: str, message: str, remedy: str) -> SourceError:
    return SourceError("", "", [Problem(0, f"source.{key}", message, remedy)])
