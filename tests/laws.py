"""
How hard a law is tried: briefly in every run of the tests, `LAWS=100` times as long at night.

What a law says it deserves is `LAWS=4`. The fast tests try a quarter of that, the same examples
each time: they are to take two minutes, and hunting is not what they are for.
"""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = int(os.environ.get("LAWS", "1"))


def law(examples: int, steps: int = 30) -> settings:
    """
    So many examples (and steps, where a law is a machine), without a deadline on shared machines.
    """
    return settings(
        max_examples=max(1, examples * FACTOR // 4), stateful_step_count=steps, deadline=None
    )
