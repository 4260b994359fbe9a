"""
Disks as they are: whole files or none, one runner an output, room for what is paid.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batchrank.errors import AlreadyRunning, Exit, OutputError, StorageError
from batchrank.store import disk
from batchrank.store.disk import (
    Holder,
    Lock,
    Reserve,
    file_system_of,
    holder,
    is_held,
    is_network,
    make_folder,
    storage_error,
    sync_file,
    sync_folder,
    write_durably,
)

SINCE = "2026-11-20T12:00:00+00:00"


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """
    Let the kernel refuse to write beyond so many bytes of a file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- whole files or none --------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, b"old"], ids=["new", "replaced"])
def test_a_file_is_replaced_whole(tmp_path: Path, before: bytes | None) -> None:
    """
    Nothing else is left in the folder.
    """
    path = tmp_path / "manifest.json"
    if before is not None:
        path.write_bytes(before)

    write_durably(path, b"new content")

    assert b"new content" == path.read_bytes()
    assert [path] == list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """
    It is told as what it is, with what to do.
    """
    path = tmp_path / "manifest.json"
    path.write_bytes(b"old")
    (tmp_path / ".manifest.json.new").symlink_to("/dev/full")

    with pytest.raises(StorageError, match=f"cannot write {path}: No space left") as full:
        write_durably(path, b"new content")

    assert full.value.out_of_space
    assert "make room" in full.value.hint
    assert b"old" == path.read_bytes()


def test_a_file_that_may_not_grow_leaves_the_old_one(tmp_path: Path) -> None:
    """
    Half of the new content is not seen under the name, wherever the kernel stops.
    """
    path = tmp_path / "manifest.json"
    path.write_bytes(b"old")

    for size in (0, 1, 4096, 99_999):
        with files_no_longer_than(size), pytest.raises(StorageError) as refused:
            write_durably(path, bytes(100_000))
        assert not refused.value.out_of_space
        assert b"old" == path.read_bytes()

    write_durably(path, bytes(100_000))
    assert 100_000 == path.stat().st_size


def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    """
    Whatever the system says becomes an error of ours.
    """
    with pytest.raises(StorageError, match="No such file or directory"):
        write_durably(tmp_path / "nowhere" / "manifest.json", b"x")


def test_a_failed_fsync_is_told() -> None:
    """
    A pipe cannot be synced: that is the kernel's own refusal, and it is raised.
    """
    reading, writing = os.pipe()
    try:
        with pytest.raises(StorageError, match="fsync failed: Invalid argument"):
            sync_file(writing)
    finally:
        os.close(reading)
        os.close(writing)


def test_files_and_folders_can_be_synced(tmp_path: Path) -> None:
    """
    The usual case says nothing.
    """
    with (tmp_path / "a").open("wb") as file:
        sync_file(file.fileno())
    sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("number", "full"),
    [
        (errno.ENOSPC, True),
        (errno.EDQUOT, True),
        (errno.EIO, False),
        (errno.EFBIG, False),
        (errno.EROFS, False),
        (errno.EACCES, False),
    ],
    ids=errno.errorcode.get,
)
def test_only_a_full_disk_may_be_tried_again(number: int, full: bool) -> None:
    """
    Everything else is final.
    """
    error = storage_error("cannot write x", OSError(number, os.strerror(number)))

    assert full is error.out_of_space
    assert full is bool(error.hint)
    assert f"cannot write x: {os.strerror(number)}" == error.message
    assert Exit.STORAGE is error.exit_code


def test_an_error_without_a_number_keeps_its_words() -> None:
    """
    Some libraries raise OSError with nothing but a message.
    """
    assert "cannot read x: odd" == storage_error("cannot read x", OSError("odd")).message


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_is_made_with_all_above_it(tmp_path: Path) -> None:
    """
    A private one for its owner only; making it again changes nothing.
    """
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
        make_folder(tmp_path / "c", private=True)

    assert 0o700 == (tmp_path / "c").stat().st_mode & 0o777
    assert [] == list((tmp_path / "a" / "b").iterdir())


def test_a_new_folder_has_its_name_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    And so has each that is made above it; one that was there before is left alone.
    """
    synced: list[Path] = []
    monkeypatch.setattr(disk, "sync_folder", synced.append)

    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")

    assert {tmp_path, tmp_path / "a"} == set(synced)
    assert 2 == len(synced)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_what_is_in_the_way_is_told(tmp_path: Path, place: str) -> None:
    """
    A file where a folder should be.
    """
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="cannot write to") as refused:
        make_folder(tmp_path / place)

    assert "name another folder" in refused.value.hint


MOUNTS = [
    ("/", "ext4"),
    ("/data", "nfs4"),
    ("/data/local", "xfs"),
    ("/mnt", "autofs"),
    ("/mnt", "fuse.s3fs"),
    ("/proc", "proc"),
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/me", "ext4"),
        ("/data", "nfs4"),
        ("/data/x/y", "nfs4"),
        ("/data/local/x", "xfs"),
        ("/data/../home", "ext4"),
        ("/database", "ext4"),
        ("/mnt/bucket", "fuse.s3fs"),
    ],
)
def test_a_path_lies_on_the_deepest_and_latest_mount(path: str, kind: str) -> None:
    """
    By whole names: `/database` is not below `/data`.
    """
    assert kind == file_system_of(Path(path), MOUNTS)
    assert kind == file_system_of(Path(path), [*reversed(MOUNTS[:3]), *MOUNTS[3:]])


def test_a_path_on_no_mount_is_unknown() -> None:
    """
    Nothing is refused for what is not known.
    """
    assert "" == file_system_of(Path("/x"), [])
    assert not is_network("")


def test_this_machines_own_mounts_are_read(tmp_path: Path) -> None:
    """
    Whatever it is, it has a name.
    """
    assert file_system_of(tmp_path)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "fuseblk"]
)
def test_local_file_systems_are_taken(kind: str) -> None:
    """
    Locks and fsync are the kernel's own there.
    """
    assert not is_network(kind)


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "lustre", "fuse.sshfs",
             "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"],
)  # fmt: skip
def test_network_file_systems_are_refused(kind: str) -> None:
    """
    A ledger there cannot be trusted to survive.
    """
    assert is_network(kind)


# --- one runner an output -------------------------------------------------------------------------


def test_a_second_runner_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    """
    Also within one process; when the first one leaves, the next may enter.
    """
    output = tmp_path / "out"
    output.mkdir()
    file = tmp_path / "lock"

    with Lock(file, output, SINCE):
        assert is_held(file)
        with pytest.raises(AlreadyRunning, match=f"by process {os.getpid()} on ") as refused:
            Lock(file, output, SINCE).__enter__()
        assert Exit.LATER is refused.value.exit_code
        assert is_held(file)

    assert not is_held(file)
    with Lock(file, output, SINCE):
        pass


def test_two_jobs_with_one_output_exclude_each_other(tmp_path: Path) -> None:
    """
    Two state folders, one output: the second gives its own lock back.
    """
    output = tmp_path / "out"
    output.mkdir()

    with Lock(tmp_path / "one", output, SINCE):
        with pytest.raises(AlreadyRunning, match="by another job"):
            Lock(tmp_path / "two", output, SINCE).__enter__()
        assert not is_held(tmp_path / "two")

    with Lock(tmp_path / "two", output, SINCE):
        pass


def test_the_name_in_a_lock_stays_and_says_nothing(tmp_path: Path) -> None:
    """
    The file is never unlinked, and who is named in it holds nothing by that.
    """
    output = tmp_path / "out"
    output.mkdir()
    with Lock(tmp_path / "lock", output, SINCE):
        pass

    left = holder(tmp_path / "lock")
    assert left is not None
    assert (os.getpid(), SINCE) == (left.pid, left.since)
    assert f"process {os.getpid()} on {left.host}, since {SINCE}" == str(left)
    assert not is_held(tmp_path / "lock")


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """
    The kernel gives the lock back, whatever the file says.
    """
    output = tmp_path / "out"
    output.mkdir()
    script = (
        "import sys, pathlib, time\n"
        "from batchrank.store.disk import Lock\n"
        "with Lock(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 'then'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "lock"), str(output)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert "held\n" == process.stdout.readline()
        with pytest.raises(AlreadyRunning, match=f"process {process.pid} on .*, since then"):
            Lock(tmp_path / "lock", output, SINCE).__enter__()
        process.kill()

    with Lock(tmp_path / "lock", output, SINCE):
        assert is_held(tmp_path / "lock")


def test_asking_who_runs_does_not_keep_a_runner_out(tmp_path: Path) -> None:
    """
    `status` in a loop looks at the lock for an instant each; a runner gets in beside it.
    """
    output = tmp_path / "out"
    output.mkdir()
    (tmp_path / "lock").touch()
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            is_held(tmp_path / "lock")
            done.wait(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(50):
            with Lock(tmp_path / "lock", output, SINCE):
                pass
    finally:
        done.set()
        asking.join()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[7, "host", "then"]', Holder(7, "host", "then")),
        (b"", None),
        (b"[7, ", None),
        (b"[7]", None),
        (b"7", None),
        (b"null", None),
        (b"{}", None),
        (b"\xff\xfe", None),
    ],
    ids=ascii,
)
def test_a_lock_of_nobody_is_read_as_that(
    tmp_path: Path, content: bytes, expected: Holder | None
) -> None:
    """
    Whatever stands in it.
    """
    (tmp_path / "lock").write_bytes(content)

    assert expected == holder(tmp_path / "lock")


def test_a_lock_that_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    """
    And asking makes none.
    """
    assert holder(tmp_path / "lock") is None
    assert not is_held(tmp_path / "lock")
    assert [] == list(tmp_path.iterdir())


def test_a_runner_that_has_not_written_its_name_yet_is_called_another_process(
    tmp_path: Path,
) -> None:
    """
    Nobody is "None".
    """
    output = tmp_path / "out"
    output.mkdir()
    with Lock(tmp_path / "lock", output, SINCE):
        (tmp_path / "lock").write_bytes(b"")
        with pytest.raises(AlreadyRunning, match="is being written by another process"):
            Lock(tmp_path / "lock", output, SINCE).__enter__()


def test_a_lock_that_cannot_be_made_is_an_error_of_the_disks(tmp_path: Path) -> None:
    """
    Not a bug; and nothing stays held.
    """
    output = tmp_path / "out"
    output.mkdir()

    with pytest.raises(StorageError, match="cannot lock"):
        Lock(tmp_path, output, SINCE).__enter__()
    with pytest.raises(StorageError, match="cannot lock"):
        Lock(tmp_path / "lock", tmp_path / "nowhere", SINCE).__enter__()

    assert not is_held(tmp_path / "lock")


def test_what_is_in_a_lock_is_one_line_of_json(tmp_path: Path) -> None:
    """
    A longer name of an earlier holder is not left behind it.
    """
    output = tmp_path / "out"
    output.mkdir()
    (tmp_path / "lock").write_text("x" * 1000)

    with Lock(tmp_path / "lock", output, SINCE):
        assert os.getpid() == json.loads((tmp_path / "lock").read_text())[0]


# --- room -----------------------------------------------------------------------------------------


def test_a_reserve_takes_real_room_and_gives_it_back(tmp_path: Path) -> None:
    """
    Eight megabytes that are allocated, not only promised; taking and giving twice is no harm.
    """
    reserve = Reserve(tmp_path / "reserve")

    for _ in range(2):
        reserve.take()
        found = (tmp_path / "reserve").stat()
        assert Reserve.BYTES == found.st_size
        assert found.st_blocks * 512 >= Reserve.BYTES
    for _ in range(2):
        reserve.give_back()
        assert [] == list(tmp_path.iterdir())


def test_without_so_little_room_a_run_does_not_begin(tmp_path: Path) -> None:
    """
    Told before anything is paid.
    """
    with files_no_longer_than(1_000_000), pytest.raises(StorageError, match="no room for"):
        Reserve(tmp_path / "reserve").take()
