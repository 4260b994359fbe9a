"""
What was learned of providers' limits, remembered between runs: one small file for all outputs.

Owns `learned.json` in the root of the state folders, because each night's output has a folder of
its own: what it holds, who wins where two runs write it, and when it is too old to be true. It is a
memory and no record: whatever is wrong with it costs a run its head start, and never the run.
Knows of a key only what its variable or file is called. Tells no time: that is an argument.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from batchrank.errors import StorageError
from batchrank.policy.capacity import Learned
from batchrank.store.disk import write_durably

LEARNED = "learned.json"

AGE_MAX = timedelta(days=7)
"""Accounts grow and limits move: what is older is found out anew."""

AHEAD_MAX = timedelta(minutes=5)
"""Whatever was learned further in the future was dated by a clock that is wrong."""

PER_S_MAX = 1e9
"""No limit is higher; as in the job file."""

MOST: Mapping[str, float] = {"per_s": PER_S_MAX, "documents_max": 1e9, "bytes_max": 1e12}
"""What may be learned for a customer, by its name in the file: each may be so much at most."""

ENTRIES_MAX = 1000
"""The oldest go first beyond so many: a thousand keys and models of one folder's jobs in a week."""

BYTES_MAX = 4 * 1024 * 1024
"""A longer file is none of ours: a thousand entries of long names take less."""

LOCK_TRIES, LOCK_WAIT_S = 100, 0.02
"""Whoever holds the lock writes one small file; a slow disk may need a second for it."""


@dataclass(frozen=True, slots=True)
class Customer:
    """
    Whose limit it is. *key* is the name of the key's variable or file, never the key.
    """

    provider: str
    base_url: str
    model: str
    key: str


@dataclass(frozen=True, slots=True)
class _Learned:
    customer: Customer
    what: str
    amount: float
    at: datetime


class LearnedLimits:
    """
    The limits that runs below the state root *root* have met.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / LEARNED

    def per_s(self, customer: Customer, now: datetime) -> float | None:
        """
        The requests a second that *customer* was last seen to be allowed; None if nobody has seen
        it within a week before *now* (aware), or what is written cannot be read.
        """
        return self._amount(customer, "per_s", now)

    def of_request(self, customer: Customer, now: datetime) -> Learned:
        """
        What *customer* was last seen to be allowed in one request, likewise.
        """
        found = (self._amount(customer, what, now) for what in ("documents_max", "bytes_max"))
        return Learned(*(None if amount is None else int(amount) for amount in found))

    def _amount(self, customer: Customer, what: str, now: datetime) -> float | None:
        try:
            known = _newest(_read(self.path), now)
        except OSError:
            return None
        return known[customer, what].amount if (customer, what) in known else None

    def remember(self, customer: Customer, per_s: float, now: datetime) -> str | None:
        """
        Write, durably, that *customer* was allowed *per_s* requests a second at *now* (aware).

        What others have written stays, but for what is too old. Returns why it could not be
        written, in a person's words; None if it was.
        """
        return self._remember(customer, {"per_s": per_s}, now)

    def remember_request(self, customer: Customer, learned: Learned, now: datetime) -> str | None:
        """
        Write what *customer* was allowed in one request, likewise.
        """
        amounts = {name: most for name, most in asdict(learned).items() if most is not None}
        return self._remember(customer, amounts, now)

    def _remember(
        self, customer: Customer, amounts: Mapping[str, float], now: datetime
    ) -> str | None:
        for what, amount in amounts.items():
            assert 0 < amount <= MOST[what], "only a limit that was met is worth remembering"
        at = now.astimezone(UTC).replace(microsecond=0)
        mine = [_Learned(customer, what, amount, at) for what, amount in amounts.items()]
        try:
            with _alone(self.path.parent):
                known = _newest([*_read(self.path), *mine], now)
                write_durably(self.path, _as_json(known.values()))
        except BlockingIOError:
            return f"cannot write {self.path}: another process keeps it"
        except OSError as error:
            return f"cannot write {self.path}: {error.strerror or error}"
        except StorageError as error:
            return error.message
        return None


def _newest(entries: Iterable[_Learned], now: datetime) -> dict[tuple[Customer, str], _Learned]:
    """
    The last word on each limit of a customer that is neither too old nor from the future.
    """
    valid = [entry for entry in entries if now - AGE_MAX <= entry.at <= now + AHEAD_MAX]
    valid.sort(key=lambda entry: entry.at)
    return {(entry.customer, entry.what): entry for entry in valid[-ENTRIES_MAX:]}


# --- the file -------------------------------------------------------------------------------------


def _read(path: Path) -> list[_Learned]:
    """
    Every entry of *path* that can be understood; none if it is not there or is something else.

    Raises:
        OSError: it is there and cannot be read.
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        content = file.read(BYTES_MAX + 1)
    try:
        found = json.loads(content) if len(content) <= BYTES_MAX else None
    except (ValueError, RecursionError):
        return []
    entries = found.get("limits") if isinstance(found, dict) else None
    read = map(_entry, entries if isinstance(entries, list) else [])
    return [entry for entry in read if entry is not None]


def _entry(found: Any) -> _Learned | None:
    try:
        names = [found[name] for name in Customer.__dataclass_fields__]
        (what,) = MOST.keys() & found.keys()
        amount, at = found[what], datetime.fromisoformat(found["at"])
        sane = type(amount) in (int, float) and 0 < amount <= MOST[what] and at.tzinfo is not None
        if not sane or not all(isinstance(name, str) for name in names):
            return None
        return _Learned(Customer(*names), what, amount, at.astimezone(UTC))
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _as_json(entries: Iterable[_Learned]) -> bytes:
    listed = [
        {
            **{name: getattr(entry.customer, name) for name in Customer.__dataclass_fields__},
            entry.what: entry.amount,
            "at": entry.at.isoformat(),
        }
        for entry in entries
    ]
    return (json.dumps({"limits": listed}, indent=1, ensure_ascii=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """
    Keep every other writer out of *folder* meanwhile; the kernel gives the lock back at the latest
    when the process dies.

    Raises:
        BlockingIOError: another one does not let go.
    """
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for left in reversed(range(LOCK_TRIES)):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(LOCK_WAIT_S)
        yield
    finally:
        os.close(file)
