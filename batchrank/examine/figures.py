"""
The figures of a bill: its columns for programs, and its sums in the words of people.

Owns the columns' names, which are stable, and that an amount is written exactly and an unknown one
never as 0. Where the figures come from is `bill`'s business.
"""

from __future__ import annotations

from typing import Any

from batchrank.observe.report import counted
from batchrank.policy.accounting import Amounts, dollars
from batchrank.policy.billing import in_usd

# --- columns --------------------------------------------------------------------------------------

COLUMNS = (
    *("calls", "calls_failed", "calls_repeated", "calls_probing", "candidates"),
    *("search_units", "total_tokens", "cost_usd"),
    *("cost_usd_reported", "cost_usd_priced", "cost_usd_estimated"),
    *("cost_usd_scored", "cost_usd_failed", "cost_usd_rejected"),
    *("calls_unknown", "search_units_unknown", "total_tokens_unknown"),
)
"""What a row of the bill has, in JSON and in CSV."""


def _value(amounts: Amounts, column: str) -> int | float | None:
    """
    What stands in a column; money in 10^-9 US dollars, None where nothing is known.
    """
    if column.startswith("cost") and amounts.known_nano_usd is None:
        return None
    found: int | float = getattr(amounts, column.replace("cost_usd", "nano_usd"))
    return found


def as_data(amounts: Amounts) -> dict[str, Any]:
    """
    The columns for JSON: costs in US dollars, None where nothing is known.
    """
    values = ((column, _value(amounts, column)) for column in COLUMNS)
    return {c: usd(value) if c.startswith("cost") else value for c, value in values}


def usd(nano_usd: float | None) -> float | None:
    """
    US dollars for JSON; None stays None.
    """
    return None if nano_usd is None else in_usd(nano_usd)


def cell(amounts: Amounts, column: str) -> str:
    """
    One column for CSV, exactly; empty where nothing is known.
    """
    value = _value(amounts, column)
    if value is None:
        return ""
    return dollars(int(value)) if column.startswith("cost") else _number(value)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


# --- words ----------------------------------------------------------------------------------------


def money(nano_usd: int) -> str:
    """
    An amount for people, exactly.
    """
    whole, _, rest = dollars(nano_usd, 4).partition(".")
    return f"${int(whole):,}.{rest}"


def in_calls(amounts: Amounts) -> str:
    """
    How many calls there were, and what became of them.
    """
    probes = f", {counted(amounts.calls_probing, 'probe')}" if amounts.calls_probing else ""
    failed, repeated = amounts.calls_failed, amounts.calls_repeated
    return f"{amounts.calls:,}: {failed:,} failed, {repeated:,} repeated{probes}"


def in_units(search_units: float, total_tokens: int) -> str:
    """
    What replies told of units and tokens; "" if nothing.
    """
    units = f"{search_units:,.10g} search unit{'' if search_units == 1 else 's'}"
    told = (search_units and units, total_tokens and counted(total_tokens, "token"))
    return ", ".join(words for words in told if words)


def in_costs(amounts: Amounts) -> str:
    """
    What is known of the cost, and how.
    """
    if amounts.known_nano_usd is None:
        return "unknown"
    sources = {
        "reported": amounts.nano_usd_reported,
        "priced": amounts.nano_usd_priced,
        "estimated": amounts.nano_usd_estimated,
    }
    known = ", ".join(f"{money(cost)} {source}" for source, cost in sources.items() if cost)
    beside = ", and what is unknown" if amounts.calls_unknown else ""
    return f"{money(amounts.nano_usd)}{f' ({known})' if known else ''}{beside}"


def in_unknown(amounts: Amounts) -> str:
    """
    What nobody knows the cost of, in units.
    """
    if not amounts.calls_unknown:
        return ""
    told = in_units(amounts.search_units_unknown, amounts.total_tokens_unknown)
    calls = f"{counted(amounts.calls_unknown, 'call')}{f' ({told})' if told else ''}"
    return f"what {calls} cost: no price is known ([provider.price] states one for later calls)"


def in_purposes(amounts: Amounts) -> str:
    """
    What the money went for, where some of it went for anything but scores.
    """
    told = {
        "for scores": amounts.nano_usd_scored,
        "for calls without scores": amounts.nano_usd_failed,
        "for groups that are rejected": amounts.nano_usd_rejected,
    }
    if amounts.nano_usd == amounts.nano_usd_scored:
        return ""
    return ", ".join(f"{money(cost)} {what}" for what, cost in told.items() if cost)


def figures(amounts: Amounts) -> list[str]:
    """
    The cells of a table's row, behind its keys; the last is for calls of unknown cost.
    """
    cost = amounts.known_nano_usd
    return [
        f"{amounts.calls:,}",
        f"{amounts.calls_failed:,}",
        f"{amounts.search_units:,.10g}",
        f"{amounts.total_tokens:,}",
        "unknown" if cost is None else money(cost),
        f"{amounts.calls_unknown:,}",
    ]
