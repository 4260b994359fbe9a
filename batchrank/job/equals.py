"""
Equal groups of one source: what an earlier run has left to hand on, and what this one has to.

Owns the step before the first call that makes up for a run that was ended between a group and those
that follow it. Which groups are equal was found by `reusing`; the engine hands on what it comes to.
"""

from __future__ import annotations

import time

from batchrank.domain import Positions, Ranked
from batchrank.engine.following import Equals
from batchrank.store.equals import copies
from batchrank.store.ledger import Ledger, Records


def equals_of(ledger: Ledger, done: Positions, stop: int) -> Equals:
    """
    Copy outcomes that are there to the groups below *stop* that take them, which are in *done*
    afterwards; returns those whose leaders have none yet.

    Raises:
        StorageError: the ledger fails; nobody was called.
    """
    equals = Equals(Positions(done.total), Positions(done.total))
    for position, leader in ledger.equals(stop):
        if position not in done:
            equals.followers.add(position)
            equals.leaders.add(leader)
    led = equals.leaders.others().missing(0, done.total)
    for outcomes in copies(ledger, (p for p in led if p in done), equals.followers):
        count = sum(isinstance(outcome, Ranked) for outcome in outcomes)
        ledger.commit(Records(at=time.time(), outcomes=outcomes, equal=count))
        for outcome in outcomes:
            done.add(outcome.position)
            equals.followers.discard(outcome.position)
    return equals
