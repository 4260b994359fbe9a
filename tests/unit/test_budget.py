"""
The caps, as a machine: sends, ends, blocks, days and kills in any order, at every point between
what is durable and what a process knows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchrank.policy.amounts import NOTHING, WITHOUT_END, Amount
from batchrank.policy.budget import (
    Authorise,
    Borrow,
    Budget,
    Day,
    Exhausted,
    Full,
    Refusal,
    SharedCaps,
    day_of,
    granted,
    lost,
    lost_of_day,
    next_period,
)
from tests.laws import law

ENOUGH = Amount(10**9, 10**9, 10**9)


def usd(nano: int) -> Amount:
    """
    Money for one request, in 10^-9 US dollars.
    """
    return Amount(nano, 1, 0)


def capped(nano: int) -> Amount:
    """
    A cap on money alone.
    """
    return Amount(nano, WITHOUT_END.requests, WITHOUT_END.search_units)


def test_without_a_cap_nothing_is_refused_or_bounded() -> None:
    """
    No cap, no blocks: money is only counted.
    """
    budget = Budget()

    assert not budget.is_capped
    budget.settle(NOTHING, usd(5), "")
    assert (usd(5), NOTHING, NOTHING) == (budget.spent, budget.reserved, budget.authorised)


def test_what_may_be_spent_is_authorised_in_blocks() -> None:
    """
    The first call asks for sixteen calls' worth; the others of the block go without asking.
    """
    budget = Budget(ENOUGH)

    assert Authorise(usd(10).times(16)) == budget.reserve(usd(10), "")
    assert NOTHING == budget.reserved
    budget.authorised = usd(10).times(16)
    assert [None] * 16 == [budget.reserve(usd(10), "") for _ in range(16)]
    assert Authorise(usd(10).times(32)) == budget.reserve(usd(10), "")


def test_a_block_never_reaches_beyond_the_cap() -> None:
    """
    Near the end the block is what is left.
    """
    budget = Budget(capped(25), spent=usd(5))

    assert Authorise(Amount(25, 17)) == budget.reserve(usd(10), "")


def test_what_is_under_way_may_turn_out_cheaper() -> None:
    """
    While something is reserved, wait; when nothing is, the budget is exhausted.
    """
    budget = Budget(capped(25), authorised=Amount(25, 100))
    assert budget.reserve(usd(20), "") is None

    assert Refusal.WAIT is budget.reserve(usd(20), "")
    budget.settle(usd(20), usd(20), "")
    assert Exhausted("nano_usd") == budget.reserve(usd(20), "")
    assert budget.reserve(usd(5), "") is None


@pytest.mark.parametrize(
    ("cap", "counted"),
    [
        pytest.param(Amount(9, 10, 10), "nano_usd", id="money"),
        pytest.param(Amount(10, 0, 10), "requests", id="requests"),
        pytest.param(Amount(10, 10, 1), "search_units", id="search units"),
    ],
)
def test_a_cap_below_one_call_is_exhausted_at_once(cap: Amount, counted: str) -> None:
    """
    Nothing is sent that one of the caps does not cover, and it is said which.
    """
    assert Exhausted(counted) == Budget(cap).reserve(Amount(10, 1, 2), "")


def test_what_costs_nothing_is_never_refused() -> None:
    """
    A server of one's own is asked on with a budget that is spent to the last.
    """
    budget = Budget(capped(10), spent=usd(10), authorised=Amount(10, 2))

    assert budget.reserve(usd(0), "") is None


# --- what jobs share ------------------------------------------------------------------------------


def asked(least: int, wish: int, day: str = "2026-11-21") -> Borrow:
    """
    Somebody asks for money on a day.
    """
    return Borrow(day, Amount(least), Amount(wish), {})


def test_a_day_gives_what_is_wished_while_there_is_plenty() -> None:
    """
    A block is at most the fourth part of what is left beyond the call itself.
    """
    caps = SharedCaps(day=capped(1_000))

    assert Amount(100) == granted(asked(10, 100), caps, NOTHING, NOTHING)
    assert Amount(10 + 190 // 4) == granted(asked(10, 100), caps, Amount(800), Amount(800))


@pytest.mark.parametrize(
    ("day", "month", "period", "others"),
    [
        pytest.param(95, 95, "day", 95, id="the day"),
        pytest.param(0, 295, "month", 295, id="the month"),
        pytest.param(95, 295, "day", 95, id="both: the day passes first"),
    ],
)
def test_a_cap_that_is_reached_is_told(day: int, month: int, period: str, others: int) -> None:
    """
    Which one it is, and what others have of it.
    """
    caps = SharedCaps(day=capped(100), month=capped(300))

    answer = granted(asked(10, 100), caps, Amount(day), Amount(month))

    assert isinstance(answer, Full)
    assert (period, "nano_usd", others) == (answer.period, answer.counted, answer.others)


def test_a_refused_share_is_asked_for_again_only_if_it_could_be_had() -> None:
    """
    While calls are under way they are waited for: each asking costs two fsyncs.
    """
    budget = Budget(authorised=ENOUGH, days={"d": Day(held=usd(20))})
    assert budget.reserve(usd(15), "d") is None
    borrow = budget.reserve(usd(15), "d")
    assert isinstance(borrow, Borrow)

    assert budget.lent(borrow, Full(Amount(25, 9), "day", "nano_usd", 75)) is None
    assert Refusal.WAIT is budget.reserve(usd(15), "d")
    budget.settle(usd(15), usd(12), "d")
    again = budget.reserve(usd(15), "d")
    assert isinstance(again, Borrow)
    full = Full(Amount(25, 9), "day", "nano_usd", 75)
    assert full == budget.lent(again, full)


def test_what_comes_home_while_the_file_is_asked_is_not_too_late() -> None:
    """
    It was cheaper than what was set aside: another call may be covered now.
    """
    budget = Budget(authorised=ENOUGH, days={"d": Day(held=Amount(20, 9))})
    assert budget.reserve(usd(15), "d") is None
    borrow = budget.reserve(usd(15), "d")
    assert isinstance(borrow, Borrow)

    budget.settle(usd(15), usd(2), "d")

    assert budget.lent(borrow, Full(Amount(20, 9), "day", "nano_usd", 80)) is None
    assert budget.reserve(usd(15), "d") is None


def test_a_day_that_is_over_keeps_nothing_that_it_does_not_need() -> None:
    """
    What it has spent and what is still under way; a clock that jumps back has to ask again.
    """
    budget = Budget(authorised=ENOUGH, days={"d": Day(held=usd(100).times(9))})
    assert budget.reserve(usd(15), "d") is None

    borrow = budget.reserve(usd(10), "e")
    assert isinstance(borrow, Borrow)
    assert {"d": usd(15)} == borrow.others
    assert budget.lent(borrow, borrow.wish) is None
    assert budget.reserve(usd(10), "e") is None
    assert isinstance(budget.reserve(usd(1), "d"), Borrow)


@pytest.mark.parametrize(
    ("day", "period", "until"),
    [
        pytest.param("2026-11-21", "day", "2026-11-22", id="a day"),
        pytest.param("2026-12-31", "day", "2027-01-01", id="the last day of a year"),
        pytest.param("2026-11-01", "month", "2026-12-01", id="a month"),
        pytest.param("2026-12-31", "month", "2027-01-01", id="December"),
        pytest.param("2028-02-29", "month", "2028-03-01", id="a leap day"),
    ],
)
def test_when_a_period_is_over(day: str, period: str, until: str) -> None:
    """
    The day that the next one begins with.
    """
    assert until == next_period(day, period)


def test_days_are_those_of_utc() -> None:
    """
    Midnight is the new day's.
    """
    assert ("2026-11-21", "2026-11-22") == (day_of(1_795_305_599.999), day_of(1_795_305_600.0))


# --- the laws -------------------------------------------------------------------------------------

DAYS = ("2026-10-31", "2026-11-01", "2026-11-02")


@dataclass
class Sent:
    """
    A call that is under way: what was set aside, when it left, and what it truly costs.
    """

    most: Amount
    day: str
    cost: Amount


@dataclass
class Output:
    """
    One output: what its ledger durably says, what its process knows, what the provider charged.

    *records* are ended calls that are not committed yet.
    """

    cap: Amount
    authorised: Amount = NOTHING
    accounted: Amount = NOTHING
    by_day: Counter[str] = field(default_factory=Counter)
    days: dict[str, Amount] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    flying: list[Sent] = field(default_factory=list)
    records: list[tuple[str, Amount]] = field(default_factory=list)
    truly: Amount = NOTHING
    killed: bool = False


class Killed(Exception):
    """
    The process is gone.
    """


AMOUNTS = st.builds(Amount, st.integers(0, 40), st.just(1), st.integers(0, 3))
CAPS = st.builds(Amount, st.integers(0, 400), st.integers(0, 60), st.integers(0, 60))


NEVER = 99
POINTS = st.sampled_from([0, 1, 2, 3, 4, *[NEVER] * 6])
"""After how many points on its way a process is killed; more often it is not."""


class BudgetMachine(RuleBasedStateMachine):
    """
    Two outputs spend one budget. Each may be killed at any point; the clock jumps as it likes.

    What is done where a process would write is done here in the same order: ledger, then file.
    """

    def __init__(self) -> None:
        super().__init__()
        self.caps = SharedCaps()
        self.file: dict[tuple[str, int], Amount] = {}
        self.outputs: list[Output] = []
        self.today = DAYS[0]
        self.charged: dict[str, Amount] = {}

    @initialize(caps=st.builds(SharedCaps, CAPS, CAPS), own=st.lists(CAPS, min_size=2, max_size=2))
    def begin(self, caps: SharedCaps, own: list[Amount]) -> None:
        """
        Two fresh outputs.
        """
        self.caps = caps
        self.outputs = [Output(cap) for cap in own]
        for number in range(2):
            self._start(number, points=NEVER)

    # --- what processes do ------------------------------------------------------------------------

    @rule(number=st.integers(0, 1), most=AMOUNTS, points=POINTS, data=st.data())
    def send(self, number: int, most: Amount, points: int, data: st.DataObject) -> None:
        """
        One call, if the budget lets it, or a kill after so many points on the way.
        """
        output = self.outputs[number]
        try:
            if self._set_aside(number, most, points):
                cost = data.draw(st.builds(Amount, st.integers(0, most.nano_usd), st.just(1)))
                cost = Amount(cost.nano_usd, 1, data.draw(st.integers(0, most.search_units)))
                output.flying.append(Sent(most, self.today, cost))
                output.truly += cost
                self.charged[self.today] = self.charged.get(self.today, NOTHING) + cost
        except Killed:
            self.be_killed(number, NEVER)

    def _set_aside(self, number: int, most: Amount, points: int) -> bool:
        output, budget = self.outputs[number], self.outputs[number].budget
        for point in range(12):
            if point >= points:
                raise Killed
            match budget.reserve(most, self.today):
                case None:
                    return True
                case Authorise(total):
                    assert output.authorised.within(total)
                    output.authorised = total
                    if point + 1 >= points:
                        raise Killed
                    budget.authorised = total
                case Borrow() as borrow:
                    answer = self._borrow(number, borrow)
                    if point + 1 >= points:
                        raise Killed
                    if budget.lent(borrow, answer) is not None:
                        assert budget.reserved == NOTHING
                        return False
                case Exhausted():
                    assert budget.reserved == NOTHING
                    return False
                case Refusal.WAIT:
                    assert budget.reserved != NOTHING
                    return False
        raise AssertionError("it asks for ever")

    def _borrow(self, number: int, asked: Borrow) -> Amount | Full:
        for other, exactly in asked.others.items():
            self.file[other, number] = exactly
        beside = {at: held for at, held in self.file.items() if at != (asked.day, number)}
        on_day = sum((h for (d, _), h in beside.items() if d == asked.day), NOTHING)
        in_month = sum((h for (d, _), h in beside.items() if d[:7] == asked.day[:7]), NOTHING)
        answer = granted(asked, self.caps, on_day, in_month)
        if isinstance(answer, Amount):
            assert asked.least.within(answer)
            self.file[asked.day, number] = answer
        return answer

    @rule(number=st.integers(0, 1), data=st.data())
    def come_home(self, number: int, data: st.DataObject) -> None:
        """
        A call ends and is booked at what it cost, or at more where that is not known.
        """
        output = self.outputs[number]
        if output.flying:
            sent = output.flying.pop(data.draw(st.integers(0, len(output.flying) - 1)))
            booked = data.draw(st.sampled_from([sent.cost, sent.most]))
            output.budget.settle(sent.most, booked, sent.day)
            output.records.append((sent.day, booked))

    @rule(number=st.integers(0, 1))
    def commit(self, number: int) -> None:
        """
        What came home becomes durable.
        """
        output = self.outputs[number]
        for day, booked in output.records:
            output.accounted += booked
            output.days[day] = output.days.get(day, NOTHING) + booked
        output.records.clear()

    @rule(number=st.integers(0, 1), points=POINTS)
    def be_killed(self, number: int, points: int) -> None:
        """
        Nothing in memory is left; the next run may be killed as it begins.
        """
        output = self.outputs[number]
        output.flying, output.records, output.killed = [], [], True
        self._start(number, points)
        self._start(number, NEVER)

    @rule(number=st.integers(0, 1), points=POINTS)
    def end_in_good_order(self, number: int, points: int) -> None:
        """
        All comes home, and what was not spent is given back; or it is killed over that.
        """
        output = self.outputs[number]
        for sent in output.flying:
            output.budget.settle(sent.most, sent.cost, sent.day)
            output.records.append((sent.day, sent.cost))
        output.flying = []
        self.commit(number)
        output.authorised = output.accounted
        if points:
            for day in output.budget.days or ():
                self.file[day, number] = output.days.get(day, NOTHING)
        self._start(number, NEVER)

    def _start(self, number: int, points: int) -> None:
        """
        Begin a run as `job.money` does it; no more than so many points of it.
        """
        output = self.outputs[number]
        held = {day: amount for (day, whose), amount in self.file.items() if whose == number}
        new = lost(output.authorised, output.accounted)
        if points == 0:
            return
        for day, amount in held.items():
            before = output.days.get(day, NOTHING)
            output.days[day] = before + lost_of_day(new, amount, before)
        output.accounted += new
        if points == 1:
            return
        for day in held:
            self.file[day, number] = output.days[day]
        output.budget = Budget(
            output.cap,
            spent=output.accounted,
            authorised=output.accounted,
            block_sends=4,
            days={day: Day(output.days[day], held=output.days[day]) for day in held},
        )

    @rule(day=st.sampled_from(DAYS))
    def the_clock_jumps(self, day: str) -> None:
        """
        Midnight, a month's end, or a clock that was wrong.
        """
        self.today = day

    @rule(number=st.integers(0, 1), more=CAPS)
    def raise_the_caps(self, number: int, more: Amount) -> None:
        """
        A person allows more, for the next run.
        """
        self.outputs[number].cap += more
        self.caps = SharedCaps(self.caps.day + more, self.caps.month + more)
        self.end_in_good_order(number, 1)

    # --- what holds -------------------------------------------------------------------------------

    @invariant()
    def no_cap_is_passed(self) -> None:
        """
        Neither an output's own nor that of a day or a month, by what the provider has charged,
        heard of or not.
        """
        for output in self.outputs:
            assert output.truly.within(output.cap)
            assert (output.budget.spent + output.budget.reserved).within(output.cap)
        assert all(charged.within(self.caps.day) for charged in self.charged.values())
        for month in {day[:7] for day in DAYS}:
            of_it = (c for day, c in self.charged.items() if day[:7] == month)
            assert sum(of_it, NOTHING).within(self.caps.month)

    @invariant()
    def what_was_charged_is_durably_covered(self) -> None:
        """
        At every moment: by the ledger in all, and by the file on each day.
        """
        for output in self.outputs:
            assert output.truly.within(output.authorised.most(output.accounted))
        for day, charged in self.charged.items():
            held = sum((held for (d, _), held in self.file.items() if d == day), NOTHING)
            assert charged.within(held)

    @invariant()
    def nothing_is_held_for_good_without_a_kill(self) -> None:
        """
        Who was never killed, and has nothing under way, has accounted for what was charged.
        """
        for output in self.outputs:
            if not output.killed and not output.flying and not output.records:
                assert output.truly.within(output.accounted)


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = law(120, steps=40)
