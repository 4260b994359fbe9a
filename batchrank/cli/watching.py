"""
How a run is watched: a live panel on a terminal, JSON lines without one. Both go to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

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


def _now() -> datetime:
    return datetime.now().astimezone()
