"""
A run that kills itself by SIGKILL: `python -m tests.e2e.killing JOB POINT N`, at the N-th POINT.

Owns the names of the points, from a reply that was read to `_SUCCESS`. Does nothing else than
`batchrank run`, and does not tidy up: nobody could.
"""

from __future__ import annotations

import os
import signal
import sys

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


def main(job: str, point: str, nth: str) -> int:
    """
    Run, and return its exit code if it outlives that.
    """
    return run(job, listeners=[KillAt(point, int(nth))]).exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
