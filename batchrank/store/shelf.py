"""
Where parts end up: a folder of this machine, or a prefix in an object store.

Owns what it takes until a reader sees a file whole and nobody can take it away again. A folder: the
file is renamed into it, and file and folders are synced. A store: the object is put in one piece
and read back; whether a put that got no answer has come through is settled by its checksum. Decides
nothing about what is put.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from batchrank.errors import OutputError, StorageError
from batchrank.places.remote import Place, Remote, StoreError
from batchrank.store.disk import (
    make_folder,
    storage_error,
    sync_file,
    sync_folder,
)
from batchrank.store.parts import sha256_of

WAITS_S = (0.5, 2.0, 5.0, 10.0)
"""Before a put is tried again, each after the store's own client has given up."""

BESIDE = "_batchrank"
"""Beside outputs in a store: a prefix that readers of dated folders leave out, as it begins so."""

OWNER = "owner"
"""What the mark is called there."""

_ENVELOPE = (
    "look whether the address is that of the store; one that keeps the checksums that AWS's client"
    " sends as part of the object needs AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
)

Tell = Callable[[str], None]
"""Hears of every named point on a file's way."""


class Shelf(Protocol):
    """
    What an output folder needs of the place that it lies at.
    """

    def prepare(self) -> None:
        """
        Make it, or see that it can be written to.

        Raises:
            OutputError: it cannot.
        """

    def aside(self, staging: Path) -> Path:
        """
        The folder of this machine that files are made in before they get their place.
        """

    def names(self) -> Iterator[str]:
        """
        The names in it, in no order.
        """

    def put(self, file: Path, tell: Tell) -> None:
        """
        Give *file*, which lies aside, its place under its own name, for good.

        Raises:
            StorageError: for good, too.
        """

    def sha256(self, name: str) -> str:
        """
        The hex SHA-256 of what lies there.

        Raises:
            OSError: it cannot be read.
        """

    def has(self, name: str) -> bool:
        """
        Tell whether it is there.
        """

    def mark(self, name: str) -> None:
        """
        Make the empty file *name*, for good.
        """

    def remove(self, names: Sequence[str]) -> None:
        """
        Take these away, for good.
        """

    def take_down(self, to: Path) -> None:
        """
        Move all of it to *to*, a folder of this machine that is not there yet.

        Raises:
            OSError: it cannot be moved.
        """

    def keep_beside(self, name: str, content: bytes) -> None:
        """
        Keep what is about the output where whoever has only the store can find it.
        """

    def check_owner(self, owner: Callable[[], str]) -> None:
        """
        See that it is not kept for anybody but whom *owner* names, one state folder.

        Raises:
            OutputError: it is another's.
        """

    def claim(self, owner: Callable[[], str]) -> None:
        """
        Keep it for *owner*.

        Raises:
            OutputError: it is another's.
        """

    def yield_up(self) -> None:
        """
        Take that back.
        """


def shelf_of(place: Place) -> Shelf:
    """
    The shelf at *place*.
    """
    return RemoteShelf(place) if isinstance(place, Remote) else FolderShelf(place)


# --- a folder of this machine ---------------------------------------------------------------------


class FolderShelf:
    """
    A folder on a disk.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self) -> None:
        """
        Make the folder.
        """
        make_folder(self._path)

    def aside(self, staging: Path) -> Path:
        """
        *staging* if a rename leads from there into the folder, else a hidden folder beside it.
        """
        device = self._path.stat().st_dev
        if staging.stat().st_dev == device:
            return staging
        beside = self._path.parent / f".{self._path.name}.batchrank"
        make_folder(beside)
        if beside.stat().st_dev != device:
            raise OutputError(
                f"{self._path} is a mount point: a part cannot be renamed into it from outside",
                "name a folder below it as output.path",
            )
        return beside

    def names(self) -> Iterator[str]:
        """
        As `Shelf` says.
        """
        return (entry.name for entry in self._path.iterdir())

    def put(self, file: Path, tell: Tell) -> None:
        """
        Sync, rename, sync both folders.
        """
        with file.open("rb") as held:
            sync_file(held.fileno())
        tell("synced")
        file.replace(self._path / file.name)
        tell("renamed")
        sync_folder(self._path)
        sync_folder(file.parent)
        tell("folder_synced")

    def sha256(self, name: str) -> str:
        """
        As `Shelf` says.
        """
        return sha256_of(self._path / name)

    def has(self, name: str) -> bool:
        """
        As `Shelf` says.
        """
        return (self._path / name).exists()

    def mark(self, name: str) -> None:
        """
        There is no moment at which it is half there.
        """
        path = self._path / name
        try:
            with path.open("xb") as file:
                sync_file(file.fileno())
        except OSError as error:
            raise storage_error(f"cannot write {path}", error) from error
        sync_folder(self._path)

    def remove(self, names: Sequence[str]) -> None:
        """
        As `Shelf` says.
        """
        for name in names:
            (self._path / name).unlink()
        sync_folder(self._path)

    def take_down(self, to: Path) -> None:
        """
        Rename it.
        """
        self._path.rename(to)

    def keep_beside(self, name: str, content: bytes) -> None:
        """
        Nothing: the state folder lies near.
        """

    def check_owner(self, owner: Callable[[], str]) -> None:
        """
        Nothing: a lock keeps others out, and what they left is seen.
        """

    def claim(self, owner: Callable[[], str]) -> None:
        """
        Nothing, either.
        """

    def yield_up(self) -> None:
        """
        Nothing.
        """


# --- a prefix in a store --------------------------------------------------------------------------


class RemoteShelf:
    """
    A prefix in an object store. *pause* waits so many seconds.
    """

    def __init__(self, place: Remote, pause: Callable[[float], None] = time.sleep) -> None:
        self._place = place
        self._pause = pause
        self._claimed: str | None = None

    def prepare(self) -> None:
        """
        See that the bucket answers, and that the prefix is not the whole of it.
        """
        if not self._place.uri.key:
            raise OutputError(
                f"{self._place} is a whole bucket", "name a prefix in it as output.path"
            )
        try:
            found = self._place.is_file()
            _names_in(self._place)  # a bucket that is not there says so when it is listed
        except StoreError as error:
            raise OutputError(
                f"{self._place} cannot be looked into: {error}",
                "look at the address, the credentials and [stores]",
            ) from error
        if found:
            raise OutputError(f"{self._place} is an object", "name a prefix as output.path")

    def aside(self, staging: Path) -> Path:
        """
        *staging*: a put reads from anywhere.
        """
        return staging

    def names(self) -> Iterator[str]:
        """
        As `Shelf` says.
        """
        with self._told("listed"):
            return iter(_names_in(self._place))

    def put(self, file: Path, tell: Tell) -> None:
        """
        Put it, and read it back.
        """
        self._refuse_taken()
        self._put(self._place / file.name, self._way(file), sha256_of(file))
        tell("put")
        file.unlink()
        tell("aside_removed")

    def _way(self, file: Path) -> Callable[[Remote], None]:
        """
        How *file* comes to its place without being seen before it is whole: Azure's client puts an
        empty object there first, so that there it is put beside, and copied by the store.
        """
        if self._place.uri.scheme != "abfss":
            return lambda to: to.put(file)
        beside = self._beside / f"{file.name}.new"

        def put(to: Remote) -> None:
            beside.put(file)
            to.copy_from(beside)
            beside.unlink(missing_ok=True)

        return put

    def _put(self, to: Remote, put: Callable[[Remote], None], sha256: str) -> None:
        """
        Try until *to* holds what it should; what a store says of a put is not taken for granted.
        """
        failed: OSError | None = None
        for wait_s in (0.0, *WAITS_S):
            self._pause(wait_s)
            try:
                put(to)
            except StoreError as error:
                failed = error
            try:
                if _sha256(to) == sha256:
                    return
            except OSError as error:
                failed = failed or error
        if failed is None:
            raise StorageError(f"cannot put {to}: it reads back as something else", _ENVELOPE)
        raise StorageError(
            f"cannot put {to}: {failed}",
            "run again when the store answers: what was paid for is kept, and nobody is called for"
            " it again",
        )

    def sha256(self, name: str) -> str:
        """
        As `Shelf` says; a store that does not answer is no sign of damage.
        """
        with self._told("read"):
            return _sha256(self._place / name)

    def has(self, name: str) -> bool:
        """
        As `Shelf` says.
        """
        with self._told("looked into"):
            return (self._place / name).is_file()

    def mark(self, name: str) -> None:
        """
        As `put`.
        """
        nothing = hashlib.sha256(b"").hexdigest()
        self._put(self._place / name, lambda to: to.write_bytes(b""), nothing)

    def remove(self, names: Sequence[str]) -> None:
        """
        As `Shelf` says.
        """
        with self._told("changed"):
            for name in names:
                (self._place / name).unlink(missing_ok=True)

    def take_down(self, to: Path) -> None:
        """
        Copy every object, and only then delete any.
        """
        with self._told("set aside"):
            self._take_down(to)

    def _take_down(self, to: Path) -> None:
        entries = list(self._place.iterdir())
        if below := next((entry for entry in entries if not entry.is_file()), None):
            raise OutputError(
                f"{self._place} cannot be set aside: {below} is another folder, and no part",
                "move it out of the output",
            )
        aside = to.with_name(f".{to.name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for entry in entries:
            entry.fetch(aside / entry.name)
        aside.rename(to)
        for entry in entries:
            entry.unlink(missing_ok=True)

    def keep_beside(self, name: str, content: bytes) -> None:
        """
        Put it below `_batchrank`, beside the prefix.
        """
        self._keep(self._beside / name, content)

    def check_owner(self, owner: Callable[[], str]) -> None:
        """
        Look at the mark beside the prefix, if there is one.
        """
        held = self._owner()
        if held is not None and held != owner():
            raise OutputError(
                f"{self._place} is written from another state folder ({held[:200]})",
                "run it there, or name another output.path; if that state is lost, delete"
                f" {self._beside / OWNER}",
            )

    def claim(self, owner: Callable[[], str]) -> None:
        """
        Leave the mark, and never in place of another's, however often it takes to put it. Two that
        begin at the same moment may both think that it is theirs for as long as a put takes: so it
        is looked at again before each part, and the first to put has lost.
        """
        mine = owner().encode()

        def put(there: Remote) -> None:
            if self._owner() is None:
                there.write_bytes(mine)
            self.check_owner(owner)

        self._put(self._beside / OWNER, put, hashlib.sha256(mine).hexdigest())
        self._claimed = mine.decode()

    def _refuse_taken(self) -> None:
        """
        Stop before somebody else's parts are overwritten.
        """
        if self._claimed and (held := self._owner()) not in (None, self._claimed):
            raise StorageError(
                f"{self._place} is written from another state folder by now ({str(held)[:200]})",
                "see that one machine only runs this job: what was paid for is kept",
            )

    def _owner(self) -> str | None:
        with self._told("looked into"):
            try:
                return (self._beside / OWNER).read_bytes().decode(errors="replace")
            except FileNotFoundError:
                return None

    def yield_up(self) -> None:
        """
        Take the mark away.
        """
        with self._told("changed"):
            (self._beside / OWNER).unlink(missing_ok=True)

    @property
    def _beside(self) -> Remote:
        return self._place.parent / BESIDE / self._place.name

    def _keep(self, to: Remote, content: bytes) -> None:
        self._put(to, lambda there: there.write_bytes(content), hashlib.sha256(content).hexdigest())

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            raise StorageError(
                f"{self._place} cannot be {what}: {error}",
                "run again when the store answers: what was paid for is kept",
            ) from error


def _names_in(place: Remote) -> list[str]:
    try:
        return [entry.name for entry in place.iterdir()]
    except FileNotFoundError:
        return []


def _sha256(place: Remote) -> str:
    digest = hashlib.sha256()
    for block in place.blocks():
        digest.update(block)
    return digest.hexdigest()
