"""
The cap on money, as a machine: sends, ends, blocks and kills in any order.
"""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchrank.policy.budget import Authorise, Budget, Refusal
from tests.laws import law


def test_without_a_cap_nothing_is_refused_or_written() -> None:
    """
    No cap, no blocks: money is only counted.
    """
    budget = Budget(None)

    assert budget.reserve(10**12) is None
    budget.settle(10**12, 5)

    assert (5, 0, 0) == (budget.spent, budget.reserved, budget.authorised)


def test_what_may_be_spent_is_authorised_in_blocks() -> None:
    """
    The first call asks for sixteen calls' worth; the others of the block go without asking.
    """
    budget = Budget(cap=10**9)

    assert Authorise(160) == budget.reserve(10)
    assert 0 == budget.reserved
    budget.authorised = 160
    assert [None] * 16 == [budget.reserve(10) for _ in range(16)]
    assert Authorise(320) == budget.reserve(10)


def test_a_block_never_reaches_beyond_the_cap() -> None:
    """
    Near the end the block is what is left.
    """
    budget = Budget(cap=25, spent=5)

    assert Authorise(25) == budget.reserve(10)


def test_what_is_under_way_may_turn_out_cheaper() -> None:
    """
    While something is reserved, wait; when nothing is, the budget is exhausted.
    """
    budget = Budget(cap=25, authorised=25)
    assert budget.reserve(20) is None

    assert Refusal.WAIT is budget.reserve(20)
    budget.settle(20, 20)
    assert Refusal.EXHAUSTED is budget.reserve(20)
    assert budget.reserve(5) is None


@pytest.mark.parametrize("cap", [0, 1, 9])
def test_a_cap_below_one_call_is_exhausted_at_once(cap: int) -> None:
    """
    Nothing is sent that the cap does not cover.
    """
    assert Refusal.EXHAUSTED is Budget(cap=cap).reserve(10)


def test_what_costs_nothing_is_never_refused() -> None:
    """
    A scorer in process goes on with a budget that is spent to the last.
    """
    assert Budget(cap=10, spent=10, authorised=10).reserve(0) is None


class BudgetMachine(RuleBasedStateMachine):
    """
    Calls reserve and settle; the ledger holds what is authorised; the process may be killed.

    After a kill the next run begins as `job` does it: what was authorised and not booked counts as
    spent.
    """

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(0)
        self.durable = 0
        self.booked = 0  # in the ledger
        self.truly = 0  # what the provider has charged, heard of or not
        self.flying: list[tuple[int, int]] = []

    @initialize(cap=st.integers(0, 500), block=st.integers(1, 20))
    def begin(self, cap: int, block: int) -> None:
        """
        A fresh output.
        """
        self.budget = Budget(cap, block_sends=block)

    @rule(most=st.integers(0, 40), data=st.data())
    def send(self, most: int, data: st.DataObject) -> None:
        """
        One call, if the budget lets it; what it costs is known to the provider alone.
        """
        while isinstance(answer := self.budget.reserve(most), Authorise):
            assert answer.nano_usd > self.durable
            self.durable = self.budget.authorised = answer.nano_usd
        if answer is None:
            cost = data.draw(st.integers(0, most))
            self.flying.append((most, cost))
            self.truly += cost
        else:
            assert (answer is Refusal.WAIT) is (self.budget.reserved > 0)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def come_home(self, data: st.DataObject) -> None:
        """
        A call ends and is booked at what it cost, or at more where that is not known.
        """
        most, cost = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        booked = data.draw(st.integers(cost, most))
        self.budget.settle(most, booked)
        self.booked += booked

    @rule(block=st.integers(1, 20))
    def be_killed(self, block: int) -> None:
        """
        Nothing in memory is left; the next run counts all that was authorised as spent.
        """
        spent = max(self.durable, self.booked)
        self.booked = spent  # what was lost stands in the ledger as lost
        self.budget = Budget(self.budget.cap, spent=spent, authorised=spent, block_sends=block)
        self.flying = []

    @precondition(lambda self: not self.flying)
    @rule()
    def end_in_good_order(self) -> None:
        """
        What was authorised and not spent is given back.
        """
        self.durable = self.booked
        self.budget = Budget(self.budget.cap, spent=self.booked, authorised=self.booked)

    @rule(more=st.integers(0, 200))
    def raise_the_cap(self, more: int) -> None:
        """
        A person allows more, for the next run.
        """
        self.be_killed(16)
        assert self.budget.cap is not None
        self.budget.cap += more

    @invariant()
    def the_cap_holds(self) -> None:
        """
        Spent and reserved never pass the cap, nor what the provider has really charged.
        """
        assert self.budget.cap is not None
        assert self.budget.spent + self.budget.reserved <= self.budget.cap
        assert self.truly <= self.budget.cap

    @invariant()
    def what_flies_is_durable(self) -> None:
        """
        At every moment the ledger covers all that is spent and all that may come to be.
        """
        assert self.truly <= self.durable
        assert self.budget.spent + self.budget.reserved <= self.budget.authorised
        assert sum(most for most, _ in self.flying) == self.budget.reserved


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = law(40, steps=40)
