"""
The files of an input: which there are, what they are known by, and whether they are whole.

Owns the one look through all of them that comes before they are sorted: DuckDB takes a packed file
that was cut off for a shorter one, and compares no check sums. How their rows are read is told in
`scans`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.config.schema import StoresTable
from batchrank.domain import SourceFile
from batchrank.errors import Problem, SourceError, StorageError
from batchrank.places.remote import Place, Remote, StoreError
from batchrank.places.stores import AT_HOME
from batchrank.source.carried import is_sound
from batchrank.source.files import find, relative
from batchrank.source.reading import opened, unread
from batchrank.source.stage.endings import FORMATS, format_of, packing_of

_BYTES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 2_048


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

    @property
    def with_rows(self) -> tuple[Path, ...]:
        """
        Its files, but for Parquet without rows: whoever writes an empty table seldom knows its
        columns. If none has any, the first one.
        """
        if self.format != "parquet":
            return self.paths
        held = zip(self.paths, self.files, strict=True)
        return tuple(path for path, file in held if file.rows) or self.paths[:1]


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
        raise wrong(
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
    *given* with copies below *folder* of what lies in a store; the names of Hive's folders stay.

    Raises:
        SourceError: the store refuses, or an object is another by now.
        StorageError: the store does not answer, or there is no room.
    """
    paths = []
    for number, (place, file) in enumerate(zip(given.places, given.files, strict=True)):
        if isinstance(place, Remote):
            to = folder.joinpath(given.key, str(number), *place.uri.segments)
            paths.append(_copied(place, file, given.format, to))
        else:
            paths.append(place)
    return replace(given, paths=tuple(paths))


def _copied(place: Remote, file: SourceFile, form: str, to: Path) -> Path:
    try:
        to.parent.mkdir(parents=True)
        place.fetch(to)
    except StoreError as error:
        raise unread(str(place), error) from error
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
    except StoreError as error:
        raise unread(name, error) from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror or error}") from error
    return SourceFile(name, size, digest.hexdigest(), ())


def _blocks(path: Place) -> Iterator[bytes]:
    if isinstance(path, Remote):
        yield from path.blocks()
        return
    with path.open("rb") as held:
        while block := held.read(_BYTES_AT_ONCE):
            yield block


# --- the look through them ------------------------------------------------------------------------


def look_through(given: Input, columns: Collection[str]) -> None:
    """
    Read all files once, of Parquet those of the *columns* that it has.

    Raises:
        SourceError: one is cut off or damaged, or a text of it is not UTF-8; with its row group.
    """
    for path, file in zip(given.paths, given.files, strict=True):
        if given.format == "parquet":
            _look_at_pages(path, file.path, columns)
        elif packing := packing_of(path):
            _unpack(path, file.path, packing)


def _look_at_pages(path: Path, name: str, columns: Collection[str]) -> None:
    with pq.ParquetFile(
        path, buffer_size=_BYTES_AT_ONCE, pre_buffer=False, page_checksum_verification=True
    ) as file:
        names = [field.name for field in file.schema_arrow if field.name in columns]
        for number in range(file.num_row_groups):
            pieces = file.iter_batches(
                _ROWS_AT_ONCE, row_groups=[number], columns=names, use_threads=False
            )
            with _decoding(name, number):
                for piece in pieces:
                    _refuse_unsound(piece, name, number)


@contextmanager
def _decoding(name: str, number: int) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        why = str(error).strip().partition("\n")[0]
        raise SourceError(
            f"{name}: row group {number} (counted from 0) cannot be decoded: {why}",
            "write the file anew, or take a sound copy of it",
        ) from error


def _refuse_unsound(piece: pa.RecordBatch, name: str, number: int) -> None:
    for column, values in zip(piece.schema.names, piece.columns, strict=True):
        if not is_sound(values):
            raise SourceError(
                f"{name}: row group {number} (counted from 0): {column} holds text that is not"
                " UTF-8",
                "write it as UTF-8, or as binary if it is no text",
            )


def _unpack(path: Path, name: str, packing: str) -> None:
    try:
        with pa.input_stream(str(path), compression=packing) as held:
            while held.read(_BYTES_AT_ONCE):
                pass
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            f"{name} cannot be unpacked: {error}",
            "it was cut off, is still being written, or is damaged: write it anew",
        ) from error


def wrong(key: str, message: str, remedy: str) -> SourceError:
    """
    The error about the files of one key.
    """
    return SourceError("", "", [Problem(0, f"source.{key}", message, remedy)])
