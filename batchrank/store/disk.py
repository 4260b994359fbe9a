"""
Disks as they are: what is durable when, whose folder it is, how much room is left.

Owns every fsync but SQLite's and those of what is staged (which can be made again), the lock that
keeps a second runner out, and the reserve that lets a run leave in good order when a disk is full.
A first failed fsync is final: after it nobody knows what the disk holds (Linux forgets the dirty
pages), so it is raised and never tried again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from batchrank.errors import AlreadyRunning, OutputError, StorageError
from batchrank.places.remote import Place

FOLDER_MODE = 0o700
FILE_MODE = 0o600

NETWORK_FILE_SYSTEMS = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb", "smbfs", "smb2", "smb3", "afpfs", "webdav", "davfs"),
        *("9p", "virtiofs", "ceph", "lustre", "glusterfs", "beegfs", "gpfs", "afs"),
        *("vboxsf", "prl_fs", "drvfs", "fuse", "macfuse", "osxfuse"),
    )
)
"""SQLite's locks and shared memory cannot be trusted there."""

LOCAL_FUSE = frozenset({"fuseblk", "fuse.ntfs-3g", "fuse.ntfs", "fuse.exfat", "fuse.encfs"})
"""Every other `fuse.*` may be anything, a bucket included."""


# --- what is durable ------------------------------------------------------------------------------


def sync_file(file: int) -> None:
    """
    Return when the bytes of the open *file* are on the disk.

    Raises:
        StorageError: for good; do not try again.
    """
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        else:
            os.fsync(file)
    except OSError as error:
        raise storage_error("fsync failed", error) from error


def sync_folder(folder: Path) -> None:
    """
    Return when the names in *folder* are on the disk.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_file(file)
    finally:
        os.close(file)


def write_durably(path: Path, content: bytes) -> None:
    """
    Replace *path* whole: readers see the old content or the new, after a power cut too.
    """
    with whole(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """
    A file to write to, which becomes *path* at the end, for good; nothing of it stays if that
    fails.

    Raises:
        StorageError: the disk does not let us.
    """
    with replacing(path) as aside, aside.open("wb") as file:
        yield file
        file.flush()
        sync_file(file.fileno())
    sync_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """
    A name to write to, which becomes *path* at the end. If that fails what was written is removed:
    half of it is of no use, and takes the room that is short.

    Raises:
        StorageError: the disk does not let us.
    """
    aside = path.with_name(f".{path.name}.new")
    try:
        yield aside
        aside.replace(path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error) from error
    finally:
        with contextlib.suppress(OSError):  # nearly always: it is *path* by now
            aside.unlink()


def storage_error(what: str, error: OSError) -> StorageError:
    """
    An OSError in our tree, told apart by whether the disk is full.
    """
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "make room and run again: what was paid for is kept" if full else ""
    return StorageError(f"{what}: {error.strerror or error}", hint, out_of_space=full)


# --- whose folder it is ---------------------------------------------------------------------------


TRIAL = ".batchrank-trial-"


def make_folder(folder: Path, *, private: bool = False) -> None:
    """
    Make sure that *folder* is there, after a power cut too, and can be written to.

    Raises:
        OutputError: saying what is in the way.
    """
    try:
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True, mode=FOLDER_MODE if private else 0o777)
        for place in made:  # what is durable in a folder is lost with the folder's own name
            sync_folder(place.parent)
        (folder / f"{TRIAL}{os.getpid()}").touch()
        for trial in folder.glob(f"{TRIAL}*"):  # that of a process that was killed just here, too
            trial.unlink(missing_ok=True)
    except OSError as error:
        message = f"cannot write to {folder}: {error.strerror or error}"
        raise OutputError(message, "name another folder, or change its owner or mode") from error


def file_system_of(path: Path, mounts: Iterable[tuple[str, str]] | None = None) -> str:
    """
    The type of the file system that *path* lies on, as the kernel calls it; "" if unknown.

    *mounts* are pairs of mount point and type; those of this machine unless given.
    """
    if mounts is None:
        mounts = ((p.mountpoint, p.fstype) for p in psutil.disk_partitions(all=True))
    resolved = path.resolve()
    best, kind = -1, ""
    for point, fstype in mounts:
        # Of two mounts on one point the later one is in force.
        if resolved.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), fstype
    return kind


def identity_of(path: str | Path) -> tuple[int, int] | None:
    """
    Which file lies at *path* now; None if none does, as with a database in memory.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - at every commit, and `Path` takes thrice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def refuse_network(path: Path, what: str, remedy: str) -> None:
    """
    Refuse a place on a network file system, where it is or will be made.

    Raises:
        OutputError: in these words.
    """
    above = next(p for p in (path, *path.parents) if p.exists())
    fstype = file_system_of(above)
    if is_network(fstype):
        message = f"{what} {path} would lie on a network file system ({fstype}), where a ledger"
        raise OutputError(f"{message} cannot be trusted to survive", remedy)


def is_network(fstype: str) -> bool:
    """
    Tell whether locks and fsync on such a file system are not those of a local disk.
    """
    if fstype in LOCAL_FUSE:
        return False
    return fstype in NETWORK_FILE_SYSTEMS or fstype.startswith(("fuse.", "nfs", "smb"))


# --- one runner an output -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holder:
    """
    Who holds a lock, for the message only: the kernel alone decides who does.
    """

    pid: int
    host: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


LOCK_TRIES, LOCK_WAIT_S = 5, 0.02


class Lock:
    """
    The right to run for one output: a lock on *file* in its state folder, and on the output itself
    if it lies on this machine.

    The kernel gives both back when the process dies, however it dies. Nothing is ever unlinked.
    """

    def __init__(self, file: Path, output: Place, since: str) -> None:
        self._state = file
        self._output = output
        self._since = since
        self._files: list[int] = []

    def __enter__(self) -> Self:
        try:
            file = os.open(self._state, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            who = holder(self._state) or "another process"
            self._take(file, f"{self._output} is being written by {who}")
            os.ftruncate(file, 0)
            os.write(file, json.dumps([os.getpid(), socket.gethostname(), self._since]).encode())
            if isinstance(self._output, Path):
                folder = os.open(self._output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._take(folder, f"{self._output} is being written by another job")
        except BaseException as error:  # interrupted, too: nothing stays locked or open
            self.__exit__(None, None, None)
            if isinstance(error, OSError):
                raise storage_error(f"cannot lock {self._output}", error) from error
            raise
        return self

    def _take(self, file: int, taken: str) -> None:
        self._files.append(file)
        for _ in range(LOCK_TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(LOCK_WAIT_S)  # `is_held` of somebody's `status` may have it for an instant
        raise AlreadyRunning(taken, "one runner an output: wait for it, or stop it")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._files:
            os.close(self._files.pop())


def holder(lock: Path) -> Holder | None:
    """
    Who wrote their name into the file *lock* last; None if nobody did, or it cannot be read.
    """
    try:
        pid, host, since = json.loads(lock.read_bytes())
    except (OSError, ValueError, TypeError):
        return None
    return Holder(pid, host, since)


def is_held(lock: Path) -> bool:
    """
    Tell whether some process holds *lock* now.
    """
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


# --- room -----------------------------------------------------------------------------------------


class Reserve:
    """
    Some megabytes that are given back when the disk is full, so that paid replies find room.
    """

    BYTES = 8 * 1024 * 1024

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self) -> None:
        """
        Set the room aside.

        Raises:
            StorageError: there is not even so little.
        """
        try:
            with self._path.open("ab") as file:
                _allocate(file, self.BYTES)
        except OSError as error:
            raise storage_error(f"no room for {self._path}", error) from error

    def give_back(self) -> None:
        """
        Make the room free; nothing happens if it is already.
        """
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def _allocate(file: IO[bytes], size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    elif file.tell() < size:
        file.write(bytes(size - file.tell()))
