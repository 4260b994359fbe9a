"""
What every test shares: the backend that production runs on, and how laws are searched.
"""

import pytest
from hypothesis import settings

from tests.laws import FACTOR

# The same examples each time, so that a failure is about the change at hand; `LAWS=100` hunts anew.
settings.register_profile("told", derandomize=FACTOR == 1, deadline=None)
settings.load_profile("told")


@pytest.fixture
def anyio_backend() -> str:
    """
    Run async tests on asyncio, as batchrank does.
    """
    return "asyncio"
