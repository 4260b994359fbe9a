"""
What the server says about its own limits, as a ceiling: believed first, tested where it is absurd.

Owns the rule against lies. A ceiling not below half of what we would send is obeyed. A lower one is
obeyed for a minute; then it is tried to do without: a hundred successes in a row refute what the
server says, for good. A throttle among them confirms it, for twice as long as before.
"""

from __future__ import annotations

from math import inf

from batchrank.domain import Advertised
from batchrank.policy.pace import HEADROOM

ABSURD_SHARE = 0.5
"""A ceiling below this share of what we would send is one that is tested."""

BELIEVED_S = 60.0
BELIEVED_S_MAX = 3600.0
SUCCESSES = 100

RESET_S_LEAST = 2.0
"""Resets are told in whole seconds: what is left by shorter ones is no rate."""

RESET_S_MOST = 60.0
"""What is left is spread over a minute at most; by then there is newer news."""


class Ceilings:
    """
    The ceilings that replies tell.
    """

    def __init__(self) -> None:
        self._policy = inf
        self._share, self._share_until = inf, -inf
        self._binding_since: float | None = None
        self._believed_s = BELIEVED_S
        self._tested: int | None = None
        self._refuted = False

    def told(self, advertised: Advertised, now: float) -> None:
        """
        Take in what a reply says.
        """
        if advertised.per_s is not None and advertised.per_s > 0:
            self._policy = HEADROOM * advertised.per_s
        remaining, reset_s = advertised.remaining, advertised.reset_s
        if remaining and reset_s is not None and reset_s >= RESET_S_LEAST:
            self._share = HEADROOM * remaining / reset_s
            self._share_until = now + min(reset_s, RESET_S_MOST)

    def per_s(self, wanted_per_s: float, now: float) -> float:
        """
        How fast requests may leave by what the server says, if we would send *wanted_per_s*.
        """
        if self._refuted:
            return inf
        ceiling = min(self._policy, self._share) if now < self._share_until else self._policy
        if ceiling >= ABSURD_SHARE * wanted_per_s:
            self._binding_since = self._tested = None
            return ceiling
        if self._binding_since is None:
            self._binding_since = now
        if self._tested is None and now - self._binding_since > self._believed_s:
            self._tested = 0
        return ceiling if self._tested is None else inf

    def succeeded(self) -> None:
        """
        A call was accepted.
        """
        if self._tested is not None:
            self._tested += 1
            self._refuted = self._tested >= SUCCESSES

    def throttled(self, now: float) -> None:
        """
        One was not: in a test it was true what the server says.
        """
        if self._tested is not None:
            self._tested, self._binding_since = None, now
            self._believed_s = min(BELIEVED_S_MAX, 2 * self._believed_s)
