"""
A run's cost beside its estimate and its cap: whether a person has to agree before, whether the
estimate holds, where the cap will end it.

Owns this arithmetic, in US dollars and groups, and its constants. Makes no estimate, which begins
with the bills of groups (`foreseen`). Knows no source and no clock.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUPS_TO_KNOW = 200
"""
So many groups are paid for before the estimate is doubted. Where costs of groups vary as much as
their mean, which is more than candidates and texts of one source do, the mean of so many is off by
7 % (one standard error): a quarter more or less is then no chance.
"""

LEEWAY = 0.25
"""How far beyond the estimate's range the cost of a group may lie."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    What *groups* that need a call cost together, at least and at most; *sampled* were looked at.
    """

    groups: int
    sampled: int
    low_usd: float
    high_usd: float

    @property
    def range_usd(self) -> tuple[float, float]:
        """
        Between what and what one group costs.
        """
        groups = max(1, self.groups)
        return self.low_usd / groups, self.high_usd / groups


def needs_consent(high_usd: float, cap_left_usd: float | None, confirm_usd: float) -> bool:
    """
    Tell whether a person has to agree: more than *confirm_usd* may be spent, and no cap is nearer.
    """
    most = high_usd if cap_left_usd is None else min(high_usd, cap_left_usd)
    return most > confirm_usd


def has_strayed(estimate: Estimate, groups: int, cost_usd: float) -> bool:
    """
    Tell whether *groups* that have cost *cost_usd* show that the estimate does not hold.
    """
    if groups < GROUPS_TO_KNOW:
        return False
    low, high = estimate.range_usd
    return not low * (1 - LEEWAY) <= cost_usd / groups <= high * (1 + LEEWAY)


@dataclass(frozen=True, slots=True)
class Course:
    """
    A run under way: *spent_usd* is what counts against *cap_usd* (None: there is none), of it
    *now_usd* is this run's, for *groups_now* groups; *left* groups are still to be done.
    """

    spent_usd: float
    now_usd: float
    groups_now: int
    left: int
    cap_usd: float | None = None

    @property
    def at_end_usd(self) -> float:
        """
        What will have been spent, if the rest costs what this run's groups did.
        """
        if not self.groups_now:
            return self.spent_usd
        return self.spent_usd + self.left * self.now_usd / self.groups_now

    @property
    def covered(self) -> int | None:
        """
        How many of the groups that are left the cap will cover; None if it covers all, as far as
        anybody knows.
        """
        if self.cap_usd is None or self.at_end_usd <= self.cap_usd or not self.now_usd:
            return None
        room = max(0.0, self.cap_usd - self.spent_usd)
        return min(self.left, int(room * self.groups_now / self.now_usd))
