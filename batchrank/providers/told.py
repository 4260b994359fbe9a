"""
What a vendor has told for nothing, and what that means for a job.

Owns what a clear no is: a key that is refused, out of date or spent; a model that is not in a list
which has them all; another model; one that is no reranker. Whatever else comes, or does not come,
is told and stops nobody. Asks nobody itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec

from batchrank.domain import Failure, Price
from batchrank.providers.base import (
    HttpCall,
    HttpReply,
    Options,
    Settings,
    positive,
    same_model,
)
from batchrank.providers.checks import Check, KeyPlaces, ModelPlaces
from batchrank.providers.reading import UNREADABLE, at, in_a_path, said, text
from batchrank.providers.shape import ErrorShape, PresetOptions

SOON_S = 86_400.0
"""A key that expires within a day may not last for a night."""

SAME_PRICE = 1e-6
"""Prices are told as decimal fractions of a token's: equal ones differ by rounding alone."""

NAMES_MAX = 20
"""So many names are told of the models that are there."""

MODELS_MAX = 10_000
"""A list of more is no list of models."""

ANOTHER_FORM = "a reply of another form"


@dataclass(frozen=True, slots=True)
class Told:
    """
    What is known after asking.

    Attributes:
        refused: a clear no, in words; "" if there is none.
        trouble: questions that were not answered, or not in a form that is known.
        warnings: what a person should know before anything is paid.
        facts: what else was told.
        served: whether the model is there; None if nobody says.
        names: the models there are, where a list told.
        documents_max: how many documents one request may hold.
        left_usd: what the key may still spend; None if nobody says, or there is no limit.
    """

    refused: str = ""
    trouble: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    served: bool | None = None
    names: tuple[str, ...] = ()
    documents_max: int | None = None
    left_usd: float | None = None

    def reworded(self, word: Callable[[str], str]) -> Told:
        """
        The same with everything that is for a person as *word* puts it.
        """
        return replace(
            self,
            refused=word(self.refused),
            trouble=tuple(map(word, self.trouble)),
            warnings=tuple(map(word, self.warnings)),
            facts=tuple(map(word, self.facts)),
            names=tuple(map(word, self.names)),
        )


def questions(checks: Sequence[Check], settings: Settings) -> tuple[HttpCall, ...]:
    """
    The calls that ask *checks*, in their order. None where the job names another path than the
    usual one: where such a server tells of itself is not known.
    """
    options = settings.options
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(options, PresetOptions):
        if options.path is not None:
            return ()
        headers = tuple(options.sent_headers().items())
    base_url = settings.base_url.rstrip("/")
    return tuple(
        HttpCall("GET", base_url + _path(check, settings.model), headers, b"") for check in checks
    )


def _path(check: Check, model: str) -> str:
    slug = model.partition(":")[0]
    return check.path.replace("<model>", in_a_path(model)).replace("<slug>", in_a_path(slug))


# --- one answer -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asker:
    """
    Who asks, for which model, with which options, and what price they reckon with.
    """

    model: str
    options: Options
    price: Price | None


def told(
    check: Check,
    reply: HttpReply | Failure,
    settings: Settings,
    price: Price | None,
    now_epoch_s: float,
) -> Told:
    """
    What *reply* says to a job with these *settings* that reckons with *price*; the time is ours.
    """
    asker = _Asker(settings.model, settings.options, price)
    if isinstance(reply, Failure):
        return _trouble(check, reply.message or "no answer")
    try:
        body = msgspec.json.decode(reply.body)
    except UNREADABLE:
        body = None
    if reply.status != 200:
        return _not_told(check, reply.status, _message(body), asker.model)
    if body is None or at(body, "error"):
        return _trouble(check, _message(body) or ANOTHER_FORM)
    if check.key is not None:
        return _of_key(check, check.key, body, now_epoch_s)
    entries = [body] if check.entries is None else at(body, check.entries)
    if check.model is None or not isinstance(entries, list) or len(entries) > MODELS_MAX:
        return _trouble(check, ANOTHER_FORM)
    return _of_models(check, check.model, entries, asker, whole=_is_whole(check, body))


def _not_told(check: Check, status: int, message: str, model: str) -> Told:
    """
    A status that is no 200 refuses the key, or the model, or nothing that is known.
    """
    words = f"{status}: {message}" if message else f"HTTP {status}"
    if status == 401 or (status == 403 and check.key is not None):
        return Told(refused=f"the key is refused ({words})")
    if check.absent is not None:
        absent, says = check.absent
        if status == absent and says.replace("<model>", model) in message:
            return Told(served=False)
    return _trouble(check, words)


def _message(body: object) -> str:
    return next(filter(None, (said(at(body, place)) for place in ErrorShape().message)), "")


def _trouble(check: Check, why: str) -> Told:
    return Told(trouble=(f"GET {check.path.partition('?')[0]}: {why}",))


# --- the key --------------------------------------------------------------------------------------


def _of_key(check: Check, places: KeyPlaces, body: object, now_epoch_s: float) -> Told:
    if not isinstance(at(body, places.within), dict):
        return _trouble(check, ANOTHER_FORM)
    left, until = _left_usd(body, places), text(at(body, places.expires_at))
    expires_s = _epoch_s(until)
    if left is not None and left <= 0:
        return Told(refused=f"the key's credit is spent: {_of_its_limit(left, body, places)}")
    if expires_s is not None and expires_s <= now_epoch_s:
        return Told(refused=f"the key has expired: {until}")
    facts, warnings = [f"the key: {_of_its_limit(left, body, places)}"], list[str]()
    if expires_s is not None:
        (warnings if expires_s < now_epoch_s + SOON_S else facts).append(f"the key expires {until}")
    if at(body, places.free_tier) is True:
        warnings.append("the key is on the free tier: no credit was ever bought for it")
    return Told(warnings=tuple(warnings), facts=tuple(facts), left_usd=left)


def _left_usd(body: object, places: KeyPlaces) -> float | None:
    """
    What is left, 0 if it is overdrawn; None where there is no limit.
    """
    left = at(body, places.left_usd)
    if isinstance(left, int | float) and left < 0:
        return 0.0
    return positive(left)


def _of_its_limit(left: float | None, body: object, places: KeyPlaces) -> str:
    limit, resets = positive(at(body, places.limit_usd)), text(at(body, places.resets))
    if left is None:
        return "no limit of its own; what the account has left is not told"
    of = "" if limit is None else f" of ${limit:,.2f}"
    return f"${left:,.2f}{of} left" + (f", renewed {resets}" if resets else "")


def _epoch_s(told: str | None) -> float | None:
    """
    A time as ISO 8601 has it, with its zone, in seconds since the epoch; None if it is none.
    """
    try:
        moment = datetime.fromisoformat(told) if told else None
        return moment.timestamp() if moment and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


# --- models ---------------------------------------------------------------------------------------


def _is_whole(check: Check, body: object) -> bool:
    return check.complete and not (check.more and at(body, check.more))


def _of_models(
    check: Check,
    places: ModelPlaces,
    entries: Sequence[object],
    asker: _Asker,
    *,
    whole: bool,
) -> Told:
    known = [(entry, names) for entry in entries if (names := _names(entry, places))]
    if entries and not known:
        return _trouble(check, ANOTHER_FORM)
    for entry, names in known:
        if any(_is_called(asker.model, name, loosely=places.loosely) for name in names):
            return _of_model(places, entry, asker)
    there = tuple(dict.fromkeys(names[0] for _, names in known))
    # A list of nothing is no list that has them all: whoever answers serves something.
    if not whole or not there or any(map(_is_no_name, there)):
        words = f"{asker.model} is not among the models that it tells of ({_listed(there)})"
        return Told(warnings=(words,))
    return Told(served=False, names=there)


def _names(entry: object, places: ModelPlaces) -> list[str]:
    return [name for place in places.names if (name := text(at(entry, place)))]


def _is_called(model: str, name: str, *, loosely: bool) -> bool:
    if loosely and model.rpartition("/")[2].casefold() == name.rpartition("/")[2].casefold():
        return True
    return same_model(model, name)


def _is_no_name(name: str) -> bool:
    """
    Tell a file, which tells nobody what is in it, and a pattern, which many names match.
    """
    return name.startswith(("/", "./", "../")) or name.endswith(".gguf") or "*" in name


def _of_model(places: ModelPlaces, entry: object, asker: _Asker) -> Told:
    tasks = _words(at(entry, places.tasks)) if places.tasks else []
    if tasks and places.task not in tasks:
        return Told(refused=f"the model is no reranker: it is made for {', '.join(tasks)}")
    most = _at_most(entry, places.documents_max)
    return Told(
        warnings=tuple(_warnings(places, entry, asker)),
        facts=("the model is there", *_facts(places, entry)),
        served=True,
        documents_max=most,
    )


def _words(told: object) -> list[str]:
    if isinstance(told, list | dict):
        return [word for word in told if isinstance(word, str)]
    return [told] if isinstance(told, str) else []


def _at_most(entry: object, place: str) -> int | None:
    most = positive(at(entry, place)) if place else None
    return int(most) if most and most >= 1 else None


def _hosts(places: ModelPlaces, entry: object) -> list[str] | None:
    """
    Who serves the model; None where that is not told.
    """
    hosts = at(entry, places.hosts) if places.hosts else None
    if not isinstance(hosts, list):
        return None
    names = list(dict.fromkeys(filter(None, (text(at(host, places.host)) for host in hosts))))
    return names if names or not hosts else None


def _facts(places: ModelPlaces, entry: object) -> Iterator[str]:
    if hosts := _hosts(places, entry):
        yield f"served by {_listed(hosts)}"
    if most := _at_most(entry, places.documents_max):
        yield f"at most {most:,} documents in a request"
    if most := _at_most(entry, places.tokens_max):
        yield f"at most {most:,} tokens in a query with its document"


def _warnings(places: ModelPlaces, entry: object, asker: _Asker) -> Iterator[str]:
    if places.deprecated and at(entry, places.deprecated) is True:
        yield "the model is deprecated"
    is_cut = getattr(asker.options, places.cut_by, None) if places.cut_by else None
    if places.cuts and at(entry, places.cuts) is False and not is_cut:
        how = f"provider.options.{places.cut_by} = true cuts it"
        yield f"what is longer than the model's context is refused: {how}"
    if _hosts(places, entry) == []:
        yield "nobody serves the model just now"
    if places.listed_usd:
        yield from _about_price(positive(at(entry, places.listed_usd)), asker.price)


def _about_price(usd_per_token: float | None, price: Price | None) -> Iterator[str]:
    """
    How the price that is listed differs from ours. Who bills by search units lists tokens at 0.
    """
    if not usd_per_token:
        return
    listed = f"the model is listed at ${usd_per_token * 1e6:g} a million tokens"
    ours = price.usd_per_million_tokens if price else None
    if price is None:
        yield f"{listed}: state it in [provider.price]"
    elif ours is None:
        yield f"{listed}, and the price we reckon with is by search units"
    elif abs(usd_per_token * 1e6 - ours) > SAME_PRICE * ours:
        than = "more" if usd_per_token * 1e6 > ours else "less"
        yield f"{listed}, {than} than the ${ours:g} we reckon with: state it in [provider.price]"


# --- all answers together -------------------------------------------------------------------------


def together(answers: Sequence[Told], model: str) -> Told:
    """
    What all *answers* come to. A model is missing if somebody says so and nobody says otherwise.
    """
    served = {answer.served for answer in answers} - {None}
    names = next((answer.names for answer in answers if answer.names), ())
    refused = next((answer.refused for answer in answers if answer.refused), "")
    if not refused and served == {False}:
        refused = f"{model} is not there; there {_are(names)}" if names else f"no {model} is there"
    return Told(
        refused=refused,
        trouble=_all(answer.trouble for answer in answers),
        warnings=_all(answer.warnings for answer in answers),
        facts=_all(answer.facts for answer in answers),
        served=None if not served else True in served,
        names=names,
        documents_max=next((a.documents_max for a in answers if a.documents_max), None),
        left_usd=next((a.left_usd for a in answers if a.left_usd is not None), None),
    )


def _are(names: Sequence[str]) -> str:
    return f"{'is' if len(names) == 1 else 'are'} {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMES_MAX:,} more" if len(names) > NAMES_MAX else ""
    return (", ".join(names[:NAMES_MAX]) or "none") + more


def _all(said: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words for each in said for words in each))
