"""
The pacer, on aiolimiter: no window above the limit, on virtual time and on a little real time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest

from batchrank.domain import FailureKind, RateLimit
from batchrank.engine.waiting import Pacer
from batchrank.policy.pace import Held, Pace, pace_of
from batchrank.testing import run_virtually, windows_max


def held(limit: RateLimit | None) -> Held:
    """
    The controller that holds a limit.
    """
    return Held(pace_of(limit) if limit else None, 8)


def left(
    pacer: Pacer, documents: list[int], arrives: Callable[[int], float] = lambda _: 0.0
) -> list[float]:
    """
    When each request leaves, on virtual time.
    """

    async def send() -> list[float]:
        times = []
        for n, amount in enumerate(documents):
            await anyio.sleep_until(arrives(n))
            await pacer.admit(amount)
            times.append(anyio.current_time())
        return times

    return run_virtually(send)


LIMITS = [
    pytest.param(RateLimit(1, 1), id="one a second"),
    pytest.param(RateLimit(10, 60), id="ten a minute"),
    pytest.param(RateLimit(100, 1), id="a hundred a second"),
    pytest.param(RateLimit(1000, 60), id="a thousand a minute"),
    pytest.param(RateLimit(1000, 1), id="a thousand a second"),
    pytest.param(RateLimit(0.5, 1), id="one in two seconds"),
]


@pytest.mark.parametrize("limit", LIMITS)
def test_no_window_is_above_the_limit_and_hardly_any_time_is_lost(limit: RateLimit) -> None:
    """
    At most the limit + max(1, 2 %) in any window of the period, at least 97 % in the long run.
    """
    count = 300 + int(2 * limit.count)

    times = left(Pacer(held(limit), None), [1] * count)

    assert windows_max(times, limit.period_s) <= limit.count + max(1, 0.02 * limit.count)
    assert (count - 1) / (times[-1] - times[0]) >= 0.97 * limit.per_s


@pytest.mark.parametrize("limit", LIMITS)
def test_a_pause_gives_no_credit(limit: RateLimit) -> None:
    """
    After nobody sent for ten periods, as few leave at once as at the beginning.
    """
    count = 5 + int(limit.count)

    times = left(
        Pacer(held(limit), None),
        [1] * (2 * count),
        lambda n: 0.0 if n < count else 12 * limit.period_s * (1 + 1 / limit.count),
    )

    assert windows_max(times, limit.period_s) <= limit.count + max(1, 0.02 * limit.count)


def test_without_a_limit_nobody_waits() -> None:
    """
    Only the concurrency holds back.
    """
    assert pytest.approx(0.0, abs=1e-3) == max(left(Pacer(held(None), None), [100] * 1000))


def test_documents_are_paced_in_order_however_many_a_request_has() -> None:
    """
    A request larger than the whole limit passes when its turn comes; nobody overtakes it.
    """
    documents = [10, 2_000, 1, 50, 1, 1]

    times = left(Pacer(held(None), RateLimit(600, 60)), documents)

    waits = [after - before for before, after in pairwise(times)]
    assert sorted(times) == times
    late = pace_of(RateLimit(600, 60)).burst / 9.8
    assert pytest.approx([10 / 9.8 - late, 2_000 / 9.8, 1 / 9.8, 50 / 9.8, 1 / 9.8]) == waits


def test_both_limits_hold_at_once() -> None:
    """
    Requests and documents: whichever is slower.
    """
    requests, documents = RateLimit(60, 60), RateLimit(600, 60)

    small = left(Pacer(held(requests), documents), [1] * 200)
    large = left(Pacer(held(requests), documents), [100] * 50)

    assert pytest.approx(0.98, rel=0.02) == 199 / (small[-1] - small[0])
    assert pytest.approx(9.8, rel=0.03) == 49 * 100 / (large[-1] - large[0])
    assert windows_max(small, 60.0) <= 61


@dataclass
class Changing:
    """
    A controller whose pace somebody changes.
    """

    pace: Pace | None
    concurrency: int = 8
    heard_of: list[FailureKind | None] = field(default_factory=list)

    def heard(self, kind: FailureKind | None, sent_at: float, now: float) -> None:
        """
        Remember.
        """
        self.heard_of.append(kind)


def test_another_pace_is_held_from_then_on() -> None:
    """
    Faster, slower, and none at all.
    """
    controller = Changing(Pace(10.0, 1.0))
    pacer = Pacer(controller, None)

    async def send() -> list[float]:
        times = []
        for pace in (Pace(10.0, 1.0), Pace(1.0, 1.0), None, Pace(100.0, 2.0)):
            controller.pace = pace
            began = anyio.current_time()
            for _ in range(21):
                await pacer.admit(1)
            times.append(anyio.current_time() - began)
        return times

    assert pytest.approx([2.0, 20.0, 0.0, 0.19], abs=0.02) == run_virtually(send)


def test_on_real_time_no_window_is_above_the_limit() -> None:
    """
    On a busy machine timers fire late; what is made good afterwards stays within the limit.
    """
    limit = RateLimit(40, 0.1)
    pacer = Pacer(held(limit), None)

    async def send() -> list[float]:
        times = []
        for _ in range(160):
            await pacer.admit(1)
            times.append(anyio.current_time())
        return times

    times = anyio.run(send)

    assert windows_max(times, limit.period_s) <= limit.count + 1
    assert times[-1] - times[0] >= 159 / 400
