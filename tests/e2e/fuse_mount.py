"""
A FUSE mount in a mount namespace of its own, and a command of ours that is run on it.

As a script: `python -m tests.e2e.fuse_mount FOLDER COMMAND...` mounts an empty file system there,
which only this process sees, runs `batchrank COMMAND...` and leaves with its exit code, or with
`CANNOT` where mounting is not allowed. The mount ends with the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys
import threading
import time

from batchrank.cli.main import outcome

CANNOT = 99
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
GETATTR, INIT = 3, 26
_HEADER = struct.Struct("<IIQQIIII")


def mounted(folder: str) -> int | None:
    """
    Mount on *folder*; the descriptor to be answered, or None if it is not allowed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        return None
    options = f"fd={device},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0".encode()
    done = (
        libc.unshare(CLONE_NEWNS) == 0
        and libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
        and libc.mount(b"bucket", folder.encode(), b"fuse.bucket", 0, options) == 0
    )
    return device if done else None


def answer(device: int) -> None:
    """
    Say that there is an empty folder, until the process ends.
    """
    while True:
        request = os.read(device, 1 << 17)
        _, opcode, unique, *_ = _HEADER.unpack_from(request)
        body, error = b"", 0
        if opcode == INIT:
            body = struct.pack("<IIIIHHI", 7, 19, 0, 0, 0, 0, 4096)
        elif opcode == GETATTR:
            body = struct.pack("<QII", 1, 0, 0) + _attributes()
        else:
            error = -errno.ENOENT
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def _attributes() -> bytes:
    now, mode = int(time.time()), stat.S_IFDIR | 0o755
    return struct.pack("<6Q10I", 1, 0, 0, now, now, now, 0, 0, 0, mode, 2, 0, 0, 0, 4096, 0)


def main() -> int:
    """
    Mount, run, leave.
    """
    folder, *arguments = sys.argv[1:]
    device = mounted(folder)
    if device is None:
        return CANNOT
    threading.Thread(target=answer, args=(device,), daemon=True).start()
    return outcome(arguments)


if __name__ == "__main__":
    sys.exit(main())
