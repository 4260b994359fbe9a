"""
Who can be asked: every provider with its limits, prices, scores, and how we know.

Tells what stands in `providers` as data. Asks nobody, and knows nothing that is not written there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any

from batchrank.domain import Price
from batchrank.errors import JobError, Problem
from batchrank.job.inprocess import IN_PROCESS
from batchrank.policy.billing import days_old
from batchrank.providers import VENDORS, Vendor

WIDTH = 100


@dataclass(frozen=True, slots=True)
class Providers:
    """
    Some vendors, and scorers in process by their names, as people and as programs read them.
    """

    vendors: Sequence[Vendor]
    today: date
    in_process: Sequence[str] = ()

    def as_data(self) -> list[dict[str, Any]]:
        """
        A list of objects for JSON.
        """
        local = [{"name": name, **IN_PROCESS[name].about} for name in self.in_process]
        return [*(_data(vendor, self.today) for vendor in self.vendors), *local]

    def as_text(self) -> str:
        """
        Some lines for each.
        """
        told = ["\n".join(_lines(vendor, self.today)) for vendor in self.vendors]
        told += ["\n".join(_lines_in_process(name)) for name in self.in_process]
        return "\n\n".join(told)


def providers(name: str | None = None, today: date | None = None) -> Providers:
    """
    All who can be asked, or the one called *name*; prices are looked at *today*, a day in UTC.

    Raises:
        JobError: nobody is called so.
    """
    today = today or datetime.now(UTC).date()
    if name is None:
        return Providers(tuple(VENDORS.values()), today, tuple(IN_PROCESS))
    if name in IN_PROCESS:
        return Providers((), today, (name,))
    if name not in VENDORS:
        known = ", ".join((*VENDORS, *IN_PROCESS))
        raise JobError("the command", [Problem(0, name, "is no provider", f"there are {known}")])
    return Providers((VENDORS[name],), today)


def _data(vendor: Vendor, today: date) -> dict[str, Any]:
    facts = asdict(vendor.facts)
    return {
        "name": vendor.name,
        **facts,
        "base_url": vendor.base_url or None,
        "address": vendor.address or None,
        "key_env": vendor.key_env or None,
        "key_header": vendor.key_header.name,
        "needs_key": vendor.needs_key,
        "documents_max": vendor.documents_max,
        "bytes_max": vendor.bytes_max,
        "tokens_max": vendor.tokens_max,
        "documents_max_by_model": dict(vendor.documents_max_by_model),
        "signed": vendor.signing is not None,
        "splits": vendor.splits,
        "checks": [check.path for check in vendor.checks],
        "sends_top_n": vendor.takes_top_n,
        "sends_images": vendor.takes_images,
        "prices": {
            model: {**asdict(price), "too_old": days_old(price, today) is not None}
            for model, price in vendor.prices.items()
        },
        "options": sorted(vendor.options.model_fields),
    }


def _lines(vendor: Vendor, today: date) -> Iterator[str]:
    facts = vendor.facts
    yield f"{vendor.name}: {facts.title}"
    yield from _line("address", vendor.base_url or vendor.address)
    yield from _line("key", _key(vendor))
    yield from _line("limits", "; ".join(facts.limits) or "not documented")
    yield from _line("requests", _requests(vendor))
    yield from _line("checks", _checks(vendor))
    yield from _line("pairs", facts.pairs)
    yield from _line("billing", facts.billing)
    yield from _line("prices", "; ".join(_prices(vendor, today)))
    yield from _line("scores", facts.scores)
    yield from _line("verified", f"{facts.verified}; never tried on the real service")
    yield from _line("unknown", "; ".join(facts.unknown))


def _lines_in_process(name: str) -> Iterator[str]:
    yield f"{name}: in process"
    for topic, words in IN_PROCESS[name].about.items():
        yield from _line(topic, words)


def _line(name: str, text: str) -> list[str]:
    indent = " " * 4
    first = f"{indent}{name:<10}"
    following = " " * len(first)
    wrapped = textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=following, break_on_hyphens=False
    )
    return wrapped if text else []


def _key(vendor: Vendor) -> str:
    header = vendor.key_header
    form = f"{header.name}: {header.before}KEY"
    if vendor.signing:
        signed = "requests are signed with AWS credentials, found as AWS's own tools find them"
        return f"{signed}; or {vendor.key_env} ({form})" if vendor.signing.or_key else signed
    if not vendor.needs_key:
        return f"none unless key_env, key_file or key_command names one ({form})"
    return f"{vendor.key_env} ({form})"


def _requests(vendor: Vendor) -> str:
    told = (
        (vendor.documents_max, "documents"),
        (vendor.bytes_max, "bytes"),
        (vendor.tokens_max, "tokens"),
    )
    known = [(f"{most:,} {unit}", f"{unit}_max") for most, unit in told if most is not None]
    most = f"of {' and '.join(m for m, _ in known)} at most" if known else "of a whole group"
    by_model = vendor.documents_max_by_model.items()
    others = "".join(f", {_most(documents_max)} to {name}*" for name, documents_max in by_model)
    settings = " and ".join(name for _, name in known) or "documents_max"
    say = "say" if len(known) > 1 else "says"
    never = "" if vendor.splits else "a group is never cut, unless splits = true says it may be; "
    return f"{never}{most}{others}, unless {settings} {say} otherwise"


def _most(documents_max: int | None) -> str:
    return f"of {documents_max:,} documents" if documents_max else "of a whole group"


def _checks(vendor: Vendor) -> str:
    """
    What is asked beforehand, for nothing.
    """
    asked = ", ".join(f"GET {check.path.partition('?')[0]}" for check in vendor.checks)
    return f"{asked} before the first call" if asked else "none: the first call goes alone"


def _prices(vendor: Vendor, today: date) -> Iterator[str]:
    """
    The models' prices, those that were seen at one place together.
    """
    for (source, as_of), same in groupby(vendor.prices.items(), lambda item: _seen(item[1])):
        priced = list(same)
        models = ", ".join(f"{model} {_amount(price)}" for model, price in priced)
        days = days_old(priced[0][1], today)
        aged = "" if days is None else f", {days} days ago: check, and state it in [provider.price]"
        yield f"{models} ({source}, {as_of}{aged})"


def _seen(price: Price) -> tuple[str, str]:
    return price.source, price.as_of


def _amount(price: Price) -> str:
    if price.usd_per_search_unit is not None:
        return f"${price.usd_per_search_unit:g} a unit"
    return f"${price.usd_per_million_tokens:g} a million tokens"
