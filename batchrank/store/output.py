"""
The output folder and the state folder: how a part gets its final name, and when `_SUCCESS` comes.

Owns the order of the steps: write aside, read back, give it its place for good (`shelf` knows how),
and only then may the ledger say "published". The output folder holds parts and `_SUCCESS`, nothing
else, because readers take whatever lies there for data. Decides nothing about groups, and calls
nobody.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from batchrank.errors import OutputError, StorageError
from batchrank.events import Event, ManifestWritten, PartMoment, SuccessWritten
from batchrank.places.remote import Place
from batchrank.store.disk import make_folder, refuse_network, storage_error, write_durably
from batchrank.store.parts import Layout, prove, render
from batchrank.store.reading import LedgerReader, PartRow
from batchrank.store.shelf import shelf_of

SUCCESS = "_SUCCESS"
PART_NAME = re.compile(r"part-\d{5,}\.parquet")

Tell = Callable[[Event], None]


def part_file(number: int) -> str:
    """
    The file name of part *number*.
    """
    return f"part-{number:05}.parquet"


class StateFolder:
    """
    The local folder of one output's ledger, rejects, calls, manifest, report and staging.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ledger = path / "ledger.sqlite"
        self.lock = path / "lock"
        self.reserve = path / "reserve"
        self.manifest = path / "manifest.json"
        self.report = path / "report.json"
        self.rejects = path / "rejects.parquet"
        self.calls = path / "calls.parquet"
        self.staging = path / "staging"
        self.owner = path / "owner"

    def prepare(self) -> None:
        """
        Make the folder, readable by its owner only.

        Raises:
            OutputError: it cannot be written, or lies on a network file system.
        """
        remedy = "name a folder on a local disk with output.state in the job file"
        refuse_network(self.path, "the state folder", remedy)
        make_folder(self.path, private=True)
        make_folder(self.staging, private=True)

    def mark(self) -> str:
        """
        What tells this state from all others: where it is, and a number by chance.
        """
        if not self.owner.exists():
            mark = f"{socket.gethostname()}:{self.path} {secrets.token_hex(8)}"
            write_durably(self.owner, mark.encode())
        return self.owner.read_text()


class OutputFolder:
    """
    The folder of the parts. *tell* hears of every named point on a part's way.
    """

    def __init__(self, path: Place, state: StateFolder, tell: Tell) -> None:
        self.path = path
        self._shelf = shelf_of(path)
        self._state = state
        self._tell = tell
        self._aside: Path | None = None

    def prepare(self, *, begun: bool) -> None:
        """
        Make the folder, and a place aside of it.

        *begun*: the ledger knows this output; if it does not, the folder has to be empty.

        Raises:
            OutputError: it cannot be written, or holds what this job has not written.
        """
        self._shelf.prepare()
        self._shelf.check_owner(self._state.mark)
        if not begun and (error := self.unknown()):
            raise error
        self._shelf.claim(self._state.mark)
        self._aside = self._shelf.aside(self._state.staging)

    def unknown(self) -> OutputError | None:
        """
        Why an output that is not begun cannot begin here: something is there. None if nothing is.
        """
        if not (found := self.visible()):
            return None
        return OutputError(
            f"{self.path} holds {some(found)}, and this job's state"
            f" ({self._state.path}) knows nothing of it",
            "name another output.path, or set the old output aside with --restart",
        )

    def visible(self) -> list[str]:
        """
        The names in the folder that do not begin with a dot.
        """
        return sorted(name for name in self._shelf.names() if not name.startswith("."))

    # --- parts ------------------------------------------------------------------------------------

    def publish(
        self,
        ledger: LedgerReader,
        layout: Layout,
        schema: pa.Schema,
        number: int,
        through: int,
    ) -> PartRow:
        """
        Render part *number* as far as position *through*, and give it its final name.

        The row that is returned must be committed to the ledger: only then is it published.

        Raises:
            StorageError: the disk is full or broken, or the part reads back as something else.
        """
        if self._aside is None:
            raise AssertionError("prepare() comes first")
        _check_whole(ledger, number, number * layout.part_groups, through)
        name = part_file(number)
        aside = self._aside / name
        start = number * layout.part_groups
        groups = ledger.count_ranked(start, through)
        try:
            rendered = render(ledger, layout, start, through, schema, aside)
            self._at(number, "rendered")
            prove(aside, rendered)
            self._at(number, "verified")
            self._shelf.put(aside, partial(self._at, number))
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()  # on a full disk it would be in the way of the ledger
            raise storage_error(f"cannot write {name}", error) from error
        return PartRow(number, name, through, rendered.rows, groups, rendered.sha256, stale=False)

    def _at(self, number: int, point: str) -> None:
        self._tell(PartMoment(number, point))

    def damaged(self, parts: Iterable[PartRow]) -> list[int]:
        """
        The numbers of *parts* whose files are missing or hold other bytes than were published.
        """
        return [part.number for part in parts if not self._is_whole(part)]

    def _is_whole(self, part: PartRow) -> bool:
        try:
            return self._shelf.sha256(part.file) == part.sha256
        except OSError:
            return False

    def remove_parts(self, keep: Iterable[str] = ()) -> None:
        """
        Remove part files, but for those named in *keep*: their layout is not the job's any more.
        """
        kept = frozenset(keep)
        parts = (name for name in self.visible() if PART_NAME.fullmatch(name))
        self._shelf.remove([name for name in parts if name not in kept])

    # --- the end ----------------------------------------------------------------------------------

    def has_success(self) -> bool:
        """
        Tell whether `_SUCCESS` is there.
        """
        return self._shelf.has(SUCCESS)

    def withdraw_success(self) -> None:
        """
        Take `_SUCCESS` away: a part is about to change.
        """
        if self.has_success():
            self._shelf.remove([SUCCESS])

    def write_manifest(self, about: Mapping[str, Any], parts: Sequence[PartRow]) -> None:
        """
        Write what the output consists of into the state folder, durably, and beside an output that
        lies in a store.
        """
        listed = [
            {"file": p.file, "rows": p.rows, "groups": p.groups, "sha256": p.sha256} for p in parts
        ]
        manifest = {**about, "parts": listed}
        content = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
        if self._read_manifest() != content:
            write_durably(self._state.manifest, content.encode())
        self._shelf.keep_beside(self._state.manifest.name, content.encode())
        self._tell(ManifestWritten(len(parts)))

    def _read_manifest(self) -> str | None:
        try:
            return self._state.manifest.read_text()
        except (OSError, ValueError):
            return None

    def write_success(self) -> None:
        """
        Write `_SUCCESS`, empty, durably; nothing happens if it is there.
        """
        if not self.has_success():
            self._shelf.mark(SUCCESS)
        self._tell(SuccessWritten())


def _check_whole(ledger: LedgerReader, number: int, start: int, through: int) -> None:
    """
    Refuse to render a part of which the ledger does not hold every outcome (any more).
    """
    missing = through - start - ledger.count_outcomes(start, through)
    if missing:
        raise StorageError(
            f"{part_file(number)} cannot be rendered: the ledger lacks {missing} of its groups",
            "it was pruned: restore the part from a copy, or begin anew with --restart",
        )


def some(names: Sequence[str]) -> str:
    """
    The first of *names*, and how many more there are.
    """
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def unfit(found: Sequence[str]) -> list[str]:
    """
    The names that have no business in an output folder.
    """
    return [name for name in found if name != SUCCESS and not PART_NAME.fullmatch(name)]


__all__ = [
    "PART_NAME",
    "SUCCESS",
    "OutputFolder",
    "StateFolder",
    "StorageError",
    "part_file",
    "some",
    "unfit",
]
