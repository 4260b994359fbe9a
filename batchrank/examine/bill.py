"""
What was paid, and for what: the calls of one job or of many, summed in any grouping.

Owns the words of `batchrank bill`, its keys and its table. Whatever is not in the sums is told: a
ledger that cannot be read, calls whose cost nobody knows, runs that were killed. Reads briefly, so
that a running job is not held up. Writes nothing but the CSV file that is asked for.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from batchrank.domain import CostSource, Served
from batchrank.errors import BatchrankError, Exit, JobError, OutputError, Problem
from batchrank.examine.ledgers import ASIDE, ledgers
from batchrank.job.ending import Account
from batchrank.observe.report import as_shown, counted
from batchrank.policy.accounting import Amounts, Entry, Keys, as_paid, dollars, grouped, summed
from batchrank.store.disk import is_held
from batchrank.store.formats.csv import defused
from batchrank.store.formats.writing import check_free, path_of, whole
from batchrank.store.output import SUCCESS, StateFolder
from batchrank.store.reading import BookedRow, LedgerReader

KEYS = ("day", "month", "job", "state", "provider", "model")
"""What calls can be told apart by, beside labels."""

LABEL = "label."
"""So begins a key that is a label of the job."""

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Days:
    """
    From which day to which, both included, in UTC; None is without an end.
    """

    since: date | None = None
    until: date | None = None

    def __bool__(self) -> bool:
        return bool(self.since or self.until)

    def __str__(self) -> str:
        return f"{self.since or 'the beginning'} to {self.until or 'now'} (UTC)"

    @property
    def span(self) -> tuple[float, float]:
        """
        The same in seconds since the epoch, the end excluded.
        """
        since = _midnight(self.since) if self.since else -math.inf
        return since, _midnight(self.until) + 86_400 if self.until else math.inf


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


# --- what was found -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Saved:
    """
    What was not paid for: groups or documents that have scores without a call, and what they would
    have cost at the mean of what was paid for; None if that is not known.
    """

    count: int = 0
    nano_usd: int | None = 0

    def __add__(self, other: Saved) -> Saved:
        both = self.nano_usd, other.nano_usd
        return Saved(self.count + other.count, None if None in both else sum(n for n in both if n))

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {"count": self.count, "cost_usd": _usd(self.nano_usd)}


SAVINGS = {
    "reused": "groups_reused",
    "equal": "groups_equal",
    "documents_reused": "documents_reused",
}
"""Why nobody was called, as the ledger's totals say it, and as the bill does."""


@dataclass(frozen=True, slots=True)
class Part:
    """
    One ledger's part of the bill.

    *killed* counts runs that left without a word, *lost_nano_usd* is what they may have spent
    beyond what is written down.
    """

    state: str
    job: str
    labels: Mapping[str, str]
    set_aside: bool
    running: bool
    killed: int
    lost_nano_usd: int
    saved: Mapping[str, Saved]
    entries: tuple[Entry, ...] = field(repr=False)

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {
            "state": self.state,
            "job": self.job,
            "labels": dict(self.labels),
            "set_aside": self.set_aside,
            "running": self.running,
            "runs_killed": self.killed,
            "cost_usd_lost": _usd(self.lost_nano_usd),
            **_as_data(summed(self.entries)),
        }


@dataclass(frozen=True, slots=True)
class Bill:
    """
    The calls of all *parts* that were sent within *days*, and their sums *by* some keys.

    *unread* are ledgers that are not in it, with the reason; *without* is what has no ledger yet.
    """

    by: tuple[str, ...]
    days: Days
    parts: tuple[Part, ...]
    unread: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def exit_code(self) -> Exit:
        """
        4 if a ledger could not be read: the sums are not whole then.
        """
        return Exit.STORAGE if self.unread else Exit.DONE

    @property
    def total(self) -> Amounts:
        """
        All calls.
        """
        return summed(entry for part in self.parts for entry in part.entries)

    @property
    def rows(self) -> dict[Keys, Amounts]:
        """
        The sums, by the values of the keys.
        """
        return grouped((entry for part in self.parts for entry in part.entries), self.by)

    @property
    def saved(self) -> dict[str, Saved]:
        """
        What was not paid for, over all days.
        """
        return {
            name: sum((part.saved[name] for part in self.parts), Saved())
            for name in SAVINGS.values()
        }

    @property
    def lost_nano_usd(self) -> int:
        """
        What runs that were killed may have spent beside the calls, over all days.
        """
        return sum(part.lost_nano_usd for part in self.parts)

    # --- for programs -----------------------------------------------------------------------------

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON. What was saved is an estimate, and has no day.
        """
        whole = not self.days
        return {
            "by": list(self.by),
            "since": self.days.since and self.days.since.isoformat(),
            "until": self.days.until and self.days.until.isoformat(),
            "total": _as_data(self.total),
            "rows": [dict(zip(self.by, k, strict=True)) | _as_data(a) for k, a in self._told()],
            "saved": {name: s.as_data() for name, s in self.saved.items()} if whole else None,
            "cost_usd_lost": _usd(self.lost_nano_usd) if whole else None,
            "states": [part.as_data() for part in self.parts],
            "unread": list(self.unread),
            "never_begun": list(self.without),
        }

    def as_csv(self) -> str:
        """
        The rows as RFC 4180 has them: a header, CRLF, quotes where they are needed. There is no
        row of totals, which whoever sums a column would count twice.

        Numbers are numbers, never in quotes; a text that a spreadsheet takes for a formula gets an
        apostrophe before it, as `store.formats.csv` says.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow([*map(defused, self.by), *COLUMNS])
        for keys, amounts in self._told():
            names = [defused(key or "") for key in keys]
            writer.writerow([*names, *(_cell(amounts, column) for column in COLUMNS)])
        return text.getvalue()

    def _told(self) -> Iterator[tuple[Keys, Amounts]]:
        return iter(self.rows.items()) if self.by else iter([((), self.total)])

    # --- for people -------------------------------------------------------------------------------

    def as_text(self) -> str:
        """
        Some lines for people, and a table if the calls are to be told apart.
        """
        lines = [f"{name:<9}{as_shown(value)}" for name, value in self._lines() if value]
        return "\n".join([*lines, "", *self._table()] if self.by else lines)

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "bill", self._of()
        yield "days", str(self.days) if self.days else ""
        total = self.total
        yield "calls", _calls(total)
        yield "units", _units(total.search_units, total.total_tokens)
        yield "cost", _cost(total)
        yield "unknown", _unknown(total)
        yield "of it", _of_it(total)
        yield from (("saved", words) for words in self._saved())
        yield "lost", self._lost()
        aside = (part for part in self.parts if part.set_aside and part.entries)
        yield from (("aside", _aside(part)) for part in aside)
        yield from (("note", note) for note in self._notes())

    def _of(self) -> str:
        names = sorted({part.job for part in self.parts})
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        running = sum(part.running for part in self.parts)
        still = f", {running} of them running" if running else ""
        return f"{shown}: {counted(len(self.parts), 'ledger')}{still}"

    def _saved(self) -> Iterator[str]:
        if self.days:
            return
        told = {
            "groups_reused": ("group", "whose scores earlier outputs had"),
            "groups_equal": ("group", "equal to another"),
            "documents_reused": ("document", "of changed groups that earlier outputs had"),
        }
        for name, saved in self.saved.items():
            thing, why = told[name]
            if saved.count:
                yield f"{_estimate(saved)} by {counted(saved.count, thing)} {why}"

    def _lost(self) -> str:
        killed = sum(part.killed for part in self.parts)
        if self.days or not killed:
            return ""
        runs = f"{counted(killed, 'run')} {'was' if killed == 1 else 'were'} killed"
        if not self.lost_nano_usd:
            return f"{runs}: what was in flight then stands in no ledger, and may have been billed"
        return f"{_money(self.lost_nano_usd)} may have been spent beside this: {runs}"

    def _notes(self) -> Iterator[str]:
        if self.days:
            yield "what was saved or lost has no day: it is told without --since and --until"
        yield from self.without
        yield from (f"not in this bill: {unread}" for unread in self.unread)

    def _table(self) -> list[str]:
        head = [*self.by, "calls", "failed", "units", "tokens", "cost", "of unknown cost"]
        rows = [head, *(_row(keys, amounts) for keys, amounts in self._told())]
        if len(rows) > 2:
            rows.append(_row(("total", *[""] * (len(self.by) - 1)), self.total))
        if not self.total.calls_unknown:
            rows = [row[:-1] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        texts = len(self.by)
        return [
            "  ".join(
                cell.ljust(width) if n < texts else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]


def bill(
    named: Sequence[str],
    overrides: Mapping[str, str],
    *,
    by: Sequence[str] = (),
    days: Days = Days(),
) -> Bill:
    """
    Sum the calls of what is *named*: job files, patterns, states, folders of states.

    Raises:
        JobError: a job file or a key is wrong.
        OutputError: there is no ledger at all.
    """
    _check(by, days)
    states, without = ledgers(named, overrides)
    parts, unread = [], []
    for state in states:
        try:
            parts.append(_part(state, days))
        except BatchrankError as error:
            unread.append(f"{state.path}: {error}")
    return Bill(tuple(dict.fromkeys(by)), days, tuple(parts), tuple(unread), tuple(without))


def write_csv(found: Bill, to: Path, *, force: bool) -> None:
    """
    Write the rows of a bill to a file, whole or not at all.

    Raises:
        OutputError: *to* is there already and not to be replaced, or lies among states or parts.
        StorageError: the disk.
    """
    path = path_of(to)
    if own := next((above for above in path.parents if _is_ours(above)), None):
        raise OutputError(
            f"{path} lies in {own}, which holds what batchrank itself has written",
            "name a file elsewhere",
        )
    check_free(path, replaces=force)
    with whole(path) as file:
        file.write(found.as_csv().encode())


def _is_ours(folder: Path) -> bool:
    return StateFolder(folder).ledger.exists() or (folder / SUCCESS).exists()


def _check(by: Sequence[str], days: Days) -> None:
    problems = [
        Problem(0, "--by", f"{key!r} is no key", f"there are {', '.join(KEYS)}, {LABEL}NAME")
        for key in by
        if key not in KEYS and (not key.startswith(LABEL) or key == LABEL)
    ]
    if days.since and days.until and days.until < days.since:
        problems.append(Problem(0, "--until", "is before --since", "both days are included"))
    if problems:
        raise JobError("batchrank bill", problems)


# --- one ledger -----------------------------------------------------------------------------------


def _part(state: StateFolder, days: Days) -> Part:
    with LedgerReader.open(state.ledger) as ledger:
        running = is_held(state.lock)
        meta, account = ledger.meta(), Account.of(ledger)
        entries = tuple(_entries(ledger, state, meta, days))
        killed = sum(run.ended_at is None for run in ledger.runs())
    allowed = 0 if running else int(meta.get("authorised_nano_usd", 0))
    return Part(
        state=str(state.path),
        job=_job(meta, state),
        labels=_labels(meta),
        set_aside=ASIDE in state.path.name,
        running=running,
        killed=max(0, killed - running),
        lost_nano_usd=account.lost_by_kills(allowed),
        saved=_savings(account, summed(entries)),
        entries=entries,
    )


def _job(meta: Mapping[str, Any], state: StateFolder) -> str:
    return str(meta.get("job", state.path.name))


def _labels(meta: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in meta.get("labels", {}).items()}


def _entries(
    ledger: LedgerReader, state: StateFolder, meta: Mapping[str, Any], days: Days
) -> Iterator[Entry]:
    same = {"job": _job(meta, state), "state": str(state.path)}
    same |= {f"{LABEL}{name}": value for name, value in _labels(meta).items()}
    asked = meta.get("score_settings", {})
    rows = list(ledger.booked(*days.span))
    who = ledger.served()  # after the rows: a running job adds to both
    for row in rows:
        # Nobody served what failed: it is theirs who were asked.
        by = who[row.served] if row.served is not None else Served("")
        model = by.model or str(asked.get("provider.model", ""))
        provider = by.provider or str(asked.get("provider.name", ""))
        day = (EPOCH + timedelta(days=row.day)).isoformat()
        keys = {"day": day, "month": day[:7], "model": model, "provider": provider}
        yield Entry({**same, **keys}, _amounts(row))


def _amounts(row: BookedRow) -> Amounts:
    source, failed, cost = row.cost_source, row.failure is not None, row.nano_usd
    unknown = source == CostSource.UNKNOWN
    return Amounts(
        calls=row.calls,
        calls_failed=row.calls if failed else 0,
        calls_repeated=row.repeated,
        calls_probing=row.probes,
        candidates=0 if failed else row.candidates,
        search_units=row.search_units,
        total_tokens=row.total_tokens,
        nano_usd=cost,
        nano_usd_reported=cost if source == CostSource.REPORTED else 0,
        nano_usd_priced=cost if source == CostSource.PRICED else 0,
        nano_usd_estimated=cost if source == CostSource.ESTIMATED else 0,
        nano_usd_failed=cost if failed and not row.rejected else 0,
        nano_usd_rejected=cost if row.rejected else 0,
        calls_unknown=row.calls if unknown else 0,
        search_units_unknown=row.search_units if unknown else 0.0,
        total_tokens_unknown=row.total_tokens if unknown else 0,
    )


def _savings(account: Account, paid: Amounts) -> dict[str, Saved]:
    """
    What need not be paid, at the mean of what was; by group, since that is what a call is about,
    and by document where only some of a group's were sent.
    """
    reused, equal, documents = (account.count(name) for name in SAVINGS)
    groups = account.count("ranked") - reused - equal
    cost = None if paid.calls_unknown else paid.nano_usd_scored
    counts = (reused, groups), (equal, groups), (documents, paid.candidates - documents)
    return {
        name: Saved(count, as_paid(count, of, cost))
        for name, (count, of) in zip(SAVINGS.values(), counts, strict=True)
    }


# --- columns --------------------------------------------------------------------------------------

COLUMNS = (
    *("calls", "calls_failed", "calls_repeated", "calls_probing", "candidates"),
    *("search_units", "total_tokens", "cost_usd"),
    *("cost_usd_reported", "cost_usd_priced", "cost_usd_estimated"),
    *("cost_usd_scored", "cost_usd_failed", "cost_usd_rejected"),
    *("calls_unknown", "search_units_unknown", "total_tokens_unknown"),
)
"""What a row of the bill has, in JSON and in CSV."""


def _value(amounts: Amounts, column: str) -> int | float | None:
    """
    What stands in a column; money in 10^-9 US dollars, None where nothing is known.
    """
    if column.startswith("cost") and amounts.known_nano_usd is None:
        return None
    found: int | float = getattr(amounts, column.replace("cost_usd", "nano_usd"))
    return found


def _as_data(amounts: Amounts) -> dict[str, Any]:
    values = ((column, _value(amounts, column)) for column in COLUMNS)
    return {c: _usd(value) if c.startswith("cost") else value for c, value in values}


def _usd(nano_usd: float | None) -> float | None:
    return None if nano_usd is None else nano_usd / 1e9


def _cell(amounts: Amounts, column: str) -> str:
    value = _value(amounts, column)
    if value is None:
        return ""
    return dollars(int(value)) if column.startswith("cost") else _number(value)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


# --- words ----------------------------------------------------------------------------------------


def _money(nano_usd: int) -> str:
    whole, _, rest = dollars(nano_usd, 4).partition(".")
    return f"${int(whole):,}.{rest}"


def _calls(amounts: Amounts) -> str:
    probes = f", {counted(amounts.calls_probing, 'probe')}" if amounts.calls_probing else ""
    failed, repeated = amounts.calls_failed, amounts.calls_repeated
    return f"{amounts.calls:,}: {failed:,} failed, {repeated:,} repeated{probes}"


def _units(search_units: float, total_tokens: int) -> str:
    units = f"{search_units:,.10g} search unit{'' if search_units == 1 else 's'}"
    told = (search_units and units, total_tokens and counted(total_tokens, "token"))
    return ", ".join(words for words in told if words)


def _cost(amounts: Amounts) -> str:
    if amounts.known_nano_usd is None:
        return "unknown"
    sources = {
        "reported": amounts.nano_usd_reported,
        "priced": amounts.nano_usd_priced,
        "estimated": amounts.nano_usd_estimated,
    }
    known = ", ".join(f"{_money(cost)} {source}" for source, cost in sources.items() if cost)
    beside = ", and what is unknown" if amounts.calls_unknown else ""
    return f"{_money(amounts.nano_usd)}{f' ({known})' if known else ''}{beside}"


def _unknown(amounts: Amounts) -> str:
    if not amounts.calls_unknown:
        return ""
    told = _units(amounts.search_units_unknown, amounts.total_tokens_unknown)
    calls = f"{counted(amounts.calls_unknown, 'call')}{f' ({told})' if told else ''}"
    return f"what {calls} cost: no price is known ([provider.price] states one for later calls)"


def _of_it(amounts: Amounts) -> str:
    """
    What the money went for, where some of it went for anything but scores.
    """
    told = {
        "for scores": amounts.nano_usd_scored,
        "for calls without scores": amounts.nano_usd_failed,
        "for groups that are rejected": amounts.nano_usd_rejected,
    }
    if amounts.nano_usd == amounts.nano_usd_scored:
        return ""
    return ", ".join(f"{_money(cost)} {what}" for what, cost in told.items() if cost)


def _estimate(saved: Saved) -> str:
    if saved.nano_usd is None:
        return "nobody knows how much"
    return f"about ${saved.nano_usd / 1e9:,.4f}"


def _aside(part: Part) -> str:
    return f"{_cost(summed(part.entries))} of it in {part.state}, which --restart has set aside"


def _row(keys: Keys, amounts: Amounts) -> list[str]:
    cost = amounts.known_nano_usd
    return [
        *(as_shown(key) if key else "-" for key in keys),
        f"{amounts.calls:,}",
        f"{amounts.calls_failed:,}",
        f"{amounts.search_units:,.10g}",
        f"{amounts.total_tokens:,}",
        "unknown" if cost is None else _money(cost),
        f"{amounts.calls_unknown:,}",
    ]
