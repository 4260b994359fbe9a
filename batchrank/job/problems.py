"""
What is wrong with a job although its file is well formed: beside what is known of its vendors, of
its other ways, and of this machine.

Owns the checks that several ways must pass (one model unless other models are allowed, what decides
a score alike, no way twice), and what a vendor cannot do or reuse cannot mean. Finds all at once,
each with its line and a remedy. Reads no key and contacts nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchrank.config import JobConfig
from batchrank.config.lines import Lines
from batchrank.config.lines import Path as KeyPath
from batchrank.config.wording import dotted
from batchrank.errors import Problem
from batchrank.job.ways import Way, leads_alike, path_of
from batchrank.places.remote import absolute
from batchrank.places.uri import is_uri, parsed
from batchrank.providers import Vendor
from batchrank.providers.same import names_at
from batchrank.wire.auth import check_base_url


def problems_of(config: JobConfig, ways: Sequence[Way], base: Path, lines: Lines) -> list[Problem]:
    """
    Everything that is wrong, in the order of the file's *lines*; its paths start from *base*.
    """
    found = [
        *_route_problems(config, ways, lines),
        *_provider_problems(config, ways[0], lines),
        *_path_problems(config, base, lines),
    ]
    return sorted(found, key=lambda problem: problem.line)


# --- ways -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spot:
    """
    Where the table of the way at *place* stands, for what is wrong in it.
    """

    lines: Lines
    place: int

    def problem(self, key: str, message: str, remedy: str) -> Problem:
        return self.at((*path_of(self.place), key), message, remedy)

    def at(self, path: KeyPath, message: str, remedy: str) -> Problem:
        return Problem(self.lines.of(path), dotted(path), message, remedy)


def _route_problems(config: JobConfig, ways: Sequence[Way], lines: Lines) -> Iterator[Problem]:
    """
    Find what only becomes wrong together with the vendors' facts, or with other ways.
    """
    for place, way in enumerate(ways):
        spot = _Spot(lines, place)
        if way.vendor is not None:
            yield from _own_problems(config, way, way.vendor, spot)
        if way.in_process is not None:
            for path, message, remedy in way.in_process.problems(way.table):
                yield spot.at((*path_of(place), *path), message, remedy)
        scorer = way.in_process or way.vendor
        if config.source.image and scorer is not None and not scorer.takes_images:
            message = f"cannot be sent: {way.table.name} takes texts only"
            yield spot.at(("source", "image"), message, "leave it out, or ask another provider")
        if place:
            yield from _twice(ways[:place], way, spot)
            if way.model and ways[0].model:
                yield from _unlike(config, ways[0], way, spot)


def _own_problems(config: JobConfig, way: Way, vendor: Vendor, spot: _Spot) -> Iterator[Problem]:
    table, first = way.table, config.provider
    if not table.model:
        known = names_at(first.name, first.model, table.name) if first.model else None
        such_as = known or ", ".join(sorted(vendor.prices)) or "see the provider's documents"
        yield spot.problem("model", "is missing", f"such as {such_as}")
    if not way.base_url:
        yield spot.problem("base_url", "is missing", vendor.address)
    if vendor.signing and not vendor.signing.or_key and way.key_setting:
        message = f"takes no key: requests to {table.name} are signed with AWS credentials"
        yield spot.problem(way.key_setting, message, "leave it out")
    if table.base_url and (wrong := check_base_url(table.base_url, keyed=way.keyed)):
        yield spot.problem("base_url", wrong, "")
    if first.send_top_n and not vendor.takes_top_n:
        message = f"cannot be sent: {table.name} has no field for it"
        yield spot.at(("provider", "send_top_n"), message, "leave it out: top_n is cut here")
    if table.model:
        yield from _caps_that_fail(config, way, spot)


def _caps_that_fail(config: JobConfig, way: Way, spot: _Spot) -> Iterator[Problem]:
    """
    Find caps that cannot be kept on this way.
    """
    if way.price is None:
        where = dotted((*path_of(spot.place), "price"))
        for key in config.budget.capped("usd_max"):
            message = f"cannot be kept: no price of {way.model} is known"
            yield spot.at(("budget", key), message, f"state it in [{where}]")
    elif way.price.usd_per_million_tokens is not None:
        for key in config.budget.capped("search_units_max"):
            message = f"cannot be kept: {way.model} is billed by tokens"
            yield spot.at(("budget", key), message, "cap the money instead")


def _twice(before: Sequence[Way], way: Way, spot: _Spot) -> Iterator[Problem]:
    if any(_identity(one) == _identity(way) for one in before):
        message = "is a way that is there already: the same address, model and key"
        yield spot.problem("name", message, "leave it out, or name another key")
    if way.table.route and any(one.table.route == way.table.route for one in before):
        message = "is what another way is called already"
        yield spot.problem("route", message, "choose another name")


def _identity(way: Way) -> tuple[object, ...]:
    return way.table.name, way.base_url, way.model, way.key_name


def _unlike(config: JobConfig, first: Way, way: Way, spot: _Spot) -> Iterator[Problem]:
    """
    Find another model where none is allowed, and what decides scores of one model and is told
    otherwise than of the *first* way to it.
    """
    if not leads_alike(first, way):
        if not config.provider.allow_other_models or first.model == way.model:
            message = f"is not known to be {first.model} of {first.table.name}"
            yield spot.problem("model", message, _about_model(first, way))
        elif first.splits and not way.splits:
            message = f"is false, and {first.name} cuts groups: it would be asked about pieces"
            remedy = "state provider.splits = false: then none is cut; or true here, if that is so"
            yield spot.problem("splits", message, remedy)
        return
    if first.splits is not way.splits:
        said = "true" if first.splits else "false"
        message = f"is not {said}, as it is of {first.name}: one model scores pairs in one way"
        yield spot.problem("splits", message, f"state splits = {said}, if that is so")
    ours, theirs = _parameters(first), _parameters(way)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            message = f"{key} decides scores, and is not what it is of {first.name}"
            yield spot.problem("options", message, "set it alike on both")


def _about_model(first: Way, way: Way) -> str:
    if called := names_at(first.table.name, first.model, way.table.name):
        return f"there it is called {called}"
    state = "if it is, and its scores are the same, state same_model = true"
    if first.model == way.model:
        return state
    return f"{state}; another model is taken with provider.allow_other_models = true only"


def _parameters(way: Way) -> Mapping[str, Any]:
    """
    What a model is told beside the texts, by its name; how an interface is shaped is none of it,
    and what is passed on to another vendor is named as there.
    """
    told = {key: value for key, value in way.score_options.items() if key not in INTERFACE}
    passed_on = way.score_options.get("provider", {}).get("options") or {}
    for parameters in passed_on.values():
        told |= parameters
    return told


INTERFACE = frozenset({"path", "headers", "request", "reply", "provider"})
"""Options that say where and how a vendor is asked."""


# --- what vendors cannot do -----------------------------------------------------------------------


def _provider_problems(config: JobConfig, way: Way, lines: Lines) -> list[Problem]:
    """
    What only becomes wrong together with the facts of the first way's vendor.
    """

    def problem(table: str, key: str, message: str, remedy: str) -> Problem:
        return Problem(lines.of((table, key)), f"{table}.{key}", message, remedy)

    found: list[Problem] = []
    provider, vendor = config.provider, way.vendor
    if config.output.reuse_pairs and (why := _pairs_need(way)):
        remedy = "leave it out: whole groups are reused"
        if vendor is not None and not vendor.scores_pairs_alone:
            remedy += "; or state that the model does so with provider.splits = true"
        found.append(problem("output", "reuse_pairs", why, remedy))
    if provider.allow_other_models and config.output.reuse_pairs:
        message = "takes single scores, and provider.allow_other_models would mix them"
        found.append(problem("output", "reuse_pairs", message, "leave one of them out"))
    if vendor is None:
        return found
    if provider.send_top_n and not config.output.top_n:
        found.append(problem("provider", "send_top_n", "needs output.top_n", "set it, or neither"))
    if provider.send_top_n and config.output.reuse:
        message = "needs every score, and send_top_n asks for the best only"
        found.append(problem("output", "reuse", message, "leave one of them out"))
    return found


def _pairs_need(way: Way) -> str:
    """
    Why pairs cannot be reused one by one, or nothing would be saved; "" if that is not so.
    """
    if not _scores_alone(way):
        name = way.table.name
        return f"needs scores that do not depend on the other documents: {name} does not promise it"
    price = way.price
    if price is None or price.usd_per_search_unit:
        known = "it is billed by search units" if price else "no price of it is known"
        return f"needs a model that is billed by tokens, or not at all: of {way.model}, {known}"
    return ""


def _scores_alone(way: Way) -> bool:
    """
    Whether each document's score is its own: as the job says, else as whoever must know does.
    """
    if way.in_process is not None:  # nobody knows better than its code
        return way.in_process.splits and way.table.splits is not False
    assert way.vendor is not None
    return way.vendor.scores_pairs_alone if way.table.splits is None else way.table.splits


# --- paths ----------------------------------------------------------------------------------------


def _path_problems(config: JobConfig, base: Path, lines: Lines) -> Iterator[Problem]:
    """
    Find paths that nothing can lie at.
    """
    reused = () if config.output.reuse in (None, "previous") else config.output.reuse
    named = [("path", config.output.path), ("state", config.output.state or "")]
    named += [("reuse", path) for path in reused or ()]
    for key, path in named:
        if wrong := _wrong_path(path, base, remote=key != "state"):
            yield Problem(lines.of(("output", key)), f"output.{key}", *wrong)
    if wrong := _wrong_path(config.budget.shared or "", base, remote=False):
        message, remedy = wrong[0], "name a file on a local disk"
        yield Problem(lines.of(("budget", "shared")), "budget.shared", message, remedy)


def _wrong_path(path: str, base: Path, *, remote: bool) -> tuple[str, str] | None:
    """
    What is wrong with a path, and the remedy.
    """
    if is_uri(path) and not remote:
        return "is not on this machine", "a ledger needs a local disk: name a folder"
    try:
        if is_uri(path):
            parsed(path)
        else:
            absolute(base, path).exists()
    except ValueError as error:
        message, _, remedy = str(error).partition("|")
        return message, remedy
    except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody, or links in a circle
        why = error.strerror if isinstance(error, OSError) else str(error)
        return f"nothing can lie at {path[:60]!r}: {why}", "name another folder"
    return None
