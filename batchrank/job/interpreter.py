"""
How the interpreter is set while a run lasts, and set back afterwards.

Owns the rhythm of the garbage collector. A group makes some eighty short-lived objects, none of
them in cycles: with Python's own threshold of 700 the collector looks at everything young after
every nine groups, and finds nothing (a twelfth of the time of a run without a wire).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_MAX = 20_000
"""So many new objects bring the collector out: a few hundred groups'."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """
    Collect rarely, and leave alone what was there before. Within another one it changes nothing:
    the days of a backfill look once at what was there before all of them.
    """
    before = gc.get_threshold()
    if before[0] == YOUNG_MAX:
        yield
        return
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
