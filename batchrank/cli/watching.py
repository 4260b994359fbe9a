"""
How a run is watched: a live panel on a terminal, JSON lines without one. Both go to stderr, and so
does what keeps it from beginning: as words, or as one line more of the log.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from batchrank.errors import BatchrankError

if TYPE_CHECKING:
    from batchrank.events import Reporter


@contextmanager
def watched() -> Iterator[Reporter]:
    """
    Yield the listener that fits where stderr goes.
    """
    if not sys.stderr.isatty():
        from batchrank.observe.logs import JsonLines

        yield JsonLines(sys.stderr, time.monotonic)
        return

    from rich.console import Console

    from batchrank.observe.panel import LivePanel

    with LivePanel(Console(stderr=True), time.monotonic, _now) as panel:
        yield panel


@contextmanager
def logged() -> Iterator[None]:
    """
    Where stderr is a log, let an error of ours be a line of it: who reads it in the morning has to
    know when that was, and his tools what it is.
    """
    try:
        yield
    except BatchrankError as error:
        if sys.stderr.isatty():
            raise
        from batchrank.events import Chorus, JobRefused

        with watched() as listener:
            Chorus([listener]).report(JobRefused(error.exit_code, str(error)))
        raise typer.Exit(error.exit_code) from error


def _now() -> datetime:
    return datetime.now().astimezone()
