"""
A run that kills itself by SIGKILL, in a process of its own: at the n-th time that it comes to a
point.

Owns the names of the points, from a reply that was read to `_SUCCESS`. Does nothing else than
`batchrank run`, and does not tidy up: nobody could.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from batchrank import run
from batchrank.events import (
    CommitStarted,
    Committed,
    Event,
    JobStarted,
    ManifestWritten,
    PartMoment,
    PartPublished,
    ReplyRead,
    SuccessWritten,
)
from tests.e2e.forks import Fork

PATIENCE_S = 30.0
"""No run of these takes longer, on a busy machine either."""

PUBLISHING = ("rendered", "verified", "synced", "renamed", "folder_synced")
"""Points on a part's way, as `PartMoment` names them."""

MANY_TIMES = (
    ReplyRead.name,
    CommitStarted.name,
    Committed.name,
    *PUBLISHING,
    PartPublished.name,
)
"""Points that a run comes to again and again."""

ONCE = (JobStarted.name, ManifestWritten.name, SuccessWritten.name)

SLICE_DURABLE = "slice.durable"
"""A commit after which a group has the scores of some of its slices, and no outcome."""


def points_of(event: Event) -> tuple[str, ...]:
    """
    What the moment is called here.
    """
    match event:
        case PartMoment(point=point):
            return (point,)
        case Committed(calls, outcomes):
            over = {outcome.position for outcome in outcomes}
            open_still = any(c.failure is None and c.slice.position not in over for c in calls)
            return (event.name, SLICE_DURABLE) if open_still else (event.name,)
        case _:
            return (event.name,)


class KillAt:
    """
    A listener that ends its own process at the *nth* time that a run comes to *point*.
    """

    def __init__(self, point: str, nth: int) -> None:
        self._point = point
        self._left = nth

    def report(self, event: Event, /) -> None:
        """
        Count, and die.
        """
        if self._point in points_of(event):
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


def killed(job: Path, point: str, nth: int = 1) -> int:
    """
    Run *job* until it kills itself; returns the signal that ended it, as a negative number.

    Raises:
        TimeoutExpired: it ran on.
    """
    process = Fork(run_until, job, point, nth)
    try:
        return process.wait(PATIENCE_S)
    finally:
        process.kill()


def run_until(job: Path, point: str, nth: int) -> None:
    """
    Run *job* in this process, which ends there.
    """
    run(job, listeners=[KillAt(point, nth)])
