"""
The pacer, on aiolimiter: no window above the limit, on virtual time and on a little real time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import anyio
import pytest

from batchrank.domain import RateLimit
from batchrank.engine.waiting import ROUNDING_S, Pacer, Quotas, Turnstiles
from batchrank.policy.billing import Sizes
from batchrank.policy.control import Controller, Heard
from batchrank.policy.gate import Gate
from batchrank.policy.pace import Pace, pace_of
from batchrank.policy.rate import Mode
from batchrank.testing import FixedController, run_virtually, windows_max


def held(limit: RateLimit | None) -> FixedController:
    """
    The controller that holds a limit.
    """
    return FixedController(pace_of(limit) if limit else None, 8)


def pacer_of(
    requests: RateLimit | None = None,
    documents: RateLimit | None = None,
    tokens: RateLimit | None = None,
    controller: Controller | None = None,
) -> Pacer:
    """
    A pacer within these limits, at the pace of the first unless a controller says another.
    """
    quotas = Quotas(requests, documents, tokens)
    return Pacer(controller or held(requests), Turnstiles(quotas), anyio.current_time)


def left(
    pacer: Pacer,
    documents: list[int],
    arrives: Callable[[int], float] = lambda _: 0.0,
    tokens: list[float] | None = None,
) -> list[float]:
    """
    When each request leaves, on virtual time.
    """

    async def send() -> list[float]:
        times = []
        for n, amount in enumerate(documents):
            await anyio.sleep_until(arrives(n))
            await pacer.admit(amount, tokens[n] if tokens else 0.0)
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

    times = left(pacer_of(limit), [1] * count)

    assert windows_max(times, limit.period_s) <= limit.count + max(1, 0.02 * limit.count)
    assert (count - 1) / (times[-1] - times[0]) >= 0.97 * limit.per_s


@pytest.mark.parametrize("limit", LIMITS)
def test_a_pause_gives_no_credit(limit: RateLimit) -> None:
    """
    After nobody sent for ten periods, as few leave at once as at the beginning.
    """
    count = 5 + int(limit.count)

    times = left(
        pacer_of(limit),
        [1] * (2 * count),
        lambda n: 0.0 if n < count else 12 * limit.period_s * (1 + 1 / limit.count),
    )

    assert windows_max(times, limit.period_s) <= limit.count + max(1, 0.02 * limit.count)


def test_without_a_limit_nobody_waits() -> None:
    """
    Only the concurrency holds back.
    """
    assert pytest.approx(0.0, abs=1e-3) == max(left(pacer_of(), [100] * 1000))


def test_documents_are_paced_in_order_however_many_a_request_has() -> None:
    """
    A request larger than the whole limit passes when its turn comes; nobody overtakes it.
    """
    documents = [10, 2_000, 1, 50, 1, 1]

    times = left(pacer_of(None, RateLimit(600, 60)), documents)

    waits = [after - before for before, after in pairwise(times)]
    assert sorted(times) == times
    late = (pace_of(RateLimit(600, 60)).burst - 1) / 9.8
    rounding = pytest.approx(
        [10 / 9.8 - late, 2_000 / 9.8, 1 / 9.8, 50 / 9.8, 1 / 9.8], abs=2 * ROUNDING_S
    )
    assert rounding == waits


def test_both_limits_hold_at_once() -> None:
    """
    Requests and documents: whichever is slower.
    """
    requests, documents = RateLimit(60, 60), RateLimit(600, 60)

    small = left(pacer_of(requests, documents), [1] * 200)
    large = left(pacer_of(requests, documents), [100] * 50)

    assert pytest.approx(0.98, rel=0.02) == 199 / (small[-1] - small[0])
    assert pytest.approx(9.8, rel=0.03) == 49 * 100 / (large[-1] - large[0])
    assert windows_max(small, 60.0) <= 61


def test_tokens_are_paced_beside_documents_and_requests() -> None:
    """
    Three limits at once: each holds, whichever is slower, and what was weighed wrongly is made up.
    """
    limits = RateLimit(600, 60), RateLimit(6_000, 60), RateLimit(60_000, 60)
    pacer = pacer_of(*limits)

    def amounts(tokens: float) -> list[float]:
        return left(pacer_of(*limits), [1] * 50, tokens=[tokens] * 50)

    by_tokens = amounts(5_000.0)
    by_requests = amounts(1.0)
    assert pacer.weighs_tokens
    assert pytest.approx(980 / 5_000, rel=0.03) == 49 / (by_tokens[-1] - by_tokens[0])
    assert pytest.approx(9.8, rel=0.05) == 49 / (by_requests[-1] - by_requests[0])


def test_what_was_weighed_too_light_is_waited_for_afterwards() -> None:
    """
    A reply says that a request had more tokens than were booked: the next one waits for them.
    """
    pacer = pacer_of(tokens=RateLimit(6_000, 60))
    sizes = Sizes(0, (294,))  # three bytes to a token, as long as no reply has told
    assert pacer.weigh(sizes) == 98.0

    async def send() -> list[float]:
        times = []
        for _ in range(3):
            await pacer.admit(1, 98.0)
            times.append(anyio.current_time())
            pacer.counted(sizes, 98.0, 98 + 980)
        return times

    first, second, third = run_virtually(send)
    assert pytest.approx(11.0, rel=0.05) == third - second
    assert second - first <= third - second


def test_what_did_not_leave_takes_nobodys_place() -> None:
    """
    A request that was admitted while the gate shut gives back its documents and its tokens.
    """
    pacer = pacer_of(documents=RateLimit(600, 60), tokens=RateLimit(6_000, 60))

    async def send(given_back: bool) -> float:
        await pacer.admit(100, 1_000.0)
        if given_back:
            pacer.give_back(100, 1_000.0)
        began = anyio.current_time()
        await pacer.admit(1, 1.0)
        return anyio.current_time() - began

    assert pytest.approx(100 / 9.8, rel=0.02) == run_virtually(lambda: send(False))
    pacer = pacer_of(documents=RateLimit(600, 60), tokens=RateLimit(6_000, 60))
    assert run_virtually(lambda: send(True)) < 0.1


@pytest.mark.parametrize("limit", LIMITS)
def test_runs_that_follow_each_other_keep_to_one_limit(limit: RateLimit) -> None:
    """
    Each has a pacer of its own, and few requests: at every beginning as many could leave at once.
    """
    turnstiles = Turnstiles(Quotas(limit, limit, limit))

    async def send() -> list[float]:
        times = []
        for _ in range(3 + int(limit.count)):
            pacer = Pacer(held(limit), turnstiles, anyio.current_time)
            for _ in range(2):
                await pacer.admit(1, 1.0)
                times.append(anyio.current_time())
        return times

    times = run_virtually(send)

    assert windows_max(times, limit.period_s) <= limit.count + max(1, 0.02 * limit.count)


def test_the_clocks_of_event_loops_go_on_from_one_another() -> None:
    """
    What was booked in one loop is waited for in the next.
    """

    async def now() -> float:
        await anyio.sleep(0.02)
        return anyio.current_time()

    options = {"use_uvloop": True}
    times = [anyio.run(now, backend_options=options) for _ in range(5)]

    assert sorted(set(times)) == times


@dataclass
class Changing:
    """
    A controller whose pace somebody changes.
    """

    pace: Pace | None
    concurrency: int = 8
    mode: Mode = Mode.HOLD
    learned_per_s: float | None = None
    gate: Gate = field(default_factory=Gate)

    def sent(self, now: float, held: bool) -> None:
        """
        Nothing to do.
        """

    def heard(self, heard: Heard) -> bool:
        """
        Nothing to do.
        """
        return False


def test_another_pace_is_held_from_then_on() -> None:
    """
    Faster, slower, and none at all.
    """
    controller = Changing(Pace(10.0, 1.0))
    pacer = pacer_of(controller=controller)

    async def send() -> list[float]:
        times = []
        for pace in (Pace(10.0, 1.0), Pace(1.0, 1.0), None, Pace(100.0, 2.0)):
            controller.pace = pace
            began = anyio.current_time()
            for _ in range(21):
                await pacer.admit(1, 0.0)
            times.append(anyio.current_time() - began)
        return times

    # What has left is paid for at the old pace before the new one begins.
    assert pytest.approx([2.0, 20.1, 0.0, 1.2], abs=0.02) == run_virtually(send)


def test_on_real_time_no_window_is_above_the_limit() -> None:
    """
    On a busy machine timers fire late; what is made good afterwards stays within the limit.
    """
    limit = RateLimit(40, 0.1)
    pacer = pacer_of(limit)

    async def send() -> list[float]:
        times = []
        for _ in range(160):
            await pacer.admit(1, 0.0)
            times.append(anyio.current_time())
        return times

    times = anyio.run(send)

    assert windows_max(times, limit.period_s) <= limit.count + 1
    assert times[-1] - times[0] >= 159 / 400
