"""
The controller: what each answer means for rate, concurrency and gate, as tables and laws.

How well the rules find a limit is shown in `tests/sim`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Advertised, FailureKind, RateLimit
from batchrank.policy.accepted import Accepted
from batchrank.policy.ceilings import SUCCESSES, Ceilings
from batchrank.policy.concurrency import LEAST, Concurrency
from batchrank.policy.control import Adaptive, Controller, Heard, Known
from batchrank.policy.gate import Leave
from batchrank.policy.latency import Latency
from batchrank.policy.pace import pace_of
from batchrank.policy.rate import (
    CALM_S,
    CALM_S_MAX,
    CUTS,
    FIRST_PER_S,
    FLOOR_PER_S,
    Mode,
    Rate,
)
from batchrank.testing import FixedController
from tests.laws import law

K = FailureKind
LIMIT = pace_of(RateLimit(100, 1))


def heard(
    kind: FailureKind | None = None,
    now: float = 0.0,
    *,
    status: int | None = None,
    hint_s: float | None = None,
    sent_at: float | None = None,
    told: Advertised | None = None,
    probe: bool = False,
) -> Heard:
    """
    An answer to what left a tenth of a second before, unless told otherwise.
    """
    status = status if status is not None or kind is not K.THROTTLED else 429
    left_at = now - 0.1 if sent_at is None else sent_at
    return Heard(kind, status, hint_s, told, left_at, now, probe)


def answer(controller: Adaptive, news: Heard) -> bool:
    """
    Tell gate and controller, in this order.
    """
    if news.kind is None:
        controller.gate.succeeded(news.sent_at, news.probe)
    elif news.kind is K.THROTTLED:
        controller.gate.throttled(news.now, news.hint_s, news.probe, 0.0)
    elif news.kind is K.UNKNOWN:
        controller.gate.failed(None, news.now, "no answer", news.probe, 0.5)
    return controller.heard(news)


def at_work(controller: Adaptive, seconds: float, start: float = 0.0, held: bool = True) -> float:
    """
    Send at the controller's pace for so long, every call being accepted; return when that ends.
    """
    now = start
    while now < start + seconds:
        controller.sent(now, held)
        answer(controller, heard(None, now + 0.1, sent_at=now))
        now += 1 / controller.pace.rate if controller.pace else 0.01
    return now


def per_s(controller: Adaptive) -> float:
    """
    The pace, where there is one.
    """
    assert controller.pace is not None
    return controller.pace.rate


# --- what it begins with --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "rate", "mode"),
    [
        pytest.param(Known(), FIRST_PER_S, Mode.RAMP, id="nothing known"),
        pytest.param(Known(learned_per_s=200), 140.0, Mode.RAMP, id="met before"),
        pytest.param(Known(LIMIT), 98.0, Mode.HOLD, id="configured"),
        pytest.param(Known(LIMIT, learned_per_s=20), 98.0, Mode.HOLD, id="configured anew"),
        pytest.param(Known(unlimited=True), None, Mode.HOLD, id="unlimited"),
    ],
)
def test_what_is_known_decides_the_first_pace(known: Known, rate: float | None, mode: Mode) -> None:
    """
    A configured limit is held at once; one that was met is met again from seven tenths.
    """
    controller = Adaptive(known)

    assert rate == (controller.pace.rate if controller.pace else None)
    assert mode is controller.mode
    assert controller.learned_per_s is None


def test_a_configured_pace_is_a_ceiling_whatever_happens() -> None:
    """
    After hours without a throttle it is what it was, burst included, and nothing was learned.
    """
    controller = Adaptive(Known(LIMIT))

    at_work(controller, 600)

    assert LIMIT == controller.pace
    assert controller.learned_per_s is None


def test_a_configured_pace_that_is_too_high_gives_way_and_comes_back() -> None:
    """
    Throttles are believed more than the job file; when there are no more, the file is right again.
    """
    controller = Adaptive(Known(LIMIT))
    now = at_work(controller, 5)
    throttle(controller, now, 12)
    assert per_s(controller) < LIMIT.rate

    at_work(controller, 4 * CALM_S, now)

    assert LIMIT == controller.pace


def test_what_has_no_limit_is_paced_from_the_first_throttle_on() -> None:
    """
    From what was accepted in the last seconds, a little less.
    """
    controller = Adaptive(Known(unlimited=True))
    now = at_work(controller, 20)
    assert controller.pace is None
    assert 256 == controller.concurrency

    throttle(controller, now, 12)

    assert 70 <= per_s(controller) <= 100


@pytest.mark.parametrize("known", [Known(LIMIT), Known(unlimited=True)], ids=["limit", "none"])
def test_what_a_person_tells_is_not_refuted_by_one_refusal_in_a_hundred(known: Known) -> None:
    """
    Some servers refuse a call now and then, however slowly calls come.
    """
    controller = Adaptive(known)
    now = 0.0
    for _ in range(20):
        now = at_work(controller, 1, now)
        answer(controller, heard(K.THROTTLED, now))

    assert known.pace == controller.pace


def test_what_has_no_limit_and_is_refused_at_once_is_searched_as_any_other() -> None:
    """
    Nothing was accepted that could say how much is.
    """
    controller = Adaptive(Known(unlimited=True))

    throttle(controller, 0.5, 12)

    assert 5 <= per_s(controller) <= 10


def throttle(controller: Adaptive, now: float, times: int) -> None:
    """
    So many throttles at once.
    """
    for _ in range(times):
        answer(controller, heard(K.THROTTLED, now))


# --- growth ---------------------------------------------------------------------------------------


def test_the_ramp_doubles_every_second_and_then_takes_its_time() -> None:
    """
    From 10/s to 50/s in less than three seconds, from there to 100/s in a quarter of a minute.
    """
    controller = Adaptive(Known(concurrency_max=1024))

    now = at_work(controller, 3)
    assert 50 <= per_s(controller) <= 60
    at_work(controller, 17, now)
    assert 95 <= per_s(controller) <= 130


def test_what_the_pacer_does_not_hold_back_does_not_grow() -> None:
    """
    While the source, the slots or the money are waited for, a higher rate would say nothing.
    """
    controller = Adaptive(Known())

    at_work(controller, 60, held=False)

    assert FIRST_PER_S == per_s(controller)


def test_a_pause_counts_as_no_time_in_which_it_was_paced() -> None:
    """
    A request that waited an hour for the source and then a moment for its turn is no hour's growth.
    """
    controller = Adaptive(Known())
    now = at_work(controller, 1)
    before = per_s(controller)

    controller.sent(now + 3600, held=True)
    controller.sent(now + 3601, held=True)

    assert per_s(controller) < 1.5 * before


def test_a_rate_that_is_borne_is_kept_for_the_calm_and_then_exceeded_ever_faster() -> None:
    """
    Nothing for a minute, then steps that double: 1 % at first, twice the rate half a minute later.
    """
    rate = Rate(100.0, doubling=False)
    rate.throttled(1.0, 1.0)
    rate.measured(100.0, 2.0)
    borne = rate.per_s

    rate.grow(CALM_S)
    assert borne == rate.per_s
    rate = _patient(rate)
    assert 1.0 < rate.per_s / borne < 1.03
    for _ in range(30):
        rate.grow(1.0)
    assert 1.8 * borne < rate.per_s < 2.8 * borne


def _patient(rate: Rate) -> Rate:
    """
    The same, one that does not remember a long window.
    """
    rate._windows = 0
    rate.grow(1.0)
    return rate


# --- cuts -----------------------------------------------------------------------------------------


def test_throttles_of_what_left_before_the_last_cut_never_cut_again() -> None:
    """
    A hundred calls were under way: their throttles are one piece of news.
    """
    rate = Rate(100.0, doubling=False)
    rate.throttled(sent_at=9.9, now=10.0)
    after = rate.per_s

    for late in range(100):
        rate.throttled(sent_at=9.9, now=10.0 + late)

    assert after == rate.per_s


def test_throttles_in_a_row_cut_ever_deeper() -> None:
    """
    A limit that fell is met within a few cuts, and a first throttle costs hardly anything.
    """
    rate = Rate(100.0, ceiling=100.0)
    kept = []
    for n in range(1, 7):
        rate.throttled(sent_at=float(n), now=float(n))
        kept.append(rate.per_s)

    shares = [after / before for before, after in zip([100.0, *kept], kept, strict=False)]
    assert pytest.approx([1 - c for c in (*CUTS, CUTS[-1], CUTS[-1])]) == shares


def test_a_rate_that_was_borne_for_a_calm_is_what_is_gone_back_to() -> None:
    """
    However high the next try went, throttles in a row end where it was borne.
    """
    rate = Rate(100.0, ceiling=400.0, doubling=False)
    rate.throttled(1.0, 1.0)
    borne = rate.known_per_s
    for _ in range(2 * int(CALM_S)):
        rate.grow(1.0)
    assert rate.per_s > 1.5 * borne

    for second in range(100, 120):
        rate.throttled(float(second), float(second))
        if rate.per_s <= borne:
            break

    assert pytest.approx(borne) == rate.per_s


@law(100)
@given(
    st.floats(0.01, 5_000),
    st.lists(
        st.one_of(
            st.tuples(st.just("grow"), st.floats(0, 500)),
            st.tuples(st.just("throttled"), st.floats(0, 100)),
            st.tuples(st.just("measured"), st.floats(0, 10_000)),
            st.tuples(st.just("resumed"), st.just(0.0)),
        ),
        max_size=60,
    ),
    st.one_of(st.just(math.inf), st.floats(1.0, 10_000)),
)
def test_the_rate_stays_between_floor_and_ceiling(
    start: float, happened: list[tuple[str, float]], ceiling: float
) -> None:
    """
    Whatever happens, in whatever order; and it is finite.
    """
    rate, now = Rate(start, ceiling=ceiling), 0.0
    for what, amount in happened:
        now += 1.0
        match what:
            case "grow":
                rate.grow(min(amount, 60.0) if rate.mode is Mode.RAMP else amount)
            case "throttled":
                rate.throttled(now - amount / 100, now)
            case "measured":
                rate.measured(amount, now)
            case _:
                rate.resumed(now)
        assert min(FLOOR_PER_S, start) <= rate.per_s <= ceiling
        assert math.isfinite(rate.per_s)
        assert 0.0 <= rate._calm_s <= CALM_S_MAX + 20 + 100


# --- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("news", "rate_falls", "concurrency_falls"),
    [
        (heard(K.THROTTLED, 10.0), True, False),
        (heard(K.THROTTLED, 10.0, status=429, hint_s=1.0), True, False),
        (heard(K.THROTTLED, 10.0, status=503), False, True),
        (heard(K.THROTTLED, 10.0, status=529), False, True),
        (heard(K.THROTTLED, 10.0, status=503, hint_s=1.0), True, False),
        (heard(K.UNKNOWN, 10.0), False, True),
        (heard(K.UNKNOWN, 10.0, status=408), False, True),
        (heard(K.UNKNOWN, 10.0, status=504), False, True),
        (heard(K.UNKNOWN, 10.0, status=524), False, True),
        (heard(K.UNKNOWN, 10.0, status=500), False, False),
        (heard(K.NEVER_SENT, 10.0), False, False),
        (heard(K.BAD_REPLY, 10.0, status=200), False, False),
        (heard(K.BAD_GROUP, 10.0, status=400), False, False),
        (heard(K.FATAL, 10.0, status=402), False, False),
    ],
    ids=lambda news: f"{news.kind} {news.status} {news.hint_s}" if isinstance(news, Heard) else "",
)
def test_too_many_requests_is_the_rate_and_overload_is_the_concurrency(
    news: Heard, rate_falls: bool, concurrency_falls: bool
) -> None:
    """
    Each answer has one meaning, and most have none.
    """
    controller = Adaptive(Known(learned_per_s=1_000, concurrency_max=64))
    rate, concurrency = per_s(controller), controller.concurrency

    answer(controller, news)

    assert rate_falls is (per_s(controller) < rate)
    assert concurrency_falls is (controller.concurrency < concurrency)


# --- the gate -------------------------------------------------------------------------------------


def test_it_is_blocked_while_its_gate_is_shut() -> None:
    """
    A person is told so, whoever shut it.
    """
    controller = Adaptive(Known(LIMIT))
    answer(controller, heard(K.THROTTLED, 10.0, hint_s=1.0))
    blocked = controller.mode
    assert controller.gate.opens_itself(11.0)
    controller.sent(11.0, held=False)

    assert [Mode.BLOCKED, Mode.HOLD] == [blocked, controller.mode]


def test_a_long_wait_measures_the_window_that_ended() -> None:
    """
    Six hundred accepted in the minute that the gate ends: a little less than ten a second is held.
    """
    controller = Adaptive(Known(learned_per_s=1000 / 7, concurrency_max=1024))  # begins at 100/s
    for n in range(600):
        controller.sent(n / 100, held=False)
        answer(controller, heard(None, n / 100 + 0.1, sent_at=n / 100))
    answer(controller, heard(K.THROTTLED, 6.2, hint_s=53.8))
    assert Leave.PROBE is controller.gate.leave(60.0)

    controller.gate.probe_sent()
    controller.sent(60.0, held=True)
    answer(controller, heard(None, 60.1, sent_at=60.0, probe=True))

    assert Mode.HOLD is controller.mode
    assert 9.4 <= per_s(controller) <= 10.0
    assert controller.learned_per_s == per_s(controller)


def test_after_an_outage_half_the_rate_leaves_at_once_and_the_rest_within_seconds() -> None:
    """
    A server that comes back is not met at full rate; nothing was learned of its limit.
    """
    controller = Adaptive(Known(LIMIT))
    now = at_work(controller, 10)
    for _ in range(20):
        answer(controller, heard(K.UNKNOWN, now, status=502))
    controller.gate.probe_sent()
    answer(controller, heard(None, now + 60, sent_at=now + 59, probe=True))
    assert pytest.approx(LIMIT.rate / 2) == per_s(controller)

    at_work(controller, 15, now + 60)

    assert LIMIT == controller.pace
    assert controller.learned_per_s is None


def test_a_hint_that_a_probe_refutes_measures_nothing() -> None:
    """
    A day was asked for and a minute did: what was accepted meanwhile says nothing of the limit.
    """
    controller = Adaptive(Known(LIMIT))
    now = at_work(controller, 10)
    answer(controller, heard(K.THROTTLED, now, hint_s=86_400.0))
    controller.gate.probe_sent()
    answer(controller, heard(None, now + 61, sent_at=now + 60.5, probe=True))

    assert per_s(controller) > 0.9 * LIMIT.rate


# --- what replies tell ----------------------------------------------------------------------------


def test_a_told_limit_is_where_growth_ends() -> None:
    """
    Fifty a second are told: the ramp ends at 49/s, in HOLD, without one throttle.
    """
    controller = Adaptive(Known(concurrency_max=1024))
    answer(controller, heard(None, 0.1, told=Advertised(50.0, None, None)))

    at_work(controller, 60)

    assert 49.0 == per_s(controller)
    assert Mode.HOLD is controller.mode


def test_what_is_left_is_spread_until_the_reset() -> None:
    """
    Three hundred requests for thirty seconds are ten a second, and 98 % of that; then all is new.
    """
    controller = Adaptive(Known(pace_of(RateLimit(15, 1))))
    answer(controller, heard(None, 0.0, told=Advertised(None, 300.0, 30.0)))

    now = at_work(controller, 29)
    assert pytest.approx(9.8) == per_s(controller)
    at_work(controller, 3, now)

    assert pytest.approx(14.7) == per_s(controller)


@pytest.mark.parametrize("reset_s", [3.0, 59.0, 3600.0])
def test_nothing_left_shuts_the_gate_until_the_reset(reset_s: float) -> None:
    """
    Nobody sends for so long, a minute at most; then a probe goes.
    """
    controller = Adaptive(Known(LIMIT))
    now = at_work(controller, 1)

    assert answer(controller, heard(None, now, told=Advertised(None, 0.0, reset_s)))

    assert Leave.WAIT is controller.gate.leave(now + min(60.0, reset_s) - 0.01)
    assert Leave.PROBE is controller.gate.leave(now + min(60.0, reset_s))
    assert now + reset_s == controller.gate.until()


def test_retry_after_goes_before_what_is_left() -> None:
    """
    The draft says so: the reset is not asked where the reply itself says when to come back.
    """
    controller = Adaptive(Known(LIMIT))

    told = answer(
        controller, heard(K.THROTTLED, 10.0, hint_s=1.0, told=Advertised(None, 0.0, 600.0))
    )

    assert not told
    assert 11.0 == controller.gate.until()


def test_a_throttle_without_a_hint_takes_the_reset_for_one() -> None:
    """
    Remaining 0 and a reset far off are a Retry-After in other words.
    """
    controller = Adaptive(Known(LIMIT))

    assert answer(controller, heard(K.THROTTLED, 10.0, told=Advertised(None, 0.0, 600.0)))

    assert 610.0 == controller.gate.until()


def test_a_server_that_always_says_nothing_is_left_is_not_believed_for_long() -> None:
    """
    Each pause ends with one call that is accepted and says the same: after three it is a lie.
    """
    controller = Adaptive(Known(LIMIT))
    now, shut = 0.0, []
    for n in range(8):
        probe = controller.gate.reason is not None
        if probe:
            controller.gate.probe_sent()
        controller.sent(now, held=False)
        told = Advertised(None, 0.0, 60.0)
        shut.append(answer(controller, heard(None, now + 0.1, sent_at=now, told=told, probe=probe)))
        now += 61.0 if shut[-1] else n * 0.1

    assert 2 <= sum(shut) <= 4
    assert not any(shut[4:])


CAPS: list[tuple[float, bool]] = [(1.0, True), (60.0, True), (61.0, False)]


@pytest.mark.parametrize(("after_s", "believed"), CAPS)
def test_an_absurd_limit_is_believed_for_a_minute(after_s: float, believed: bool) -> None:
    """
    Then it is tried to do without.
    """
    ceilings = Ceilings()
    ceilings.told(Advertised(0.001, None, None), 0.0)
    ceilings.per_s(100.0, 0.0)

    assert believed is (ceilings.per_s(100.0, after_s) < 1.0)


def test_successes_refute_an_absurd_limit_for_good() -> None:
    """
    A hundred in a row, and what the server says is not asked any more.
    """
    ceilings = _tested()
    for _ in range(SUCCESSES):
        ceilings.succeeded()
    ceilings.throttled(70.0)
    ceilings.told(Advertised(0.001, None, None), 80.0)

    assert math.inf == ceilings.per_s(100.0, 1e6)


def test_a_throttle_confirms_it_for_twice_as_long() -> None:
    """
    Ten a minute may well be true: it is tried ever more rarely.
    """
    ceilings = _tested()
    ceilings.throttled(62.0)

    assert ceilings.per_s(100.0, 62.0 + 120.0) < 1.0
    assert math.inf == ceilings.per_s(100.0, 62.0 + 121.0)


def _tested() -> Ceilings:
    """
    An absurd limit, a minute later.
    """
    ceilings = Ceilings()
    ceilings.told(Advertised(0.001, None, None), 0.0)
    ceilings.per_s(100.0, 0.0)
    assert math.inf == ceilings.per_s(100.0, 61.0)
    return ceilings


def test_a_sane_limit_is_obeyed_for_ever() -> None:
    """
    Down to half of what we would send nothing is tested: no 429 is drawn to see whether it holds.
    """
    ceilings = Ceilings()
    ceilings.told(Advertised(60.0, None, None), 0.0)

    assert all(
        pytest.approx(58.8) == ceilings.per_s(100.0, float(now)) for now in range(0, 100_000, 50)
    )


@law(60)
@given(
    st.builds(
        Advertised,
        st.none() | st.floats(0, 1e12),
        st.none() | st.floats(0, 1e12),
        st.none() | st.floats(0, 1e12),
    )
)
def test_whatever_a_server_tells_something_leaves(told: Advertised) -> None:
    """
    There is always a finite pace of at least one request in five seconds.
    """
    controller = Adaptive(Known())
    now = 0.0
    for _ in range(50):
        answer(controller, heard(None, now, told=told, probe=controller.gate.reason is not None))
        controller.sent(now, held=True)
        now += 61.0

    assert FLOOR_PER_S <= per_s(controller) < math.inf


# --- how many -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "latency_s", "many"),
    [(100.0, 0.6, 90), (100.0, 10.0, 256), (1.0, 0.1, LEAST), (None, 1.0, 256), (10.0, 2.0, 30)],
)
def test_as_many_are_under_way_as_the_rate_needs(
    rate: float | None, latency_s: float, many: int
) -> None:
    """
    Little's law and half as much again, from four to the most.
    """
    concurrency = Concurrency(None, 256)

    concurrency.needed(rate, latency_s)

    assert many == concurrency.now


def test_a_fixed_number_stands() -> None:
    """
    Whoever fixes it knows the server.
    """
    concurrency = Concurrency(7, 256)

    concurrency.needed(1e6, 100.0)
    concurrency.overloaded(1.0, 2.0)
    concurrency.timed_out(3.0, 4.0)

    assert 7 == concurrency.now


def test_a_round_of_overload_takes_a_tenth_and_rounds_of_successes_give_it_back() -> None:
    """
    Many overloads at once are one; one more is borne after as many successes as are under way.
    """
    concurrency = Concurrency(None, 100)
    for _ in range(50):
        concurrency.overloaded(sent_at=1.0, now=2.0)
    assert 90 == concurrency.now

    for _ in range(91 * 10):
        concurrency.succeeded()
    concurrency.needed(None, 1.0)

    assert 99 <= concurrency.now <= 100


def test_many_timeouts_take_half() -> None:
    """
    More than 2 % of the last two hundred: the fifth in a row, here.
    """
    concurrency = Concurrency(None, 100)

    kept = []
    for n in range(5):
        concurrency.timed_out(float(n), n + 0.5)
        kept.append(concurrency.now)

    assert 60 <= kept[3] <= 70
    assert 30 <= kept[4] <= 35


def test_a_timeout_now_and_then_is_the_networks() -> None:
    """
    One in a thousand leaves nearly all slots in use.
    """
    concurrency = Concurrency(None, 100)
    for n in range(20):
        concurrency.timed_out(float(n), n + 0.5)
        for _ in range(1000):
            concurrency.succeeded()
        concurrency.needed(None, 1.0)

    assert 95 <= concurrency.now


@pytest.mark.parametrize(
    ("draw", "slow_s"),
    [
        pytest.param(lambda n: 0.1 + 0.5 * (n * 0.618034 % 1), 0.575, id="uniform"),
        pytest.param(lambda n: 2.0, 2.0, id="constant"),
    ],
)
def test_the_slow_calls_are_estimated_without_a_list(
    draw: Callable[[int], float], slow_s: float
) -> None:
    """
    Mean and mean deviation come close to the 95th percentile.
    """
    latency = Latency()
    assert 2.0 == latency.slow_s
    for n in range(1000):
        latency.took(draw(n))

    assert pytest.approx(slow_s, rel=0.1) == latency.slow_s


@law(60)
@given(st.lists(st.floats(0, 5), min_size=1, max_size=200), st.integers(1, 60))
def test_the_last_minute_is_counted_exactly(gaps: list[float], span_s: int) -> None:
    """
    As many as a list of their times would say.
    """
    accepted, times, now = Accepted(), [], 0.0
    for gap in gaps:
        now += gap
        accepted.took(now)
        times.append(now)

    recent = [at for at in times if int(at) > int(now) - span_s]
    assert len(recent) / min(span_s, max(1.0, now - times[0])) == accepted.per_s(now, span_s)


def test_the_held_controller_learns_nothing() -> None:
    """
    It holds what it is given, whatever it hears, and meets the protocol of controllers.
    """
    controller: Controller = FixedController(LIMIT, 8)

    controller.sent(0.0, held=True)
    assert not controller.heard(heard(K.THROTTLED, 1.0))

    assert (LIMIT, 8, None) == (controller.pace, controller.concurrency, controller.learned_per_s)
    assert Mode.HOLD is controller.mode
    assert controller.gate.reason is None
