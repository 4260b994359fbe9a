"""
Files that are there whole or not at all, also after a power cut.

Owns the order of the steps: write beside, fsync, rename, fsync the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from batchrank.store.disk import replacing, sync_file, sync_folder


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """
    A file to write to, which becomes *path* at the end; nothing of it stays if that fails.

    Raises:
        StorageError: the disk does not let us.
    """
    with replacing(path) as aside, aside.open("wb") as file:
        yield file
        file.flush()
        sync_file(file.fileno())
    sync_folder(path.parent)
