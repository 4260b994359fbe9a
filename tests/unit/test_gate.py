"""
The gate: when it shuts and opens, who may probe, whose fault a run of failures was.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchrank.domain import FailureKind
from batchrank.policy.gate import (
    HINT_S_MAX,
    OUTAGE_FAILURES,
    THROTTLES_MIN,
    Gate,
    Leave,
)
from tests.laws import law

K = FailureKind
MIDDLE = 0.5  # the jitter that changes nothing, but for hints


def throttled(gate: Gate, now: float, hint_s: float | None = None, probe: bool = False) -> bool:
    """
    One throttle, with hints drawn as they are.
    """
    return gate.throttled(now, hint_s, probe, 0.0 if hint_s else MIDDLE)


def shut_by_outage(now: float = 0.0) -> Gate:
    """
    A gate that a run of failures has shut.
    """
    gate = Gate()
    for n in range(OUTAGE_FAILURES):
        gate.failed(n, now, "502", False, MIDDLE)
    return gate


def shut_by_throttles(now: float = 0.0) -> Gate:
    """
    A gate that throttles without a hint have shut.
    """
    gate = Gate()
    for _ in range(THROTTLES_MIN):
        throttled(gate, now)
    return gate


# --- shutting -------------------------------------------------------------------------------------


def test_an_open_gate_lets_everybody_through() -> None:
    """
    Before anything has happened there is nothing to wait for, and nothing to say.
    """
    gate = Gate()

    assert Leave.SEND is gate.leave(0.0)
    assert (None, None, None) == (gate.reason, gate.kind, gate.until())
    assert -math.inf == gate.wake_at()
    assert (0.0, 0.0) == (gate.throttled_s(1e9), gate.unheard_s(1e9))


@pytest.mark.parametrize(
    ("per_s", "needed"),
    [(0.0, 5), (20.0, 5), (200.0, 50)],
    ids=["no rate", "twenty a second", "two hundred a second"],
)
def test_throttles_without_a_success_shut_it(per_s: float, needed: int) -> None:
    """
    Five of them do, or those of a quarter of a second at full rate.
    """
    gate = Gate()
    gate.full_rate(per_s)

    told = [throttled(gate, 1.0) for _ in range(needed)]

    assert [False] * (needed - 1) + [True] == told
    assert K.THROTTLED is gate.kind
    assert f"throttled {needed} times without a success" == gate.reason


def test_a_success_between_throttles_starts_the_count_anew() -> None:
    """
    A limit that lets some through is the pacer's business, not the gate's.
    """
    gate = Gate()
    for _ in range(10):
        for _ in range(THROTTLES_MIN - 1):
            assert not throttled(gate, 0.0)
        gate.succeeded(0.0, probe=False)

    assert Leave.SEND is gate.leave(0.0)


def test_a_run_of_failures_shuts_it_and_takes_their_strikes_back() -> None:
    """
    Twenty failures without a success are an outage: each slice gets back what it was struck with,
    and a failure that never left was no strike.
    """
    gate = Gate()
    struck: list[str | None] = ["a", "b", None, "a", "c"] * 4

    answers = [gate.failed(key, 1.0, "no route", False, MIDDLE) for key in struck]

    assert [None] * 19 == answers[:-1]
    assert answers[-1] is not None
    assert {"a": 8, "b": 4, "c": 4} == answers[-1].strikes
    assert "20 failures in a row, last: no route" == gate.reason
    assert K.UNKNOWN is gate.kind


def test_failures_with_a_success_between_them_are_the_groups_own() -> None:
    """
    Nineteen failures, a success, nineteen failures: no outage, and no strike is taken back.
    """
    gate = Gate()
    for _ in range(3):
        for n in range(OUTAGE_FAILURES - 1):
            assert gate.failed(n, 0.0, "502", False, MIDDLE) is None
        gate.succeeded(0.0, probe=False)


def test_what_fails_while_it_is_shut_is_forgiven_at_once() -> None:
    """
    Whoever was under way when the outage began, and every probe, is struck by the outage alone.
    """
    gate = shut_by_outage()

    late = gate.failed("late", 1.0, "reset", False, MIDDLE)
    unsent = gate.failed(None, 1.0, "refused", False, MIDDLE)
    gate.probe_sent()
    probe = gate.failed("probe", 6.0, "502", True, MIDDLE)

    assert late is not None
    assert unsent is not None
    assert probe is not None
    assert [{"late": 1}, {}, {"probe": 1}] == [late.strikes, unsent.strikes, probe.strikes]


def test_doubt_shuts_it_and_gives_back_what_was_struck_since_the_last_success() -> None:
    """
    When nobody else is left to compare with, probes are to tell whose fault it is.
    """
    gate = Gate()
    gate.failed("a", 0.0, "500", False, MIDDLE)
    gate.failed("a", 1.0, "500", False, MIDDLE)

    amnesty = gate.doubted(2.0, "no answer", MIDDLE)

    assert {"a": 2} == amnesty.strikes
    assert "nothing succeeds any more, last: no answer" == gate.reason
    assert Leave.WAIT is gate.leave(2.0)


# --- probing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gate", "kind", "waits"),
    [
        pytest.param(shut_by_outage(), K.UNKNOWN, [5, 10, 20, 40, 60, 60, 60], id="outage"),
        pytest.param(shut_by_throttles(), K.THROTTLED, [1, 2, 4, 8, 15, 15], id="throttles"),
    ],
)
def test_probes_go_one_at_a_time_and_ever_more_rarely(
    gate: Gate, kind: FailureKind, waits: list[float]
) -> None:
    """
    Each failed probe puts the next one off by its schedule, the last of which repeats.
    """
    now = 0.0
    for wait in waits:
        assert pytest.approx(now + wait) == gate.wake_at() == gate.until()
        assert Leave.WAIT is gate.leave(now + wait - 0.001)
        now += wait
        assert Leave.PROBE is gate.leave(now)
        gate.probe_sent()
        assert math.inf == gate.wake_at()
        assert Leave.WAIT is gate.leave(now + 1e6)
        if kind is K.THROTTLED:
            gate.throttled(now, None, True, MIDDLE)
        else:
            gate.failed("x", now, "502", True, MIDDLE)

    lasted = gate.throttled_s(now) if kind is K.THROTTLED else gate.unheard_s(now)
    assert pytest.approx(sum(waits)) == lasted


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.8), (1.0, 1.2)])
def test_probes_are_drawn_within_twenty_percent(jitter: float, share: float) -> None:
    """
    A fleet does not probe in step.
    """
    gate = Gate()
    for n in range(OUTAGE_FAILURES):
        gate.failed(n, 0.0, "502", False, jitter)

    assert pytest.approx(5 * share) == gate.wake_at()


def test_a_probe_is_announced_only_while_it_is_shut() -> None:
    """
    Anything else is a bug of whoever sends.
    """
    with pytest.raises(AssertionError, match="while the gate is open"):
        Gate().probe_sent()


def test_a_probe_that_succeeds_opens_it_and_ends_the_trouble() -> None:
    """
    From then on everybody may send, and counting begins anew.
    """
    gate = shut_by_outage(now=10.0)
    gate.probe_sent()

    assert gate.succeeded(sent_at=15.0, probe=True)
    assert Leave.SEND is gate.leave(15.1)
    assert (0.0, 0.0) == (gate.throttled_s(99.0), gate.unheard_s(99.0))
    assert gate.failed("a", 16.0, "502", False, MIDDLE) is None


@pytest.mark.parametrize("gate", [shut_by_outage(10.0), shut_by_throttles(10.0)])
def test_a_success_that_left_before_it_shut_does_not_open_it(gate: Gate) -> None:
    """
    What was under way says nothing about what is behind the gate now.
    """
    assert not gate.succeeded(sent_at=9.0, probe=False)
    assert not gate.succeeded(sent_at=10.0, probe=False)
    assert Leave.WAIT is gate.leave(10.0)
    assert gate.succeeded(sent_at=10.1, probe=False)


def test_a_probe_that_is_refused_opens_it() -> None:
    """
    Whoever answers a probe is there, if only to say that the group is bad; the outage is over.
    """
    gate = shut_by_outage()
    gate.probe_sent()

    assert gate.refused(probe=True)
    assert Leave.SEND is gate.leave(1.0)
    assert 0.0 == gate.unheard_s(3600.0)


@pytest.mark.parametrize("gate", [shut_by_outage(10.0), shut_by_throttles(10.0)])
def test_a_run_that_takes_it_over_begins_its_patience_anew(gate: Gate) -> None:
    """
    It stays shut; what lay between the runs is no time in which somebody tried.
    """
    gate.taken_over(5_000.0)

    assert 0.0 == gate.throttled_s(5_000.0) + gate.unheard_s(5_000.0)
    assert 7.0 == gate.throttled_s(5_007.0) + gate.unheard_s(5_007.0)
    assert gate.reason is not None


@pytest.mark.parametrize("gate", [shut_by_outage(10.0), shut_by_throttles(10.0)])
def test_a_probe_that_a_run_has_left_behind_keeps_no_other_run_waiting(gate: Gate) -> None:
    """
    It was under way when the run had to end; nobody will ever tell what came of it.
    """
    gate.probe_sent()

    gate.taken_over(5_000.0)

    assert Leave.PROBE is gate.leave(5_000.0)


def test_strikes_of_another_runs_groups_are_not_taken_back_here() -> None:
    """
    Positions are counted from 0 in every run: they would be those of others.
    """
    gate = Gate()
    gate.failed("of the run before", 0.0, "502", False, MIDDLE)
    gate.taken_over(1.0)

    amnesties = [gate.failed("x", 2.0, "502", False, MIDDLE) for _ in range(OUTAGE_FAILURES)]

    assert [{"x": OUTAGE_FAILURES - 1}] == [each.strikes for each in amnesties[:-1] if each]


def test_others_that_are_refused_change_nothing() -> None:
    """
    A 400 to what left before the gate shut is no news of what is behind it.
    """
    gate = shut_by_outage()

    assert not gate.refused(probe=False)
    assert Leave.WAIT is gate.leave(0.0)
    assert not Gate().refused(probe=True)


def test_what_a_probe_meets_is_what_is_in_the_way_now() -> None:
    """
    A throttled job whose server then dies is in an outage: told as one, probed as one.
    """
    gate = shut_by_throttles(now=0.0)
    gate.probe_sent()
    gate.failed("a", 100.0, "no route", True, MIDDLE)

    assert (K.UNKNOWN, "a probe failed: no route") == (gate.kind, gate.reason)
    assert 110.0 == gate.wake_at()

    gate.probe_sent()
    throttled(gate, 110.0, 30.0, probe=True)
    assert (K.THROTTLED, "asked to wait 30 s (Retry-After)") == (gate.kind, gate.reason)


def test_what_was_under_way_is_no_news_of_what_is_in_the_way() -> None:
    """
    A late failure changes neither the reason nor the kind.
    """
    gate = shut_by_throttles(now=0.0)
    reason = gate.reason

    gate.failed("a", 0.5, "reset", False, MIDDLE)

    assert (K.THROTTLED, reason) == (gate.kind, gate.reason)


def test_throttling_and_silence_have_clocks_of_their_own() -> None:
    """
    An answer of any kind ends a silence; only scores end the throttling.
    """
    gate = Gate()
    gate.failed("a", 0.0, "reset", False, MIDDLE)
    assert (0.0, 50.0) == (gate.throttled_s(50.0), gate.unheard_s(50.0))

    throttled(gate, 100.0)
    throttled(gate, 200.0)
    assert (200.0, 0.0) == (gate.throttled_s(300.0), gate.unheard_s(300.0))

    gate.failed("a", 400.0, "reset", False, MIDDLE)
    gate.failed("a", 450.0, "reset", False, MIDDLE)
    assert (400.0, 100.0) == (gate.throttled_s(500.0), gate.unheard_s(500.0))

    gate.succeeded(500.0, probe=False)
    assert (0.0, 0.0) == (gate.throttled_s(600.0), gate.unheard_s(600.0))


# --- hints ----------------------------------------------------------------------------------------


def test_a_short_hint_opens_by_itself_when_it_has_passed() -> None:
    """
    Two seconds of Retry-After need no probe: everybody may send when they are over.
    """
    gate = Gate()

    assert gate.throttled(10.0, 2.0, False, jitter=1.0)
    assert not gate.opens_itself(12.1)
    assert Leave.WAIT is gate.leave(12.1)
    assert gate.opens_itself(12.2)
    assert Leave.SEND is gate.leave(12.2)
    assert not gate.opens_itself(12.2)


def test_short_hints_again_and_again_need_a_probe() -> None:
    """
    Whoever asks everybody for one second for hours is not asked by everybody every second.
    """
    gate = Gate()
    for second in range(THROTTLES_MIN - 1):
        throttled(gate, 2.0 * second, 1.0)
        assert gate.opens_itself(2.0 * second + 1.0)

    throttled(gate, 20.0, 1.0)

    assert not gate.opens_itself(30.0)
    assert Leave.PROBE is gate.leave(30.0)


def test_a_longer_hint_needs_a_probe() -> None:
    """
    After thirty seconds one probe goes first.
    """
    gate = Gate()
    throttled(gate, 0.0, 30.0)

    assert not gate.opens_itself(31.0)
    assert Leave.WAIT is gate.leave(29.9)
    assert Leave.PROBE is gate.leave(30.0)
    assert "asked to wait 30 s (Retry-After)" == gate.reason


def test_a_hint_of_an_hour_is_told_whole_and_asked_about_every_minute() -> None:
    """
    `until` says the hour, probes go once a minute as long as they are told the same.
    """
    gate = Gate()
    throttled(gate, 0.0, 3600.0)

    for minute in range(1, 30):
        now = 60.0 * minute
        assert 3600.0 == gate.until()
        assert Leave.WAIT is gate.leave(now - 0.001)
        assert Leave.PROBE is gate.leave(now)
        gate.probe_sent()
        assert throttled(gate, now, 3600.0 - now, probe=True)


def test_a_probe_that_is_given_another_hint_waits_for_that() -> None:
    """
    A server that asks for half a minute again gets it.
    """
    gate = Gate()
    throttled(gate, 0.0, 30.0)
    gate.probe_sent()

    assert throttled(gate, 30.0, 30.0, probe=True)
    assert 60.0 == gate.wake_at() == gate.until()


@pytest.mark.parametrize(
    ("hint", "news", "until"),
    [
        pytest.param(29.0, False, 30.0, id="the same, one second later"),
        pytest.param(29.9, False, 30.0, id="hardly longer"),
        pytest.param(45.0, True, 46.0, id="longer"),
        pytest.param(5.0, False, 30.0, id="shorter"),
        pytest.param(None, False, 30.0, id="none"),
    ],
)
def test_what_was_under_way_repeats_the_hint(hint: float | None, news: bool, until: float) -> None:
    """
    Only a hint that reaches further is news, and puts the probe off.
    """
    gate = Gate()
    throttled(gate, 0.0, 30.0)

    assert news is throttled(gate, 1.0, hint)
    assert until == gate.until() == gate.wake_at()


def test_a_short_hint_that_grows_needs_a_probe() -> None:
    """
    What follows within the two seconds may say that it takes longer.
    """
    gate = Gate()
    throttled(gate, 0.0, 1.0)
    throttled(gate, 0.5, 20.0)

    assert not gate.opens_itself(20.5)
    assert Leave.PROBE is gate.leave(20.5)


@pytest.mark.parametrize(
    "hint", [0.0, -1.0, -math.inf, math.nan], ids=["zero", "negative", "minus infinity", "nan"]
)
def test_a_hint_that_is_no_time_is_no_hint(hint: float) -> None:
    """
    It counts as a throttle without one, also for a gate that is shut.
    """
    gate = Gate()

    assert [False] * 4 + [True] == [throttled(gate, 0.0, hint) for _ in range(5)]
    assert not gate.opens_itself(100.0)
    gate.probe_sent()
    throttled(gate, 100.0, hint, probe=True)
    assert 102.0 == pytest.approx(gate.wake_at(), abs=0.5)


@pytest.mark.parametrize("hint", [1e9, 1e300, math.inf])
def test_an_absurd_hint_costs_a_minute(hint: float) -> None:
    """
    However long, the first probe goes after sixty seconds.
    """
    gate = Gate()
    throttled(gate, 0.0, hint)

    assert HINT_S_MAX == gate.wake_at()
    assert hint == gate.until()


def test_failures_during_a_hint_do_not_shorten_it() -> None:
    """
    A reset connection while everybody waits is no reason to probe earlier.
    """
    gate = Gate()
    throttled(gate, 0.0, 30.0)
    gate.failed("a", 1.0, "reset", False, MIDDLE)

    assert 30.0 == gate.wake_at()


def test_a_day_that_a_probe_refutes_is_not_asked_for_again() -> None:
    """
    Who asks for a day and answers after a minute is taken at a minute at most from then on.
    """
    gate = Gate()
    throttled(gate, 0.0, 86_400.0)
    gate.probe_sent()
    assert gate.succeeded(sent_at=60.0, probe=True)

    assert not throttled(gate, 100.0, 86_400.0)
    assert Leave.SEND is gate.leave(100.0)
    assert throttled(gate, 101.0, 30.0)
    assert 131.0 == gate.wake_at()


def test_an_hour_that_was_over_when_it_had_passed_is_believed_again() -> None:
    """
    A hint that no probe refuted is a hint.
    """
    gate = Gate()
    throttled(gate, 0.0, 3600.0)
    gate.probe_sent()
    assert gate.succeeded(sent_at=3600.0, probe=True)

    assert throttled(gate, 4000.0, 3600.0)
    assert 7600.0 == gate.until()


# --- what replies tell ----------------------------------------------------------------------------


def test_nothing_left_is_a_hint_without_a_throttle() -> None:
    """
    It shuts and opens as Retry-After does, and nobody was throttled.
    """
    gate = Gate()

    assert gate.spent(10.0, 30.0, 0.0)
    assert (K.THROTTLED, "told that nothing is left for 30 s") == (gate.kind, gate.reason)
    assert 0.0 == gate.throttled_s(20.0)
    assert Leave.WAIT is gate.leave(39.9)
    assert Leave.PROBE is gate.leave(40.0)


def test_nothing_left_for_longer_puts_the_opening_off() -> None:
    """
    Replies that were under way repeat it; only what reaches further is news.
    """
    gate = Gate()
    gate.spent(10.0, 30.0, 0.0)

    assert not gate.spent(10.5, 29.5, 0.0)
    assert gate.spent(11.0, 59.0, 0.0)
    assert 70.0 == gate.wake_at()


@pytest.mark.parametrize("reset_s", [0.0, -1.0, math.nan])
def test_no_time_is_nothing_to_wait_for(reset_s: float) -> None:
    """
    A reset that has passed shuts nothing.
    """
    gate = Gate()

    assert not gate.spent(10.0, reset_s, 0.0)
    assert Leave.SEND is gate.leave(10.0)


# --- runs of throttles ----------------------------------------------------------------------------


def test_successes_of_what_left_before_the_first_throttle_do_not_interrupt_a_run() -> None:
    """
    They take longer to come home than refusals, and say nothing of what is refused since.
    """
    gate = Gate()

    told = []
    for n in range(THROTTLES_MIN):
        told.append(throttled(gate, 10.0 + n / 10))
        gate.succeeded(sent_at=9.9, probe=False)

    assert [False] * (THROTTLES_MIN - 1) + [True] == told


@pytest.mark.parametrize(("per_s", "needed"), [(4.0, 5), (20.0, 5), (400.0, 100)])
def test_a_run_is_as_long_as_the_rate_makes_it(per_s: float, needed: int) -> None:
    """
    What is refused in a quarter of a second at full rate, five at least.
    """
    gate = Gate()
    gate.full_rate(per_s)

    assert [False] * (needed - 1) + [True] == [throttled(gate, 1.0) for _ in range(needed)]


# --- whatever happens -----------------------------------------------------------------------------


class GateMachine(RuleBasedStateMachine):
    """
    Attempts of some slices leave through the gate and end in any way, in any order.

    The model counts strikes: one for each failure with a key, taken back by amnesties.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.now = 0.0
        self.under_way: list[tuple[str, float, bool]] = []
        self.struck: Counter[str] = Counter()  # since the last success that was heard
        self.held: Counter[str] = Counter()  # strikes that slices have, and keep

    @rule(wait=st.floats(0, 100))
    def time_passes(self, wait: float) -> None:
        """
        Some time.
        """
        self.now += wait

    @rule(key=st.sampled_from("abcd"))
    def somebody_wants_to_leave(self, key: str) -> None:
        """
        Send, or probe, if the gate allows it.
        """
        if self.gate.opens_itself(self.now):
            assert Leave.SEND is self.gate.leave(self.now)
        answer = self.gate.leave(self.now)
        if answer is Leave.WAIT:
            return
        assert (answer is Leave.SEND) is (self.gate.reason is None)
        if answer is Leave.PROBE:
            self.gate.probe_sent()
        self.under_way.append((key, self.now, answer is Leave.PROBE))

    @precondition(lambda self: self.under_way)
    @rule(
        data=st.data(),
        how=st.sampled_from(["scores", "refused", "throttled", "failed", "never sent"]),
        hint=st.none() | st.floats(0, 500),
        jitter=st.floats(0, 1),
    )
    def somebody_comes_home(
        self, data: st.DataObject, how: str, hint: float | None, jitter: float
    ) -> None:
        """
        Any of those under way ends in any way.
        """
        place = data.draw(st.integers(0, len(self.under_way) - 1))
        key, sent_at, probe = self.under_way.pop(place)
        was_shut = self.gate.reason is not None
        if how == "scores":
            opened = self.gate.succeeded(sent_at, probe)
            assert opened is (was_shut and self.gate.reason is None)
            assert opened or not probe or not was_shut
        elif how == "refused":
            assert self.gate.refused(probe) is (probe and was_shut)
        elif how == "throttled":
            told = self.gate.throttled(self.now, hint, probe, jitter)
            assert not told or self.gate.reason is not None
        else:
            self._failed(None if how == "never sent" else key, probe, jitter)
        if how != "refused" and was_shut and not probe and how != "scores":
            assert self.gate.reason is not None

    def _failed(self, key: str | None, probe: bool, jitter: float) -> None:
        was_shut = self.gate.reason is not None
        if key is not None:
            self.held[key] += 1
        amnesty = self.gate.failed(key, self.now, "words", probe, jitter)
        assert (amnesty is not None) is (self.gate.reason is not None)
        for forgiven, strikes in (amnesty.strikes if amnesty else {}).items():
            assert isinstance(forgiven, str)
            assert strikes <= self.held[forgiven]
            self.held[forgiven] -= strikes
        if was_shut and key is not None:
            assert amnesty is not None
            assert {key: 1} == amnesty.strikes

    @invariant()
    def one_probe_at_most(self) -> None:
        """
        While it is shut nobody leaves but one probe, and somebody may again at a time that is told.
        """
        probes = sum(probe for _, _, probe in self.under_way)
        assert probes <= 1
        if self.gate.reason is None:
            assert probes == 0
        elif math.isinf(self.gate.wake_at()):
            assert probes == 1
            assert Leave.WAIT is self.gate.leave(math.inf)
        else:
            assert Leave.WAIT is self.gate.leave(math.nextafter(self.gate.wake_at(), -math.inf))
            assert Leave.PROBE is self.gate.leave(self.gate.wake_at())
            assert self.gate.wake_at() <= self.now + 1.2 * HINT_S_MAX


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = law(40, steps=40)


@law(30)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=20, max_size=60),
    st.floats(0, 1),
)
def test_strikes_since_the_last_success_are_taken_back_exactly(
    happened: list[tuple[str, bool]], jitter: float
) -> None:
    """
    An amnesty names each slice with as many strikes as it got since the last success, no more.
    """
    gate, since = Gate(), Counter[str]()
    for key, good in happened:
        if good and since.total() < OUTAGE_FAILURES - 1:
            gate.succeeded(0.0, probe=False)
            since.clear()
            continue
        since[key] += 1
        amnesty = gate.failed(key, 0.0, "502", False, jitter)
        if amnesty is not None:
            assert since == amnesty.strikes
            return
        assert since.total() < OUTAGE_FAILURES
