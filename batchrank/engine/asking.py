"""
Questions that cost nothing, asked over the wire before the first paid call.

Owns how long that may take: all at once, each once more if it came to nothing, and none beyond
TIME_S_MAX. These are the only calls that a cancel scope may end, and that pass no limiter: nobody
pays for them. What the answers mean is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from batchrank.domain import Failure, FailureKind
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire.exchange import Wire

TIME_S_MAX = 10.0
"""For so long a run waits for what it only wants to know."""

AGAIN_S = 0.5
"""After so long it is asked once more."""

UNHEARD = Failure(FailureKind.UNKNOWN, f"no answer within {TIME_S_MAX:.0f} s", code="timeout")


async def ask(wire: Wire, calls: Sequence[HttpCall]) -> list[HttpReply | Failure]:
    """
    What came of *calls*, in their order. Raises for bugs only.
    """
    came: list[HttpReply | Failure] = [UNHEARD] * len(calls)

    async def one(place: int) -> None:
        came[place] = reply = await wire.exchange(calls[place])
        if _is_worth_asking_again(reply):
            await anyio.sleep(AGAIN_S)
            came[place] = await wire.exchange(calls[place])

    with anyio.move_on_after(TIME_S_MAX):
        async with anyio.create_task_group() as asking:
            for place in range(len(calls)):
                asking.start_soon(one, place)
    return came


def _is_worth_asking_again(reply: HttpReply | Failure) -> bool:
    if isinstance(reply, Failure):
        return reply.kind is not FailureKind.FATAL
    return reply.status == 429 or reply.status >= 500
