"""
Asks whoever sits at the terminal, if anybody does.

Owns when somebody is there to be asked, and what counts as yes. What is asked, and when, is decided
in `examine.consent`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from batchrank.events import Reporter
    from batchrank.examine.consent import Asking
    from batchrank.job import Job


def asking(listener: Reporter | None, *, yes: bool) -> Asking:
    """
    Who asks what a run may cost; a panel on the terminal makes way for the question.
    """
    from batchrank.examine.consent import Asking

    def ask(question: str) -> bool:
        from batchrank.observe.panel import LivePanel

        with listener.aside() if isinstance(listener, LivePanel) else nullcontext():
            try:
                return typer.confirm(question, default=False, err=True)
            except typer.Abort:  # the end of what is typed is no word of agreement
                return False

    # Who starts us without standard input leaves None there.
    there = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
    return Asking(ask if there else None, yes)


def agreement(jobs: Sequence[Job], *, yes: bool) -> Asking:
    """
    Ask once for the dates of a backfill; returns who then lets each of them begin.
    """
    asking(None, yes=yes).of_dates(jobs)
    return asking(None, yes=True)
