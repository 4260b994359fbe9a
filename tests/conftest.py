"""
What every test shares: the backend that production runs on, how laws are searched, compiled files
to start from, how many workers there are, and what they begin with.
"""

import gc
import os
import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.laws import FACTOR
from tests.stores.fixtures import bucket, faults, s3

__all__ = ["bucket", "faults", "s3"]  # fixtures, for whoever asks

# The same examples each time, so that a failure is about the change at hand; `LAWS=100` hunts anew.
settings.register_profile("told", derandomize=FACTOR == 1, deadline=None)
settings.load_profile("told")

# Also where the environment forbids compiled files, as in many containers: a hundred processes are
# started here, and each would compile all of batchrank once more.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """
    Two workers more than there are cores: a third of the time tests wait, for clocks, for disks and
    for clients of stores that wait before they ask again.
    """
    return 2 + (yield)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """
    Collect without looking for garbage: each worker makes six thousand tests, keeps them to its
    end, and would walk over all of them again and again, a fifth of the time that this takes.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Begin with those that need a store: they wait longest, for their clients' patience, and all of
    them, one worker's, need one server.
    """
    items.sort(key=lambda item: "s3" not in getattr(item, "fixturenames", ()))


@pytest.fixture
def anyio_backend() -> str:
    """
    Run async tests on asyncio, as batchrank does.
    """
    return "asyncio"
