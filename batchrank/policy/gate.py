"""
The one gate: shut for a reason, until a time, with probes; and whose fault a run of failures was.

Owns three decisions. When failures are an outage's fault and not the groups' (then their strikes
are taken back, and groups that are out of tries get new ones). When nobody may send, and when one
probe may. When an outage has lasted so long that the run should leave.

Knows no clock: every question carries `now`, seconds of any one clock. Sends nothing, sleeps never.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from batchrank.domain import FailureKind

OUTAGE_FAILURES = 20
"""So many failures to reach the server, or to hear from it, without one success between them."""

THROTTLES_MIN = 5
"""So many throttles without a success, or those of THROTTLES_S at full rate if that is more."""

THROTTLES_S = 0.25

HINT_S_MAX = 60.0
"""However long the other side asks us to wait, one probe a minute sees whether that still holds."""

HINT_S_PROBED = 2.0
"""A shorter hint opens the gate when it has passed; after a longer one a probe goes first."""

HINT_S_NEWS = 1.0
"""Replies that were under way when the gate shut repeat the hint; only a longer one is news."""

OUTAGE_PROBES_S = (5.0, 10.0, 20.0, 40.0, 60.0)
THROTTLE_PROBES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Waits before the first, second, ... probe; the last one repeats."""

AWAY_OUTAGE_S = 5.0
"""
An outage has been twenty failures already: when the first probe fails, too, whoever has another
route takes it. At once would move a night's traffic for a restart.
"""

AWAY_THROTTLED_S = 15.0
"""
Refusals are a matter of the pace, and the way back from another route costs more than a short wait:
so long, or told to wait so long, and it is none. Windows of seconds are over by then.
"""

JITTER = 0.2
"""Waits are drawn from +-20 %, so that a fleet does not probe in step."""


class Leave(Enum):
    """
    What the gate answers to somebody who wants to send.
    """

    SEND = "send"
    PROBE = "probe"
    WAIT = "wait"


@dataclass(slots=True)
class _Shut:
    kind: FailureKind
    reason: str
    since: float
    probe_at: float
    until: float
    hinted: bool = False
    probing: bool = False
    probes: int = 0

    def learn(self, kind: FailureKind, reason: str, probe: bool) -> None:
        """
        What a probe meets is what is in the way now, whatever it was at first.
        """
        if probe and kind is not self.kind:
            self.kind, self.reason = kind, reason

    def refuted_by(self, sent_at: float) -> bool:
        """
        Tell whether a success that left then shows that the hint was longer than the wait.
        """
        long = self.hinted and self.until - self.since > HINT_S_MAX * (1 + JITTER / 2)
        return long and sent_at < self.until - HINT_S_NEWS


@dataclass(frozen=True, slots=True)
class Amnesty:
    """
    An outage was to blame: *strikes* are taken back, by slice, and whoever is out of tries gets new
    ones.
    """

    strikes: dict[Hashable, int]


class Gate:
    """
    Hears how every attempt ended; says whether the next may leave.
    """

    def __init__(self) -> None:
        self._throttles_max = float(THROTTLES_MIN)
        self._shut: _Shut | None = None
        self._run: Counter[Hashable] = Counter()
        self._failures = 0
        self._throttles = 0
        self._throttles_from = float("inf")
        self._hint_s_max = float("inf")
        self._throttled_since: float | None = None
        self._unheard_since: float | None = None

    # --- questions --------------------------------------------------------------------------------

    @property
    def is_calm(self) -> bool:
        """
        Tell whether it is open and nothing is in the way: then nobody has to ask anything else.
        """
        return self._shut is None and self._throttled_since is None and self._unheard_since is None

    @property
    def reason(self) -> str | None:
        """
        Why nobody may send, in a person's words; None while everybody may.
        """
        return self._shut.reason if self._shut else None

    @property
    def kind(self) -> FailureKind | None:
        """
        The class of failure that shut the gate.
        """
        return self._shut.kind if self._shut else None

    def leave(self, now: float) -> Leave:
        """
        May somebody send at *now*? A PROBE must be announced with `probe_sent`.
        """
        if self._shut is None:
            return Leave.SEND
        if self._shut.probing or now < self._shut.probe_at:
            return Leave.WAIT
        return Leave.PROBE

    def wake_at(self) -> float:
        """
        When to ask again; infinity while a probe is under way, whose end will be heard.
        """
        if self._shut is None:
            return float("-inf")
        return float("inf") if self._shut.probing else self._shut.probe_at

    def until(self) -> float | None:
        """
        Until when the gate is shut at least, as far as anybody knows.
        """
        return max(self._shut.until, self._shut.probe_at) if self._shut else None

    def away_at(self) -> float:
        """
        From when on others should take over, where there are others; infinity while it is open.
        """
        shut = self._shut
        if shut is None:
            return float("inf")
        if shut.kind is not FailureKind.THROTTLED:
            return shut.since + AWAY_OUTAGE_S
        long = shut.until - shut.since >= AWAY_THROTTLED_S
        return shut.since if long else shut.since + AWAY_THROTTLED_S

    def throttled_s(self, now: float) -> float:
        """
        For how long nothing has succeeded although the server answers: it throttles.
        """
        return now - self._throttled_since if self._throttled_since is not None else 0.0

    def unheard_s(self, now: float) -> float:
        """
        For how long the server was not reached or not heard at all although something was tried.
        """
        return now - self._unheard_since if self._unheard_since is not None else 0.0

    # --- news -------------------------------------------------------------------------------------

    def taken_over(self, now: float) -> None:
        """
        Another run begins behind this gate: strikes of the one before are not its groups', a probe
        that it left behind is never heard, and the time since then, in which nobody tried, is no
        part of an outage.
        """
        self._run.clear()
        if self._shut is not None:
            self._shut.probing = False
        if self._throttled_since is not None:
            self._throttled_since = now
        if self._unheard_since is not None:
            self._unheard_since = now

    def full_rate(self, per_s: float) -> None:
        """
        Requests leave at *per_s* now: so many are refused in THROTTLES_S when nothing is accepted.
        """
        self._throttles_max = max(float(THROTTLES_MIN), THROTTLES_S * per_s)

    def probe_sent(self) -> None:
        """
        The one probe is on its way.
        """
        if self._shut is None:
            raise AssertionError("a probe was announced while the gate is open")
        self._shut.probing = True

    def opens_itself(self, now: float) -> bool:
        """
        Open a gate that a short Retry-After shut, once that has passed; tell whether it did.
        """
        shut = self._shut
        if shut is None or not shut.hinted or shut.probing or shut.probes:
            return False
        if self._throttles >= self._throttles_max:
            return False  # whoever asks for a second again and again is asked by probes
        longest_s = HINT_S_PROBED * (1 + JITTER / 2)
        if shut.until - shut.since > longest_s or now < shut.probe_at:
            return False
        self._shut = None
        return True

    def succeeded(self, sent_at: float, probe: bool) -> bool:
        """
        Somebody got scores; tell whether that opened the gate.

        An answer to what left before the gate shut says nothing about what is behind it.
        """
        if self._shut is not None and not probe and sent_at <= self._shut.since:
            return False
        if self._shut is not None and self._shut.refuted_by(sent_at):
            self._hint_s_max = HINT_S_MAX
        was_shut, self._shut = self._shut is not None, None
        self._throttled_since = self._unheard_since = None
        self._failures = 0
        if probe or sent_at >= self._throttles_from:
            # What had left before the first of them says nothing about what is throttled since.
            self._throttles, self._throttles_from = 0, float("inf")
        self._run.clear()
        return was_shut

    def refused(self, probe: bool) -> bool:
        """
        Somebody was answered, if only to be refused: whoever answers a probe is there.
        """
        was_shut = probe and self._shut is not None
        if probe:
            self._shut = self._throttled_since = self._unheard_since = None
        return was_shut

    def throttled(self, now: float, hint_s: float | None, probe: bool, jitter: float) -> bool:
        """
        Somebody was told to slow down; tell whether the gate shut or stays shut for longer.

        A *hint_s* that is no positive number is none.
        """
        self._throttled_since = now if self._throttled_since is None else self._throttled_since
        self._unheard_since = None
        self._throttles += 1
        self._throttles_from = min(self._throttles_from, now)
        hint_s = hint_s if hint_s is not None and 0 < hint_s <= self._hint_s_max else 0.0
        reason = f"throttled {self._throttles} times without a success"
        if hint_s:
            reason = f"asked to wait {hint_s:.0f} s (Retry-After)"
        if self._shut is not None:
            self._shut.learn(FailureKind.THROTTLED, reason, probe)
            return self._stays_shut(now, hint_s, probe, jitter)
        if not hint_s and self._throttles < self._throttles_max:
            return False
        self._shut = _shut_for(hint_s, reason, now, jitter)
        return True

    def spent(self, now: float, reset_s: float, jitter: float) -> bool:
        """
        A reply said that nothing is left for *reset_s*; tell whether that shut the gate or keeps it
        shut for longer. Nobody was throttled yet.
        """
        if not 0 < reset_s <= self._hint_s_max:
            return False
        if self._shut is not None:
            return self._stays_shut(now, reset_s, False, jitter)
        reason = f"told that nothing is left for {reset_s:.0f} s"
        self._shut = _shut_for(reset_s, reason, now, jitter)
        return True

    def failed(
        self, key: Hashable | None, now: float, words: str, probe: bool, jitter: float
    ) -> Amnesty | None:
        """
        The server was not reached or not heard. *key* is the slice that this was a strike for, None
        if it never left and so was none; *words* say what happened.

        Returns an amnesty if this failure shut the gate or came while it was shut.
        """
        self._unheard_since = now if self._unheard_since is None else self._unheard_since
        if self._shut is not None:
            self._shut.learn(FailureKind.UNKNOWN, f"a probe failed: {words}", probe)
            self._stays_shut(now, 0.0, probe, jitter)
            return Amnesty({} if key is None else {key: 1})
        self._failures += 1
        if key is not None:
            self._run[key] += 1
        if self._failures < OUTAGE_FAILURES:
            return None
        return self._shut_for_outage(
            now, f"{self._failures} failures in a row, last: {words}", jitter
        )

    def doubted(self, now: float, words: str, jitter: float) -> Amnesty:
        """
        Everything that is left is out of tries and nothing has succeeded since: ask by probes.
        """
        return self._shut_for_outage(now, f"nothing succeeds any more, last: {words}", jitter)

    # --- inside -----------------------------------------------------------------------------------

    def _shut_for_outage(self, now: float, reason: str, jitter: float) -> Amnesty:
        wait_s = _probe_s(OUTAGE_PROBES_S, 0, jitter)
        self._shut = _Shut(FailureKind.UNKNOWN, reason, now, now + wait_s, now + wait_s)
        strikes, self._run = dict(self._run), Counter()
        self._failures = 0
        return Amnesty(strikes)

    def _stays_shut(self, now: float, hint_s: float, probe: bool, jitter: float) -> bool:
        """
        Put the next probe off, if this was the probe or a hint that reaches further.
        """
        shut = self._shut
        assert shut is not None
        if probe:
            shut.probing = False
            shut.probes += 1
            waits = THROTTLE_PROBES_S if shut.kind is FailureKind.THROTTLED else OUTAGE_PROBES_S
            shut.probe_at = now + _probe_s(waits, shut.probes, jitter)
        news = hint_s > 0 and now + hint_s > shut.until + HINT_S_NEWS
        if news:
            shut.until = now + hint_s
        if news or probe:
            shut.probe_at = max(shut.probe_at, now + min(hint_s, HINT_S_MAX))
        return news or probe


def _shut_for(hint_s: float, reason: str, now: float, jitter: float) -> _Shut:
    """
    Shut by a throttle: for as long as a hint says (a little longer, so that a fleet does not come
    back in step), or until the first probe.
    """
    wait_s = min(hint_s, HINT_S_MAX) * (1 + JITTER / 2 * jitter)
    wait_s = wait_s or _probe_s(THROTTLE_PROBES_S, 0, jitter)
    until = now + max(wait_s, hint_s)
    return _Shut(FailureKind.THROTTLED, reason, now, now + wait_s, until, hinted=hint_s > 0)


def _probe_s(waits: tuple[float, ...], probes: int, jitter: float) -> float:
    wait_s = waits[min(probes, len(waits) - 1)]
    return wait_s * (1 - JITTER + 2 * JITTER * jitter)
