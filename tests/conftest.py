"""
What every test shares: the backend that production runs on.
"""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """
    Run async tests on asyncio, as batchrank does.
    """
    return "asyncio"
