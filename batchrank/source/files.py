"""
Which files a source consists of, and whether they are still the files that an output began with.

Owns the meaning of `source.path` (a file, a folder, a glob), the rule that tells "not there yet"
from "wrong", and the comparison behind `--accept`. Looks at names only: never opens a file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from batchrank.config.schema import StoresTable
from batchrank.domain import SourceFile
from batchrank.errors import NotReady, Problem, SourceError, StorageError
from batchrank.places.remote import Place, Remote, StoreError
from batchrank.places.stores import AT_HOME
from batchrank.places.uri import is_uri, parsed

SUCCESS = "_SUCCESS"
TEMPORARY = "_temporary"

_ALL = ("**", "*.parquet")
_LAKES = (
    ("_delta_log", "Delta Lake"),
    (".hoodie", "Hudi"),
    ("metadata/*.metadata.json", "Iceberg"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """
    What lies where the path points, before it is judged.

    Attributes:
        kind: what the path names; a missing path with a suffix names a file.
        root: the folder; of a file the one that holds it, of a glob the part without wildcards.
        files: what would be read.
        exists: the root is there.
        temporary: a `_temporary/` that Spark or Hadoop is still filling.
        unmarked: the first folder with files in which, and above which up to the root, there is no
            `_SUCCESS`; the root if there are no files.
        other: some visible file that would not be read, where there are no files.
    """

    kind: Literal["file", "folder", "glob"]
    root: Place
    files: tuple[Place, ...] = ()
    exists: bool = True
    temporary: Place | None = None
    unmarked: Place | None = None
    other: Place | None = None


def find(
    path: str, base: Path, *, require_success: bool, stores: StoresTable = AT_HOME
) -> tuple[Place, ...]:
    """
    The files of a source, sorted by their paths relative to *base*; none is a source of no groups.

    Names that start with `_` or `.` are left out unless the path spells them; links to folders are
    followed only where the path names them, so that a folder `latest` is not read twice.

    ======================  ==========================================  ===================
    the path names          there is                                    so
    ======================  ==========================================  ===================
    a file that is there    (only `_SUCCESS` matters, where required)   it is read
    anything                a `_temporary/` folder                      NotReady
    anything, and success   no folder at all, or no `_SUCCESS`          NotReady
    is required
    anything                files                                       they are read
    anything                no folder to look in                        SourceError
    a folder or a glob      `_SUCCESS` and no other visible file        no groups
    anything                a folder without any visible file           NotReady
    anything                other files, but not these                  SourceError
    ======================  ==========================================  ===================

    Raises:
        NotReady: upstream has not finished.
        SourceError: there is nothing of that name, and nothing says that it will come.
        StorageError: the store that it would lie in does not answer.
    """
    try:
        found = look(path, base, stores)
        judge(found, path, require_success=require_success)
    except ValueError as error:
        message, _, remedy = str(error).partition("|")
        raise _wrong_path(message, remedy) from error
    except OSError as error:
        why = f"{path} cannot be looked into: {error}"
        if isinstance(error, StoreError) and error.outage:
            raise StorageError(f"source.path: {why}", "run again when the store answers") from error
        raise _wrong_path(why) from error
    return tuple(sorted(found.files, key=lambda file: relative(file, base)))


def relative(file: Place, base: Path) -> str:
    """
    The POSIX path of *file* as seen from *base*; the address of what lies in a store.
    """
    if isinstance(file, Remote):
        return str(file)
    return Path(os.path.relpath(file, base)).as_posix()


# --- looking --------------------------------------------------------------------------------------


def look(path: str, base: Path, stores: StoresTable = AT_HOME) -> Found:
    """
    See what is there, without a judgement.

    Raises:
        ValueError: *path* is an address of no store that is known.
    """
    top, parts = _spelt(path, base, stores)
    target = top.joinpath(*parts)
    if target.is_file():
        return _facts("file", target.parent, {target}, {target.parent})
    if target.is_dir():
        return _expanded("folder", target, _ALL)
    magic = next((i for i, part in enumerate(parts) if _is_magic(part)), None)
    if magic is not None:
        return _expanded("glob", top.joinpath(*parts[:magic]), parts[magic:])
    if target.suffix:
        return _facts("file", target.parent, set(), {target.parent})
    return _facts("folder", target, set(), {target})


def _spelt(path: str, base: Path, stores: StoresTable) -> tuple[Place, tuple[str, ...]]:
    """
    Where *path* starts, and the names in it.
    """
    if is_uri(path):
        address = parsed(path)
        # What is looked for is looked for at one moment: each folder is listed once.
        return Remote(address.of(()), stores).snapshot(), address.segments
    path = os.path.expanduser(path)  # noqa: PTH111 - leaves the name of somebody unknown as it is
    return base, Path(path).parts


def _is_magic(part: str) -> bool:
    return re.search(r"[*?\[]", part) is not None


def _expanded(kind: Literal["folder", "glob"], root: Place, parts: tuple[str, ...]) -> Found:
    visited: set[Place] = {root}
    files = set(_matches(root, parts, visited)) if root.is_dir() else set()
    return _facts(kind, root, files, visited)


def _facts(
    kind: Literal["file", "folder", "glob"], root: Place, files: set[Place], visited: set[Place]
) -> Found:
    exists = root.is_dir()
    temporary = (folder / TEMPORARY for folder in sorted(visited))
    return Found(
        kind,
        root,
        tuple(files),
        exists,
        next((folder for folder in temporary if folder.is_dir()), None),
        _unmarked(root, files),
        None if files or not exists else next(_visible_files(root), None),
    )


def _matches(folder: Place, parts: tuple[str, ...], visited: set[Place]) -> Iterator[Place]:
    """
    Yield the files below *folder* that match *parts*; a folder that matches stands for its files.
    """
    visited.add(folder)
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _matches(folder, rest or _ALL[1:], visited)
        for below in _visible(folder):
            if below.is_dir() and not below.is_symlink():
                yield from _matches(below, parts, visited)
        return
    named = [folder / head] if not _is_magic(head) else _visible(folder)
    for entry in named:
        if entry.is_dir() and fnmatchcase(entry.name, head):
            yield from _matches(entry, rest or _ALL, visited)
        elif not rest and entry.is_file() and fnmatchcase(entry.name, head):
            yield entry


def _visible(folder: Place) -> list[Place]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(("_", "."))]


def _visible_files(folder: Place) -> Iterator[Place]:
    for entry in sorted(_visible(folder)):
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not entry.is_symlink():
            yield from _visible_files(entry)


def _unmarked(root: Place, files: Collection[Place]) -> Place | None:
    folders = sorted({file.parent for file in files}) or [root]
    return next((folder for folder in folders if not _is_marked(folder, root)), None)


def _is_marked(folder: Place, root: Place) -> bool:
    for above in (folder, *folder.parents):
        if (above / SUCCESS).is_file():
            return True
        if above == root:
            break
    return False


# --- judging --------------------------------------------------------------------------------------


def judge(found: Found, path: str, *, require_success: bool) -> None:
    """
    Raise NotReady or SourceError as the table in `find` says.
    """
    there = found.kind == "file" and found.files
    if found.temporary and not there:
        raise NotReady(f"{found.temporary}/ is there: upstream is still writing", _LATER)
    if require_success and not found.exists:
        raise NotReady(f"{found.root} is not there yet", f"{_LATER}; {_nearest(found.root)}")
    if require_success and found.unmarked:
        raise NotReady(f"{found.unmarked} holds no {SUCCESS} yet", _LATER)
    if found.files:
        _refuse_lake(found)
        return
    if not found.exists:
        raise _wrong_path(f"there is no {path}", _nearest(found.root))
    if found.other is None and found.kind != "file" and found.unmarked is None:
        return
    if found.other is None and (found.kind != "file" or found.unmarked):
        raise NotReady(f"{found.root} is still empty", _LATER)
    if found.kind == "file":
        raise _wrong_path(f"there is no {path}", _nearest(found.root / Path(path).name))
    raise _wrong_path(
        f"no Parquet file matches {path}",
        f"{found.root} holds other files, such as {found.other}; "
        "names that start with _ or . are left out",
    )


def _wrong_path(message: str, hint: str = "") -> SourceError:
    return SourceError("", hint, [Problem(0, "source.path", message)])


_LATER = "try again when upstream has finished (exit 75)"


def _refuse_lake(found: Found) -> None:
    if found.kind != "folder":
        return
    for mark, lake in _LAKES:
        if any(found.root.glob(mark)):
            raise _wrong_path(
                f"{found.root} is a table of {lake}: its files also hold rows that were deleted",
                "export the table to Parquet; or name the files (…/*.parquet) to read them all",
            )


def _nearest(missing: Place) -> str:
    """
    Name the folder above *missing* that exists, and what in it is spelt like the next name.
    """
    name, above = missing.name, missing.parent
    while not above.is_dir() and above != above.parent:
        name, above = above.name, above.parent
    names = [entry.name for entry in above.iterdir()]
    near = difflib.get_close_matches(name, names, 1)
    return f"{above} is there" + (f", and in it {near[0]}" if near else f", but no {name} in it")


# --- comparing ------------------------------------------------------------------------------------


def differences(
    before: Sequence[SourceFile], now: Sequence[SourceFile], accepted: Collection[str]
) -> list[str]:
    """
    Say how the source differs from what an output began with; nothing if it does not.

    A file in *accepted* (by its path in the source) may have changed as long as its row groups hold
    as many rows as before: every group keeps its position.
    """
    was, is_now = ({file.path: file for file in files} for files in (before, now))
    found: list[str] = []
    for path in sorted(was.keys() | is_now.keys()):
        if path not in is_now:
            found.append(f"{path} is missing")
        elif path not in was:
            found.append(f"{path} is new")
        elif sentence := _change(was[path], is_now[path], accepted):
            found.append(sentence)
    return found


def _change(before: SourceFile, now: SourceFile, accepted: Collection[str]) -> str | None:
    if before == now:
        return None
    changes = []
    if before.size_bytes != now.size_bytes:
        changes.append(f"it had {before.size_bytes} bytes and has {now.size_bytes}")
    if before.footer_sha256 != now.footer_sha256:
        digested = "footer" if now.row_groups or now.path.endswith(".parquet") else "content"
        changes.append(f"its {digested} is another")
    if before.row_groups != now.row_groups:
        changes.append(f"{_recut(before, now)}, so that --accept is not possible")
    elif now.path in accepted:
        return None
    return f"{now.path} changed: {'; '.join(changes)}"


def _recut(before: SourceFile, now: SourceFile) -> str:
    if len(before.row_groups) != len(now.row_groups):
        return f"it had {len(before.row_groups)} row groups and has {len(now.row_groups)}"
    pairs = enumerate(zip(before.row_groups, now.row_groups, strict=True))
    number, (had, has) = next((n, pair) for n, pair in pairs if pair[0] != pair[1])
    return f"its row group {number} (counted from 0) had {had} rows and has {has}"
