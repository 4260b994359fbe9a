"""
The Python of somebody else: made beforehand by `python -m tests.others.environments`, found by the
tests.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest

from tests.bench.peers.envs import LOCAL, Environment

ROOT = Path(__file__).parents[2]

NAMES = ("cohere_sdk", "openrouter_sdk", "litellm_sdk", "litellm_proxy", "infinity", "local")


def environment(name: str) -> Environment:
    """
    Find it, or make it.
    """
    return Environment.of(name, LOCAL if name == "local" else None)


@cache
def python_of(name: str) -> Path:
    """
    The interpreter of *name*. Where it cannot be had its tests are skipped, but fail in CI.
    """
    made = environment(name)
    if not made.missing:
        return made.python
    reason = f"{name} cannot be installed: {made.missing}"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _made(name: str) -> str:
    began = time.monotonic()
    missing = environment(name).missing
    return f"{name:<15} {missing or 'is there'} ({time.monotonic() - began:.0f} s)"


if __name__ == "__main__":
    with ThreadPoolExecutor(os.cpu_count()) as together:
        for told in together.map(_made, NAMES):
            print(told, flush=True)
