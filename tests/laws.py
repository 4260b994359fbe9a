"""
How hard a law is tried: briefly in every run of the tests, `LAWS=100` times as long at night.
"""

from __future__ import annotations

import os

from hypothesis import settings

FACTOR = int(os.environ.get("LAWS", "1"))


def law(examples: int, steps: int = 30) -> settings:
    """
    So many examples (and steps, where a law is a machine), without a deadline on shared machines.
    """
    return settings(max_examples=examples * FACTOR, stateful_step_count=steps, deadline=None)
