"""
What one output may still spend: the caps of its job, what its ledger has accounted for, and its
share of the budget that jobs have together.

Owns what follows from a kill: what was authorised and never accounted for counts as spent, in the
ledger first, and then what the shared file holds is lowered to what the ledger says. Either may
be cut short and is made up for by the next run. Decides nothing: `policy.budget` does.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchrank.config.schema import BudgetTable
from batchrank.errors import JobError, OutputError, Problem
from batchrank.job.account import Account
from batchrank.job.loading import Job
from batchrank.places.remote import absolute, is_within
from batchrank.policy.amounts import WITHOUT_END, Amount
from batchrank.policy.billing import nano_usd
from batchrank.policy.budget import Budget, Day, SharedCaps, lost, lost_of_day
from batchrank.store.ledger import Ledger
from batchrank.store.reading import AUTHORISED, LedgerReader, amount_of, named
from batchrank.store.shared import SharedBudget, taken

SHARED_ID = "shared_id"
"""In the ledger: what tells this output from those that have lain, or will lie, at its place."""


@dataclass(frozen=True, slots=True)
class Money:
    """
    The budget that a run begins with, and the file that it shares, if it does.
    """

    ledger: Ledger
    budget: Budget
    till: SharedBudget | None

    def close_account(self) -> None:
        """
        Give back what was authorised and held, and not spent: nothing is in flight any more.
        """
        account = Account.of(self.ledger)
        self.ledger.set_meta(named(AUTHORISED, account.spent))
        if self.till is not None:
            self.till.settle({day: account.spent_on(day) for day in self.budget.days or ()})


@contextmanager
def money_of(job: Job, ledger: Ledger) -> Iterator[Money]:
    """
    Open the account of an output: nobody else runs it, and nothing is in flight.

    Raises:
        JobError, OutputError, StorageError: the shared file cannot be used.
    """
    till = _till(job, ledger)
    try:
        held = till.held() if till else {}
        _count_lost(ledger, held)
        account = Account.of(ledger)
        days = {day: account.spent_on(day) for day in held}
        if till is not None and days != held:
            till.settle(days)
        budget = Budget(
            caps_of(job),
            spent=account.spent,
            authorised=account.spent,
            block_sends=max(1, job.concurrency_most // 4),
            days={day: Day(spent, held=spent) for day, spent in days.items()} if till else None,
        )
        yield Money(ledger, budget, till)
    finally:
        if till is not None:
            till.close()


def settle_after_kill(job: Job, ledger: Ledger, *, landed: bool = False) -> None:
    """
    Make up for a run that was killed, where perhaps none will go on: the output may be finished
    all the same, or be set aside. Nothing is touched where the last run ended in order. *landed*:
    all its calls had come home, as they have where `_SUCCESS` is there, so that nothing is lost.

    Raises:
        JobError, OutputError, StorageError: as `money_of`.
    """
    runs = ledger.runs()
    if not runs or runs[-1].ended_at is not None:
        return
    spent = Account.of(ledger).spent
    if landed and amount_of(AUTHORISED, ledger.meta()) != spent:
        ledger.set_meta(named(AUTHORISED, spent))
    with money_of(job, ledger):
        pass


def caps_of(job: Job) -> Amount:
    """
    What this output may spend over all its runs. A scorer in process makes no request; beside ways
    that do, each of its calls counts as one.
    """
    table = job.config.budget
    if not job.asks_somebody:
        return WITHOUT_END
    return _amount(table.cost_usd_max, table.requests_max, table.search_units_max)


def shared_caps_of(table: BudgetTable) -> SharedCaps:
    """
    What all outputs that share a file may spend.
    """
    return SharedCaps(
        _amount(table.day_usd_max, table.day_requests_max, table.day_search_units_max),
        _amount(table.month_usd_max, table.month_requests_max, table.month_search_units_max),
    )


def _amount(usd: float | None, requests: int | None, search_units: int | None) -> Amount:
    return Amount(
        WITHOUT_END.nano_usd if usd is None else nano_usd(usd),
        WITHOUT_END.requests if requests is None else requests,
        WITHOUT_END.search_units if search_units is None else search_units,
    )


def counted_against(ledger: LedgerReader) -> Amount:
    """
    What of the caps of an output is used up, where nobody is at it: also what a killed run was
    allowed and has not accounted for, which the next one counts as spent.
    """
    return Account.of(ledger).spent.most(amount_of(AUTHORISED, ledger.meta()))


def perhaps_lost(ledger: LedgerReader, *, running: bool) -> int:
    """
    What runs that were killed may have spent beside what is booked, in 10^-9 US dollars; what a run
    that is under way was allowed is not lost.
    """
    account = Account.of(ledger)
    against = account.spent if running else counted_against(ledger)
    return against.nano_usd - account.cost_nano_usd


def _count_lost(ledger: Ledger, held: dict[str, Amount]) -> None:
    """
    Count as spent what a run that was killed had been allowed and has not accounted for.

    A run that ended in order holds what it has spent: if more is held, the ledger was restored from
    an older copy, and what was spent since stands nowhere else.
    """
    account, runs = Account.of(ledger), ledger.runs()
    new = lost(amount_of(AUTHORISED, ledger.meta()), account.spent)
    days = {day: lost_of_day(new, it, account.spent_on(day)) for day, it in held.items()}
    if runs and runs[-1].ended_at is not None:
        days = {day: lost(it, account.spent_on(day)) for day, it in held.items()}
        new = sum(days.values(), new)
    if new != Amount():
        ledger.count_lost(account.lost + new, days)


# --- the file that jobs share ---------------------------------------------------------------------


def _till(job: Job, ledger: Ledger) -> SharedBudget | None:
    table = job.config.budget
    if not job.asks_somebody or not table.is_shared:
        return None
    known = ledger.meta().get(SHARED_ID)
    if known is None:
        known = secrets.token_hex(8)
        ledger.set_meta({SHARED_ID: known})
    file = shared_file(job)
    if is_within(file, job.output):
        raise OutputError(
            f"budget.shared ({file}) lies in output.path: readers would take it for scores",
            "name a file elsewhere",
        )
    # With the place: a copy of a state folder is another output, and both may run at once.
    return SharedBudget.open(file, f"{known} {job.state.path}", shared_caps_of(table))


def taken_together(job: Job, day: str) -> dict[str, Amount]:
    """
    What all outputs have taken of the budget that *job* shares, on a UTC *day* and in its month, by
    "day" and "month"; nothing where it shares none. Changes nothing.

    Raises:
        JobError, StorageError: the shared file cannot be used.
    """
    if not job.asks_somebody or not job.config.budget.is_shared:
        return {}
    return taken(shared_file(job), day)


def shared_file(job: Job) -> Path:
    """
    Where the shared budget of *job* lies: as it says, relative to its file, or among the user's own
    state.

    Raises:
        JobError: it does not say, and the user has no home.
    """
    given = job.config.budget.shared
    try:
        return absolute(job.base, given) if given else _usual_place().resolve()
    except RuntimeError as error:
        problem = Problem(0, "budget.shared", f"no home folder is known: {error}", "name a file")
        raise JobError(str(job.file), [problem]) from error


def _usual_place() -> Path:
    """
    By the XDG base directory specification, and Apple's file system guide.
    """
    if sys.platform == "darwin":
        root = Path.home() / "Library" / "Application Support"
    else:
        told = os.environ.get("XDG_STATE_HOME", "")
        # The specification: a relative path is invalid and to be ignored.
        root = Path(told) if told.startswith("/") else Path.home() / ".local" / "state"
    return root / "batchrank" / "budget.sqlite"
