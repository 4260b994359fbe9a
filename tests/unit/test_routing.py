"""
Which route is taken: laws that hold whatever state the routes are in, and what gates say of it.
"""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Failure, FailureKind
from batchrank.policy.gate import (
    AWAY_OUTAGE_S,
    AWAY_THROTTLED_S,
    OUTAGE_FAILURES,
    THROTTLES_MIN,
    Gate,
    Leave,
)
from batchrank.policy.routing import (
    SPENT_PROBE_S,
    Strategy,
    View,
    Wait,
    choose,
    probe_again_s,
)
from tests.laws import law

NOW = 100.0
OPEN = View(Leave.SEND, inf, -inf, room=True, ready_at=NOW)
FULL = View(Leave.SEND, inf, -inf, room=False, ready_at=NOW)
HICCUP = View(Leave.WAIT, NOW + 3, NOW + 1, room=True, ready_at=NOW)
AWAY = View(Leave.WAIT, NOW - 3, NOW + 20, room=True, ready_at=NOW)
DUE = View(Leave.PROBE, NOW - 3, NOW, room=True, ready_at=NOW)
ASKED = View(Leave.WAIT, NOW - 3, inf, room=True, ready_at=NOW)
CLOGGED = View(Leave.PROBE, NOW - 3, NOW, room=False, ready_at=NOW)


def at(ready_at: float) -> View:
    """
    An open route whose turn is then.
    """
    return View(Leave.SEND, inf, -inf, room=True, ready_at=ready_at)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        pytest.param([OPEN, OPEN], 0, id="the first, while it lets through"),
        pytest.param([FULL, OPEN], Wait(inf, full=True), id="a full one is waited for"),
        pytest.param([HICCUP, OPEN], Wait(NOW + 1), id="a hiccup is waited for"),
        pytest.param([AWAY, OPEN], 1, id="the next, when it is away"),
        pytest.param([DUE, OPEN], 0, id="a probe goes before"),
        pytest.param([ASKED, OPEN], 1, id="while a probe is under way"),
        pytest.param([CLOGGED, OPEN], 1, id="no room for a probe: the next"),
        pytest.param([None, OPEN], 1, id="given up: the next"),
        pytest.param([OPEN, DUE], 0, id="who is not needed is not probed"),
        pytest.param([AWAY, ASKED], Wait(NOW + 20), id="all away: until the first probe"),
        pytest.param([AWAY, FULL], Wait(NOW + 20, full=True), id="full, but a probe comes due"),
        pytest.param([AWAY, HICCUP], Wait(NOW + 1), id="away, and a hiccup"),
        pytest.param([AWAY, None, OPEN], 2, id="the third"),
    ],
)
def test_a_chain_takes_the_first_that_is_not_away(
    views: list[View | None], expected: int | Wait
) -> None:
    """
    In order; only an outage moves anybody on, and probes go before.
    """
    assert expected == choose(views, Strategy.FAILOVER, NOW)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        pytest.param([at(NOW + 2), at(NOW + 1)], 1, id="whose turn is sooner"),
        pytest.param([at(NOW), at(NOW)], 0, id="the first of equals"),
        pytest.param([FULL, OPEN], 1, id="who has room"),
        pytest.param([HICCUP, OPEN], 1, id="who lets through"),
        pytest.param([OPEN, DUE], 1, id="a probe goes before"),
        pytest.param([FULL, AWAY], Wait(NOW + 20, full=True), id="full, and away"),
        pytest.param([AWAY, HICCUP], Wait(NOW + 1), id="nobody"),
        pytest.param([None, ASKED], Wait(inf), id="a probe is under way"),
    ],
)
def test_spread_takes_whose_turn_is_next(views: list[View | None], expected: int | Wait) -> None:
    """
    Of all that let through and have room.
    """
    assert expected == choose(views, Strategy.SPREAD, NOW)


TIMES = st.floats(0, 200, allow_nan=False)
VIEWS = st.lists(
    st.none()
    | st.builds(
        View,
        st.sampled_from(Leave),
        TIMES | st.just(inf) | st.just(-inf),
        TIMES | st.just(inf),
        st.booleans(),
        TIMES,
    ),
    min_size=1,
    max_size=5,
)


@law(200)
@given(VIEWS, st.sampled_from(Strategy), TIMES)
def test_who_is_taken_may_be_asked_and_has_room(
    views: list[View | None], strategy: Strategy, now: float
) -> None:
    """
    Never one that is given up, shut or full; and whoever waits could take nobody that is open and
    comes first.
    """
    choice = choose(views, strategy, now)

    if isinstance(choice, Wait):
        open_ = [v for v in views if v is not None and v.leave is not Leave.WAIT and v.room]
        first = next((v for v in views if v is not None), None)
        assert first is None or first not in open_
        assert strategy is Strategy.FAILOVER or not open_
    else:
        view = views[choice]
        assert view is not None
        assert view.room
        assert view.leave is not Leave.WAIT


@law(100)
@given(VIEWS.filter(any), st.sampled_from(Strategy), TIMES, st.integers(0, 5))
def test_a_route_that_is_given_up_changes_nothing_for_the_others(
    views: list[View | None], strategy: Strategy, now: float, place: int
) -> None:
    """
    Wherever in the chain it stands.
    """
    place = min(place, len(views))
    choice = choose(views, strategy, now)
    moved = choice if isinstance(choice, Wait) else choice + (choice >= place)

    assert moved == choose([*views[:place], None, *views[place:]], strategy, now)


@law(100)
@given(VIEWS, TIMES)
def test_nobody_is_skipped_in_a_chain_who_is_not_away(views: list[View | None], now: float) -> None:
    """
    Every route before the one that is taken is given up, or has been shut for long enough.
    """
    choice = choose(views, Strategy.FAILOVER, now)

    if not isinstance(choice, Wait):
        assert all(view is None or view.away_at <= now for view in views[:choice])


# --- what gates and failures say of it ------------------------------------------------------------


def test_an_outage_moves_traffic_when_its_first_probe_can_have_failed() -> None:
    """
    Twenty failures shut the gate; from then on it is a matter of seconds.
    """
    gate = Gate()
    assert inf == gate.away_at()
    for _ in range(OUTAGE_FAILURES):
        gate.failed(None, 10.0, "refused", probe=False, jitter=0.5)

    assert 10.0 + AWAY_OUTAGE_S == gate.away_at()
    gate.succeeded(20.0, probe=True)
    assert inf == gate.away_at()


@pytest.mark.parametrize(
    ("hint_s", "away_at"),
    [
        pytest.param(None, 10.0 + AWAY_THROTTLED_S, id="without a hint"),
        pytest.param(5.0, 10.0 + AWAY_THROTTLED_S, id="a short one"),
        pytest.param(60.0, 10.0, id="a long one"),
    ],
)
def test_throttles_move_traffic_only_if_they_last(hint_s: float | None, away_at: float) -> None:
    """
    Told to wait for long, nobody waits to see.
    """
    gate = Gate()
    for _ in range(THROTTLES_MIN):
        gate.throttled(10.0, hint_s, probe=False, jitter=0.5)

    assert away_at == gate.away_at()


@pytest.mark.parametrize(
    ("status", "again_s"), [(401, inf), (404, inf), (402, SPENT_PROBE_S), (429, SPENT_PROBE_S)]
)
def test_only_what_is_spent_comes_back(status: int, again_s: float) -> None:
    """
    A key that is refused stays refused for the run.
    """
    assert again_s == probe_again_s(Failure(FailureKind.FATAL, "no", status))
