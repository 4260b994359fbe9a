"""
What has come to the source of an output that is finished.

Owns what counts: files that are new, or of another size. Files that are gone do not, because who
keeps few nights removes the others. Told from names and sizes alone: no file is opened, and nothing
is decided by it, for `run` looks closely and refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from batchrank.domain import SourceFile
from batchrank.errors import NotReady, SourceError
from batchrank.job.loading import Job
from batchrank.job.opening import is_begun
from batchrank.places.remote import StoreError, placed, size_bytes
from batchrank.source.files import find, relative
from batchrank.store.reading import LedgerReader


def paths_of(job: Job) -> frozenset[str]:
    """
    Every path that the source of *job* is made from.
    """
    source = job.config.source
    return frozenset((*source.paths, *filter(None, (source.database,))))


def come_late(job: Job, shared: frozenset[str] = frozenset()) -> list[str]:
    """
    What has changed in the source since *job*'s output was made, a few words each; nothing where
    the ledger that would know is gone, or is not for us to read. What lies at the paths *shared*
    changes with every day, and says nothing about this one.

    Raises:
        StorageError: the ledger cannot be read, or a store does not answer.
    """
    try:
        if not is_begun(job.state.ledger):
            return []
    except OSError:  # somebody else's state: its output is done all the same
        return []
    with LedgerReader.open(job.state.ledger) as ledger:
        known = {file.path: file for file in ledger.source_files()}
    others = frozenset(_names(job, shared))
    own = [name for name in _names(job, paths_of(job)) if name not in others]
    held = [file for name, file in known.items() if name not in others]
    return [*(f"{name} is new" for name in own if name not in known), *_resized(held, job)]


def _names(job: Job, paths: Iterable[str]) -> Iterator[str]:
    for path in sorted(paths):
        try:
            found = find(path, job.base, require_success=False, stores=job.config.stores)
        except (NotReady, SourceError):  # cleared away since
            continue
        yield from (relative(file, job.base) for file in found)


def _resized(known: Iterable[SourceFile], job: Job) -> Iterator[str]:
    for file in known:
        try:
            size = size_bytes(placed(job.base, file.path, job.config.stores))
        except StoreError:  # which says nothing about the file
            raise
        except OSError:  # cleared away since
            continue
        if size != file.size_bytes:
            yield f"{file.path} had {file.size_bytes} bytes and has {size}"
