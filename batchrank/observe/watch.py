"""
A run's cost beside its estimate: told once, when it is known that the estimate does not hold.

Owns what counts: groups that somebody was called for, in this run, with all their calls. When to
speak is decided in `policy.course`.
"""

from __future__ import annotations

from batchrank.events import Committed, CostStrayed, Event, Reporter
from batchrank.policy.billing import in_usd
from batchrank.policy.course import Estimate, has_strayed


class CostWatch:
    """
    Passes every event on to *reporter*, and tells it of a cost that leaves *estimate*'s range.
    """

    def __init__(self, reporter: Reporter, estimate: Estimate) -> None:
        self._reporter = reporter
        self._estimate = estimate
        self._groups = 0
        self._nano_usd = 0
        self._told = False

    def report(self, event: Event, /) -> None:
        """
        Pass *event* on, and count.
        """
        self._reporter.report(event)
        if isinstance(event, Committed) and not self._told:
            self._count(event)

    def _count(self, event: Committed) -> None:
        # A group's last call and its outcome are committed together; outcomes without a call were
        # copied from an equal group, or need none.
        called = {call.slice.position for call in event.calls}
        self._groups += sum(outcome.position in called for outcome in event.outcomes)
        self._nano_usd += sum(call.cost_nano_usd for call in event.calls)
        cost_usd = in_usd(self._nano_usd)
        if has_strayed(self._estimate, self._groups, cost_usd):
            self._told = True
            low, high = self._estimate.range_usd
            self._reporter.report(CostStrayed(self._groups, cost_usd / self._groups, low, high))
