"""
Places and shelves: who may send, in which order, and that no place is ever lost.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.wire.keeping import NoPlace, Places
from tests.laws import law

PATIENCE_S = 60.0


def test_who_comes_first_is_served_first() -> None:
    """
    Also before who comes when a place has just come free.
    """
    served: list[int] = []

    async def call(places: Places, number: int) -> None:
        if not places.take():
            await places.wait(PATIENCE_S)
        served.append(number)
        await asyncio.sleep(0)
        places.leave()

    async def main() -> None:
        places = Places(2)
        await asyncio.gather(*(call(places, number) for number in range(9)))

    asyncio.run(main())

    assert list(range(9)) == served


def test_nobody_waits_longer_than_he_would() -> None:
    """
    And the place goes to another when it comes free.
    """

    async def main() -> bool:
        places = Places(1)
        assert places.take()
        with pytest.raises(NoPlace):
            await places.wait(0.0)
        places.leave()
        return places.take()

    assert asyncio.run(main())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12), st.integers(1, 3))
@law(50)
def test_no_place_is_lost_or_made(calls: list[tuple[int, int]], count: int) -> None:
    """
    Whoever is cancelled at whichever moment: afterwards there are as many as before.
    """

    async def call(places: Places, steps: int) -> None:
        if not places.take():
            await places.wait(PATIENCE_S)
        try:
            for _ in range(steps):
                await asyncio.sleep(0)
        finally:
            places.leave()

    async def main() -> list[bool]:
        places = Places(count)
        for steps, cancelled_after in calls:
            task = asyncio.create_task(call(places, steps))
            for _ in range(cancelled_after):
                await asyncio.sleep(0)
            task.cancel()
            tasks.append(task)
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        return [places.take() for _ in range(count + 1)]

    tasks: list[asyncio.Task[None]] = []

    assert [True] * count + [False] == asyncio.run(main())
