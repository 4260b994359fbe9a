"""
What was paid, and for what: the calls of one job or of many, summed in any grouping.

Owns the keys of `batchrank bill`, its lines and its table. Whatever is not in the sums is told: a
ledger that cannot be read, calls whose cost nobody knows, runs that were killed. Reads briefly, so
that a running job is not held up. Writes nothing but the CSV file that is asked for.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from batchrank.domain import CostSource, Served
from batchrank.errors import BatchrankError, Exit, JobError, OutputError, Problem
from batchrank.examine.figures import (
    COLUMNS,
    as_data,
    cell,
    figures,
    in_calls,
    in_costs,
    in_purposes,
    in_units,
    in_unknown,
    money,
    usd,
)
from batchrank.examine.ledgers import ASIDE, ledgers
from batchrank.job.account import Account
from batchrank.job.money import perhaps_lost
from batchrank.observe.report import as_shown, counted
from batchrank.policy.accounting import Amounts, Entry, Keys, Paid, grouped, summed
from batchrank.policy.billing import in_usd
from batchrank.store.disk import is_held, whole
from batchrank.store.formats.csv import defused
from batchrank.store.formats.writing import check_free, path_of
from batchrank.store.output import SUCCESS, StateFolder
from batchrank.store.reading import BookedRow, LedgerReader

KEYS = ("day", "month", "job", "state", "provider", "model", "route")
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


class Saving(NamedTuple):
    """
    A reason why nobody was called: its name among the ledger's totals and in the bill, what so many
    would have cost, and its words.
    """

    tally: str
    name: str
    cost: Callable[[Paid, int], int | None]
    thing: str
    why: str


_OLD = "earlier outputs had"

SAVINGS = (
    Saving("reused", "groups_reused", Paid.for_groups, "group", f"whose scores {_OLD}"),
    Saving("equal", "groups_equal", Paid.for_groups, "group", "equal to another"),
    Saving(
        "documents_reused",
        "documents_reused",
        Paid.for_documents,
        "document",
        f"of changed groups that {_OLD}",
    ),
)


@dataclass(frozen=True, slots=True)
class Saved:
    """
    What was not paid for, and what it would have cost; None if that is not known.
    """

    count: int = 0
    nano_usd: int | None = 0

    def plus(self, other: Saved) -> Saved:
        """
        Both in one; it is not known if one is not.
        """
        if self.nano_usd is None or other.nano_usd is None:
            return Saved(self.count + other.count, None)
        return Saved(self.count + other.count, self.nano_usd + other.nano_usd)

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {"count": self.count, "cost_usd": usd(self.nano_usd)}


@dataclass(frozen=True, slots=True)
class Part:
    """
    One ledger's part of the bill.

    *killed* counts runs that left without a word, *lost_nano_usd* is what they may have spent
    beyond what is written down. *unpaid* counts what has scores for nothing, by its name in
    `SAVINGS`; *paid* is what the others cost, None if that is not known; *model* the one asked for.
    """

    state: str
    job: str
    labels: Mapping[str, str]
    set_aside: bool
    running: bool
    killed: int
    lost_nano_usd: int
    model: str
    unpaid: Mapping[str, int]
    paid: Paid | None
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
            "cost_usd_lost": usd(self.lost_nano_usd),
            **as_data(summed(self.entries)),
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
        What was not paid for, over all days, at the mean of what the same ledger paid for, or if it
        paid for nothing, all of this bill with the same model.
        """
        means: dict[str, Paid] = {}
        for part in self.parts:
            if part.paid:
                means[part.model] = part.paid.plus(means.get(part.model, Paid()))
        found = {saving.name: Saved() for saving in SAVINGS}
        for part, saving in product(self.parts, SAVINGS):
            count, paid = part.unpaid[saving.name], part.paid or means.get(part.model, Paid())
            found[saving.name] = found[saving.name].plus(Saved(count, saving.cost(paid, count)))
        return found

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
            "total": as_data(self.total),
            "rows": [dict(zip(self.by, k, strict=True)) | as_data(a) for k, a in self._told()],
            "saved": {name: s.as_data() for name, s in self.saved.items()} if whole else None,
            "cost_usd_lost": usd(self.lost_nano_usd) if whole else None,
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
            writer.writerow([*names, *(cell(amounts, column) for column in COLUMNS)])
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
        yield "calls", in_calls(total)
        yield "units", in_units(total.search_units, total.total_tokens)
        yield "cost", in_costs(total)
        yield "unknown", in_unknown(total)
        yield "of it", in_purposes(total)
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
        for saving, saved in zip(SAVINGS, self.saved.values(), strict=True):
            if saved.count and not self.days:
                count = counted(saved.count, saving.thing)
                yield f"{_estimate(saved)}: {count} {saving.why}"

    def _lost(self) -> str:
        killed = sum(part.killed for part in self.parts)
        if self.days or not killed:
            return ""
        runs = f"{counted(killed, 'run')} {'was' if killed == 1 else 'were'} killed"
        if not self.lost_nano_usd:
            return f"{runs}: what was in flight then stands in no ledger, and may have been billed"
        return f"{money(self.lost_nano_usd)} may have been spent beside this: {runs}"

    def _notes(self) -> Iterator[str]:
        if self.days:
            yield "what was saved or lost has no day: it is told without --since and --until"
        yield from self.without
        yield from (f"not in this bill: {unread}" for unread in self.unread)

    def _table(self) -> list[str]:
        head = [*self.by, "calls", "failed", "units", "tokens", "cost", "of unknown cost"]
        rows = [head]
        for keys, amounts in self._told():
            rows.append([*(as_shown(key) if key else "-" for key in keys), *figures(amounts)])
        if len(rows) > 2:
            rows.append(["total", *[""] * (len(self.by) - 1), *figures(self.total)])
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
        lost = perhaps_lost(ledger, running=running)
    return Part(
        state=str(state.path),
        job=_job(meta, state),
        labels=_labels(meta),
        set_aside=ASIDE in state.path.name,
        running=running,
        killed=max(0, killed - running),
        lost_nano_usd=lost,
        model=_asked(meta)[0],
        unpaid={saving.name: account.count(saving.tally) for saving in SAVINGS},
        paid=_paid(account, summed(entries)),
        entries=entries,
    )


def _job(meta: Mapping[str, Any], state: StateFolder) -> str:
    return str(meta.get("job", state.path.name))


def _asked(meta: Mapping[str, Any]) -> tuple[str, str]:
    settings = meta.get("score_settings", {})
    return str(settings.get("provider.model", "")), str(settings.get("provider.name", ""))


def _labels(meta: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in meta.get("labels", {}).items()}


def _entries(
    ledger: LedgerReader, state: StateFolder, meta: Mapping[str, Any], days: Days
) -> Iterator[Entry]:
    same = {"job": _job(meta, state), "state": str(state.path)}
    same |= {f"{LABEL}{name}": value for name, value in _labels(meta).items()}
    asked_model, asked_provider = _asked(meta)
    rows = list(ledger.booked(*days.span))
    who, ways = ledger.served(), ledger.routes()  # after the rows: a running job adds to all
    for row in rows:
        # Nobody served what failed: it is theirs who were asked.
        by = who[row.served] if row.served is not None else Served("")
        keys = {"model": by.model or asked_model, "provider": by.provider or asked_provider}
        keys["route"] = ways[row.route]
        day = (EPOCH + timedelta(days=row.day)).isoformat()
        yield Entry({**same, **keys, "day": day, "month": day[:7]}, _amounts(row))


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


def _paid(account: Account, amounts: Amounts) -> Paid | None:
    """
    The groups and documents that were paid for; what is equal to another has its scores for
    nothing, and so has what was reused.
    """
    groups = account.count("ranked") - account.count("reused") - account.count("equal")
    if amounts.calls_unknown or groups < 1:
        return None
    documents = amounts.candidates - account.count("documents_reused")
    return Paid(groups, documents, amounts.nano_usd_scored)


# --- words ----------------------------------------------------------------------------------------


def _estimate(saved: Saved) -> str:
    if saved.nano_usd is None:
        return "nobody knows what"
    return f"about ${in_usd(saved.nano_usd):,.4f}"


def _aside(part: Part) -> str:
    return f"{in_costs(summed(part.entries))} of it in {part.state}, which --restart has set aside"
