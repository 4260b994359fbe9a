"""
Times as a person writes them: of day, durations, and the deadline that either may be.

Owns what a deadline means on a night when the clock is put forward or back. Pure: the time that it
is now is an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo


def clock(text: str) -> tuple[int, int] | None:
    """
    The hour and minute of a time of day such as "06:00"; None if *text* is none.
    """
    match = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    return (int(match[1]), int(match[2])) if match else None


def duration_s(text: str) -> float | None:
    """
    A duration such as "7h30m" in seconds; None if *text* is none.
    """
    number = r"([0-9]{1,6})"
    pattern = f"(?=.)(?:{number}h)?(?:{number}m)?(?:{number}s)?"
    match = re.fullmatch(pattern, text.replace(" ", ""))
    if not match:
        return None
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return float(hours * 3600 + minutes * 60 + seconds)


def deadline_at(deadline: str, time_zone: str, now: datetime) -> datetime:
    """
    When the run must have left: the next time a clock in *time_zone* shows it, or *now* plus the
    duration.
    """
    shown = clock(deadline)
    if shown is None:
        return now.astimezone(UTC) + timedelta(seconds=duration_s(deadline) or 0.0)
    local = now.astimezone(ZoneInfo(time_zone))
    today = local.replace(hour=shown[0], minute=shown[1], second=0, microsecond=0, fold=0)
    # An hour that comes twice in a night shows the time twice; one that is left out, an hour late.
    times = (today, today.replace(fold=1), today + timedelta(days=1))
    return next(at for at in times if at.astimezone(UTC) > now.astimezone(UTC))
