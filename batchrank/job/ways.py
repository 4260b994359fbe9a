"""
The ways to a model that a job names.

Owns what a way is made of (its table, vendor, key and limits), what it is called, and which model
it leads to. Whether several belong together is checked in `problems`. Contacts nobody.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchrank.config import JobConfig
from batchrank.config.lines import Path as KeyPath
from batchrank.config.schema import FallbackTable, LimitsTable, RouteTable
from batchrank.domain import Price, RerankRequest, Slice
from batchrank.engine.routes import SERVED_MODEL
from batchrank.job.inprocess import IN_PROCESS, InProcess
from batchrank.policy.capacity import Bounds, Weigh, pairs_bytes
from batchrank.providers import VENDORS, Vendor
from batchrank.providers.base import Options, Settings
from batchrank.providers.same import are_one
from batchrank.wire.auth import Secret, key_from_environment, key_from_file
from batchrank.wire.aws import AwsKey
from batchrank.wire.command import CommandKey
from batchrank.wire.renewing import Renewable

OPTION_MODELS: dict[str, type[Options]] = {
    **{name: scorer.options for name, scorer in IN_PROCESS.items()},
    **{name: vendor.options for name, vendor in VENDORS.items()},
}
"""Who may be named as provider, with the model of its own settings."""


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way to a model, as a job names it.

    *name* is what people and the ledger call it; *vendor* is None for a scorer in process; *top_n*
    is what is sent of the output's; *key* is None where none is needed, or none was asked for.
    """

    name: str
    table: RouteTable
    limits: LimitsTable
    vendor: Vendor | None
    top_n: int | None = None
    key: Secret | Renewable | None = None

    @property
    def in_process(self) -> InProcess | None:
        """
        Who scores in this process, if nobody else is asked.
        """
        return IN_PROCESS[self.table.name] if self.vendor is None else None

    @property
    def model(self) -> str:
        """
        The model that is asked for.
        """
        fixed = self.in_process.model if self.in_process else ""
        return fixed or self.table.model

    @property
    def base_url(self) -> str:
        """
        Where the API is; "" for a scorer in process.
        """
        if self.vendor is None:
            return ""
        return self.table.base_url or self.vendor.base_url

    @property
    def options(self) -> Options:
        """
        The vendor's own request fields.
        """
        return OPTION_MODELS[self.table.name].model_validate(self.table.options)

    @property
    def score_options(self) -> dict[str, Any]:
        """
        Those of them that decide a score, as far as they are set.
        """
        decisive = self.vendor.score_options if self.vendor else frozenset()
        options = self.options.model_dump(mode="json", exclude_none=True)
        return {key: value for key, value in options.items() if key in decisive}

    @property
    def keyed(self) -> bool:
        """
        Whether a key is sent: always, but to servers that do without one and a job that names none.
        """
        return self.vendor is not None and bool(self.vendor.needs_key or self.key_setting)

    @property
    def key_setting(self) -> str:
        """
        The setting that says where the key is; "" if none does.
        """
        names = ("key_env", "key_file", "key_command")
        return next((name for name in names if getattr(self.table, name)), "")

    @property
    def key_name(self) -> str:
        """
        What the key's variable or file is called. What its command is called with is nobody's
        business: people may put the key there.
        """
        usual = self.vendor.key_env if self.vendor else ""
        command = "key_command" if self.table.key_command else ""
        return self.table.key_file or self.table.key_env or command or usual

    @property
    def splits(self) -> bool:
        """
        Whether a group may be asked about in several requests: as the job says, else as is known
        of the vendor. The best of each slice would not be the best of the group.
        """
        if self.top_n is not None:
            return False
        known = self.in_process or self.vendor
        assert known is not None
        return known.splits if self.table.splits is None else self.table.splits

    @property
    def bounds(self) -> Bounds:
        """
        What one request may hold: as the job says, else as is known of the vendor.
        """
        told, vendor = self.table, self.vendor
        if vendor is None:  # whoever may not cut a group takes it whole: it is not sent anywhere
            most = told.documents_max if self.splits else None
            return Bounds(documents_max=most, splits=self.splits)
        weigh = self._weigh(vendor)
        return Bounds(
            documents_max=told.documents_max or vendor.documents_max_of(self.model),
            bytes_max=told.bytes_max or vendor.bytes_max,
            tokens_max=told.tokens_max or vendor.tokens_max,
            hundreds=self._bills_hundreds(vendor),
            splits=self.splits,
            weigh=weigh,
            frame_bytes=weigh(RerankRequest(Slice(0, 0, 0), "", (), ())),
        )

    def _weigh(self, vendor: Vendor) -> Weigh:
        if vendor.pair_bytes is not None:
            return pairs_bytes(vendor.pair_bytes)
        call = vendor.make(self.settings()).call
        return lambda request: len(call(request).body)

    def _bills_hundreds(self, vendor: Vendor) -> bool:
        price = self.price
        return vendor.bills_hundreds if price is None else bool(price.usd_per_search_unit)

    @property
    def price(self) -> Price | None:
        """
        The price that the job states, else the one that is known of its model.
        """
        if self.table.price:
            return self.table.price.as_price()
        if self.vendor is None or not self.vendor.bills:
            return Price(usd_per_search_unit=0.0)
        return self.vendor.prices.get(self.model)

    def settings(self) -> Settings:
        """
        What the vendor's translation needs to know.
        """
        return Settings(self.model, self.base_url, self.top_n, self.options)

    def with_key(self, base: Path) -> Way:
        """
        The same with its key, whose file may be named relative to *base*.

        Raises:
            JobError: it is not there, or not as a key should be.
        """
        if not self.keyed or self.vendor is None:
            return self
        return replace(self, key=self._key(self.vendor, base))

    def _key(self, vendor: Vendor, base: Path) -> Secret | Renewable:
        table, signing = self.table, vendor.signing
        if table.key_command:
            header = self.options.keyed(vendor.key_header)
            return CommandKey(table.key_command, base, header, table.key_age_s_max)
        if table.key_file:
            return key_from_file(table.key_file, base)
        if signing and not table.key_env and vendor.key_env not in os.environ:
            return AwsKey(signing.service, self.options.places()["region"])
        return key_from_environment(table.key_env or vendor.key_env, os.environ)


def ways_of(config: JobConfig) -> tuple[Way, ...]:
    """
    The ways that *config* names, the first one first, without their keys.
    """
    first = config.provider
    tables: list[tuple[RouteTable, LimitsTable]] = [(first, config.limits)]
    tables += [(table, table.limits) for table in first.fallbacks]
    top_n = config.output.top_n if first.send_top_n else None
    taken: set[str] = {table.route for table, _ in tables if table.route}
    found = []
    for table, limits in tables:
        name = table.route or _free_name(table.name, taken)
        taken.add(name)
        found.append(Way(name, table, limits, VENDORS.get(table.name), top_n))
    return tuple(found)


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    return next(n for number in range(2, len(taken) + 3) if (n := f"{name}-{number}") not in taken)


def path_of(place: int) -> KeyPath:
    """
    Where in a job file the table of the way at *place* stands.
    """
    return ("provider", "fallbacks", place - 1) if place else ("provider",)


def kinds(ways: Sequence[Way]) -> list[str]:
    """
    The model that each way leads to, as the first way to it calls it. Ways to several models are
    told apart by these names, which `problems` has seen to.
    """
    found: list[str] = []
    for place, way in enumerate(ways):
        like = next((n for n in range(place) if leads_alike(ways[n], way)), None)
        found.append(way.model if like is None else found[like])
    return found


def leads_alike(first: Way, other: Way) -> bool:
    """
    Tell whether two ways are to one model. What a person states is stated of the job's first one.
    """
    stated = isinstance(other.table, FallbackTable) and other.table.same_model
    if stated and not isinstance(first.table, FallbackTable):
        return True
    return are_one(first.table.name, first.model, other.table.name, other.model)


# --- the model that serves ------------------------------------------------------------------------


def served_key(way: Way, place: int) -> str:
    """
    What the ledger keeps the model under that serves the way at *place*. The first one's settings
    are the output's; another one may be called otherwise or lead elsewhere tomorrow.
    """
    return f"{SERVED_MODEL}.{way.table.name}.{way.model}" if place else SERVED_MODEL


def served_by(meta: Mapping[str, Any]) -> dict[str, str]:
    """
    The models that serve an output's routes, as its ledger's *meta* has them.
    """
    return {key: model for key, model in meta.items() if key.startswith(SERVED_MODEL)}


def asked_of_one_model(ways: Sequence[Way]) -> dict[str, str]:
    """
    What the first way's model is called by each way to it, by what the served one is kept under.
    """
    alike = zip(ways, kinds(ways), strict=True)
    return {
        served_key(way, place): way.model
        for place, (way, kind) in enumerate(alike)
        if kind == ways[0].model
    }
