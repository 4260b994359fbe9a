"""
Objects in a store that answer as `pathlib.Path` does, so that whoever looks for files need not ask
where they lie.

Owns the words for what a store refuses, and that an object appears whole or not at all: what is put
is handed over in one piece. Never tries again what a store's own client gave up.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import pyarrow as pa

from batchrank.config.schema import StoresTable
from batchrank.errors import StorageError
from batchrank.places.stores import AT_HOME, file_system
from batchrank.places.uri import Uri, is_uri, parsed

T = TypeVar("T")

BLOCK_BYTES = 8 * 2**20
"""So much is asked for at once."""


class StoreError(StorageError, OSError):
    """
    A store refused, or was not reached; its text is for a person. Whoever expects the system's
    errors gets it as one, and where nobody does it ends a run as a disk's failure would.

    *outage*: nothing is known to be wrong with the address or the credentials.
    """

    def __init__(self, message: str, *, outage: bool = True) -> None:
        super().__init__(message)
        self.outage = outage


class Remote:
    """
    An object, or the prefix that stands for a folder.

    A *snapshot* remembers every folder that it has listed, and so do the places below it: for who
    looks at many of them at one moment.
    """

    __slots__ = ("_kind", "_seen", "_stores", "uri")

    def __init__(
        self,
        uri: Uri,
        stores: StoresTable = AT_HOME,
        kind: str | None = None,
        seen: dict[str, dict[str, str]] | None = None,
    ) -> None:
        self.uri = uri
        self._stores = stores
        self._kind = kind
        self._seen = seen

    # --- names ------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return str(self.uri)

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __lt__(self, other: Remote) -> bool:
        return self.uri < other.uri

    def __truediv__(self, name: str) -> Self:
        return self.joinpath(*name.split("/"))

    def joinpath(self, *names: str) -> Self:
        """
        The place below.
        """
        added = tuple(part for name in names for part in name.split("/") if part)
        return self._at((*self.uri.segments, *added))

    def with_name(self, name: str) -> Self:
        """
        The place beside.
        """
        return self.parent.joinpath(name)

    @property
    def name(self) -> str:
        """
        The last name in the key; that of the bucket for the whole of it.
        """
        return self.uri.segments[-1] if self.uri.key else self.uri.bucket

    @property
    def suffix(self) -> str:
        """
        As a path's.
        """
        return PurePosixPath(self.name).suffix if self.uri.key else ""

    @property
    def parent(self) -> Self:
        """
        The folder above; a bucket is its own, as `/` is.
        """
        return self._at(self.uri.segments[:-1])

    @property
    def parents(self) -> tuple[Self, ...]:
        """
        All folders above, the nearest first.
        """
        segments = self.uri.segments
        return tuple(self._at(segments[:n]) for n in range(len(segments) - 1, -1, -1))

    def is_relative_to(self, other: object) -> bool:
        """
        Tell whether it lies in *other*, or is it.
        """
        return isinstance(other, Remote) and (self == other or other in self.parents)

    def resolve(self) -> Self:
        """
        Itself: a key is what it is.
        """
        return self

    def snapshot(self) -> Self:
        """
        The same place, which remembers from now on what it has listed.
        """
        return type(self)(self.uri, self._stores, self._kind, {})

    def _at(self, segments: tuple[str, ...], kind: str | None = None) -> Self:
        return type(self)(self.uri.of(segments), self._stores, kind, self._seen)

    # --- what is there ----------------------------------------------------------------------------

    def exists(self) -> bool:
        """
        Tell whether there is an object, or any below it.
        """
        return self._found() != ""

    def is_file(self) -> bool:
        """
        Tell whether it is an object.
        """
        return self._found() == "file"

    def is_dir(self) -> bool:
        """
        Tell whether there are objects below it. A bucket that is there has any, as it were.
        """
        return self._found() == "folder"

    def is_symlink(self) -> bool:
        """
        Tell that stores have none.
        """
        return False

    def iterdir(self) -> Iterator[Self]:
        """
        Yield what lies in it, by name.

        Raises:
            FileNotFoundError: it is no folder.
            StoreError: the store refuses.
        """
        for name, kind in sorted(self._listed().items()):
            yield self._at((*self.uri.segments, name), kind)

    def glob(self, pattern: str) -> Iterator[Self]:
        """
        Yield what is below it by a pattern without `**`.
        """
        head, _, rest = pattern.partition("/")
        entries = list(self.iterdir()) if self.is_dir() else []
        for entry in entries:
            if fnmatchcase(entry.name, head):
                if not rest:
                    yield entry
                elif entry.is_dir():
                    yield from entry.glob(rest)

    def _found(self) -> str:
        if self._kind is None:
            listed = None if self._seen is None else self._seen.get(str(self.parent))
            if listed is not None and self.uri.key:
                return listed.get(self.name, "")
            kind = self._asked(lambda held: _kind(held.get_file_info(self.uri.path)))
            if self._seen is None:
                return kind
            self._kind = kind
        return self._kind

    def _listed(self) -> dict[str, str]:
        if self._seen is not None and str(self) in self._seen:
            return self._seen[str(self)]
        from pyarrow import fs

        infos = self._asked(lambda held: held.get_file_info(fs.FileSelector(self.uri.path)))
        if any(info.path.rstrip("/") == self.uri.path for info in infos):
            # Nobody would miss what lies there, and a source might look empty.
            why = "a key in it has an empty name between slashes: give that another name"
            raise StoreError(f"{self}: {why}", outage=False)
        listed = {info.base_name: _kind(info) for info in infos}
        if self._seen is not None:
            self._seen[str(self)] = listed
        return listed

    # --- bytes ------------------------------------------------------------------------------------

    def open(self) -> pa.NativeFile:
        """
        The object for reading, at any place.

        Raises:
            FileNotFoundError: there is none.
            StoreError: the store refuses.
        """
        return self._asked(lambda held: held.open_input_file(self.uri.path))

    def version(self) -> object:
        """
        What is another for another object of the same name.
        """
        with self.open() as held:
            return self._asked(lambda _: held.metadata())

    def size_bytes(self) -> int:
        """
        The object's size.
        """
        size = self._asked(lambda held: held.get_file_info(self.uri.path)).size
        if size is None:
            raise FileNotFoundError(2, "there is no such object", str(self))
        return int(size)

    def blocks(self) -> Iterator[bytes]:
        """
        Yield its bytes, some at a time.
        """
        with self.open() as held:
            while block := self._asked(lambda _: held.read(BLOCK_BYTES)):
                yield block

    def read_bytes(self) -> bytes:
        """
        All of it.
        """
        return b"".join(self.blocks())

    def fetch(self, to: Path) -> None:
        """
        Copy it into the file *to*.
        """
        with to.open("wb") as file:
            for block in self.blocks():
                file.write(block)

    def write_bytes(self, content: bytes | mmap.mmap) -> None:
        """
        Put an object, whole, in place of any that is there.

        A store's client may give up although the store has taken it: who needs to know reads it.

        Raises:
            StoreError: the store refuses, or did not answer.
        """

        def put(held: Any) -> None:
            # Closing is what makes an object of it, and whoever drops it closes it, with the
            # interpreter's lock held: so all is written at once, and it is closed here.
            stream = held.open_output_stream(self.uri.path, buffer_size=0)
            try:
                stream.write(content)
            finally:
                stream.close()

        self._asked(put)

    def put(self, file: Path) -> None:
        """
        Put the bytes of *file*, whole.

        Raises:
            StoreError: as `write_bytes`.
        """
        if not file.stat().st_size:
            self.write_bytes(b"")
            return
        with file.open("rb") as held, mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            self.write_bytes(whole)

    def copy_from(self, other: Remote) -> None:
        """
        Have the store copy *other*, which lies in it, too.

        Raises:
            StoreError: as `write_bytes`.
        """
        self._asked(lambda held: held.copy_file(other.uri.path, self.uri.path))

    def unlink(self, *, missing_ok: bool = False) -> None:
        """
        Delete the object. pyarrow may leave an empty one in its place that marks the folder.
        """
        try:
            self._asked(lambda held: held.delete_file(self.uri.path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def _asked(self, question: Callable[[Any], T]) -> T:
        try:
            return question(file_system(self.uri, self._stores))
        except (OSError, pa.ArrowException) as error:  # the latter if Azure's client finds no key
            # Google's client says so of a folder in an error of no class of its own.
            if isinstance(error, FileNotFoundError) or "No such file or directory" in str(error):
                raise FileNotFoundError(2, "there is no such object", str(self)) from error
            raise in_words(error) from None  # what is above may hold a signature


Place = Path | Remote
"""Where something lies."""


def absolute(base: Path, path: str) -> Path:
    """
    The place on this machine that *path* means, from *base* if it is relative; links are followed.

    Raises:
        RuntimeError: it begins with the home of nobody, or its links go in a circle.
    """
    return (base / Path(path).expanduser()).resolve()


def placed(base: Path, path: str, stores: StoresTable = AT_HOME) -> Place:
    """
    The place that *path* means, from *base* if it is relative.

    Raises:
        ValueError: it is an address that is not taken, as `uri.parsed` says.
    """
    return Remote(parsed(path), stores) if is_uri(path) else base / path


def is_within(place: Place, folder: Place) -> bool:
    """
    Tell whether *place* is *folder*, or lies in it.
    """
    if isinstance(place, Remote) or isinstance(folder, Remote):
        return isinstance(place, Remote) and place.is_relative_to(folder)
    return place.is_relative_to(folder)


def readable(place: Place) -> Path | pa.NativeFile:
    """
    What pyarrow reads the file at *place* from.

    Raises:
        FileNotFoundError, StoreError: as `Remote.open`.
    """
    return place.open() if isinstance(place, Remote) else place


def size_bytes(place: Place) -> int:
    """
    The size of the file at *place*.
    """
    return place.size_bytes() if isinstance(place, Remote) else place.stat().st_size


def _kind(info: Any) -> str:
    from pyarrow import fs

    return {fs.FileType.File: "file", fs.FileType.Directory: "folder"}.get(info.type, "")


_SETTINGS = {
    "ACCESS_DENIED": "access denied: look at the credentials, and at what they allow",
    "INVALID_ACCESS_KEY_ID": "the store does not know this access key",
    "REQUEST_TIME_TOO_SKEWED": "this machine's clock is wrong",
    "ExpiredToken": "the credentials have expired",
    "HTTP status 301": "the bucket lies in another region: set stores.s3.region",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is not that of the access key",
    "NO_SUCH_BUCKET": "there is no such bucket",
}
_REFUSALS = {**_SETTINGS, "SLOW_DOWN": "the store asks to slow down (503), again and again"}
"""
What a person is told, by a word in what pyarrow says. What `_SETTINGS` has takes a person to mend.
"""


def is_of_store(error: Exception) -> bool:
    """
    Tell what a store or the way to it did from what stands in an object.
    """
    if isinstance(error, StoreError):
        return True
    return isinstance(error, OSError) and any(mark in str(error) for mark in _MARKS)


_MARKS = ("AWS Error", "curlCode", "HTTP status", "google::cloud", "CURL", "Azure")
"""In what pyarrow says of a store's answers; it raises the same class for bytes without sense."""


def in_words(error: Exception) -> StoreError:
    """
    What a store or the way to it did, for a person.
    """
    if isinstance(error, StoreError):
        return error
    text = said(error)
    told = next((words for mark, words in _REFUSALS.items() if mark in text), None)
    outage = not any(mark in text for mark in _SETTINGS)
    return StoreError(f"{told} ({text})" if told else text, outage=outage)


def said(error: Exception) -> str:
    """
    The first line of *error*. Azure's client tells addresses with the token that opens them: what
    makes one valid is left out.
    """
    line = str(error).strip().partition("\n")[0]
    return _SIGNATURE.sub(r"\1***", line) or type(error).__name__


_SIGNATURE = re.compile(r"(?i)\b(sig(?:nature)?=)[^&\s'\"]+")
