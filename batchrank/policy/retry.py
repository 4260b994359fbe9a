"""
What a failed attempt means for its slice: again, in pieces, rejected, or the end of the job.

Owns the table from failure class to next step. Randomness is an argument (`jitter`, 0 to 1), so is
time. Whether failures were the group's fault or an outage's is for `gate` to say: it takes strikes
back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from batchrank.domain import Failure, FailureKind, RejectKind

UNKNOWN_STRIKES_MAX = 3
"""One try and at most two more after an unknown outcome: each may have been billed."""

BAD_REPLY_STRIKES_MAX = 2
"""One try and at most one more after a bad reply: each has been billed."""

SENDS_MAX = 60
"""No slice is sent more often than this over all runs, whatever happens, throttling apart."""

BACKOFF_S_BASE = 1.0
BACKOFF_S_MAX = 20.0
"""Full jitter up to min(20 s, 1 s x 2^n), as AWS's SDKs do it since 2026."""

IN_A_ROW_MAX = 20
"""So many rejections without a success between them are the job's fault, not the groups'."""


@dataclass(frozen=True, slots=True)
class History:
    """
    What has happened to one slice so far. *sends* counts every attempt over all runs.
    """

    sends: int = 0
    unknown: int = 0
    bad_replies: int = 0
    throttles: int = 0
    never_sent: int = 0
    throttled_since: float | None = None

    def after(self, failure: Failure, now: float) -> History:
        """
        The history with one more failed attempt.
        """
        match failure.kind:
            case FailureKind.UNKNOWN:
                return replace(self, sends=self.sends + 1, unknown=self.unknown + 1)
            case FailureKind.BAD_REPLY:
                return replace(self, sends=self.sends + 1, bad_replies=self.bad_replies + 1)
            case FailureKind.THROTTLED:
                since = self.throttled_since if self.throttles else now
                return replace(self, throttles=self.throttles + 1, throttled_since=since)
            case FailureKind.NEVER_SENT:
                return replace(self, never_sent=self.never_sent + 1)
            case FailureKind.BAD_GROUP | FailureKind.FATAL:
                return replace(self, sends=self.sends + 1)

    def forgiven(self, strikes: int) -> History:
        """
        The history without *strikes* of its unknown outcomes: an outage was to blame.
        """
        return replace(self, unknown=max(0, self.unknown - strikes))


FRESH = History()
"""Nothing has happened yet."""


@dataclass(frozen=True, slots=True)
class Again:
    """
    Try again, *wait_s* from now at the earliest.
    """

    wait_s: float


@dataclass(frozen=True, slots=True)
class Split:
    """
    Ask in several smaller requests.
    """


@dataclass(frozen=True, slots=True)
class Suspend:
    """
    Out of tries, but an outage may be to blame: wait until `gate` knows.
    """


@dataclass(frozen=True, slots=True)
class Reject:
    """
    The group gets no scores.
    """

    kind: RejectKind


@dataclass(frozen=True, slots=True)
class Halt:
    """
    No group can succeed: stop the job.
    """


Verdict = Again | Split | Suspend | Reject | Halt


@dataclass(frozen=True, slots=True)
class Rules:
    """
    What the job says about retries. *can_split*: pairs are scored independently of each other.
    """

    throttled_s_max: float
    can_split: bool


def verdict(failure: Failure, past: History, rules: Rules, now: float, jitter: float) -> Verdict:
    """
    Decide the next step; *past* includes this failure.
    """
    match failure.kind:
        case FailureKind.FATAL:
            return Halt()
        case FailureKind.BAD_GROUP:
            if not failure.too_large:
                return Reject(RejectKind.BAD_GROUP)
            return Split() if rules.can_split else Reject(RejectKind.TOO_LARGE)
        case FailureKind.NEVER_SENT:
            return Again(_backoff_s(past.never_sent, jitter))
        case FailureKind.THROTTLED:
            return _throttled(failure, past, rules, now, jitter)
        case FailureKind.BAD_REPLY:
            if past.bad_replies >= BAD_REPLY_STRIKES_MAX or past.sends >= SENDS_MAX:
                return Reject(RejectKind.BAD_REPLY)
            return Again(_backoff_s(past.bad_replies, jitter))
        case FailureKind.UNKNOWN:
            if past.sends >= SENDS_MAX:
                return Reject(RejectKind.UNKNOWN)
            if past.unknown >= UNKNOWN_STRIKES_MAX:
                return Suspend()
            return Again(_backoff_s(past.unknown, jitter))


def _throttled(
    failure: Failure, past: History, rules: Rules, now: float, jitter: float
) -> Again | Reject:
    since = now if past.throttled_since is None else past.throttled_since
    if now - since > rules.throttled_s_max:
        return Reject(RejectKind.THROTTLED)
    if failure.retry_after_s:
        return Again(0.0)  # the gate holds everybody back until then
    return Again(_backoff_s(past.throttles, jitter))


def _backoff_s(failures: int, jitter: float) -> float:
    exponent = min(failures - 1, 10)
    return jitter * min(BACKOFF_S_MAX, BACKOFF_S_BASE * 2.0**exponent)
