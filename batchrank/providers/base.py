"""
What every vendor has in common: the shape of calls and replies, and what a status means by itself.

Owns the words between `providers` and `wire` (`HttpCall`, `HttpReply`), the checks that bind scores
to documents, and the table of statuses. Vendor files add only what differs.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from math import isfinite, isnan
from typing import Annotated, Protocol

import msgspec
from msgspec.structs import replace
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from batchrank.domain import (
    UNSCORED,
    Answer,
    Document,
    Failure,
    FailureKind,
    Price,
    RerankRequest,
    RichDocument,
)
from batchrank.providers.checks import Check

Headers = Mapping[str, str]
"""Names in lower case."""

RETRY_AFTER_S_MAX = 2 * 86_400.0
"""Quotas come back within a day; whoever asks for more than two is not to be believed."""


class HttpCall(msgspec.Struct, frozen=True, gc=False):
    """
    One HTTP request, but for the key: `wire` adds that.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


class HttpReply(msgspec.Struct, frozen=True, gc=False):
    """
    One HTTP reply, read to its end.
    """

    status: int
    headers: Headers
    body: bytes


class Onward(msgspec.Struct, frozen=True, gc=False):
    """
    A reply that is only a page of its answer: the *call* that asks for the next one, and how the
    reply to that is *read*, together with what came before.
    """

    call: HttpCall
    read: Callable[[HttpReply, float | None], Answer | Onward]


class Provider(Protocol):
    """
    A vendor with one job's model and options.
    """

    def call(self, request: RerankRequest) -> HttpCall:
        """
        The call that asks *request*.
        """

    def read(
        self, request: RerankRequest, reply: HttpReply, now_epoch_s: float | None = None
    ) -> Answer | Onward:
        """
        What *reply* says: scores bound to the request's documents, or a classed failure; or that
        there are more pages of it.

        *now_epoch_s* is our clock, for times of day in a reply that has no `Date`.
        """


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """
    The header that the key goes into, its name in lower case, and what stands *before* the key.
    """

    name: str = "authorization"
    before: str = "Bearer "


class Options(BaseModel):
    """
    A vendor's own request fields: strict, and frozen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def keyed(self, usual: KeyHeader) -> KeyHeader:
        """
        Where the key goes, if it *usually* goes there.
        """
        return usual

    def places(self) -> dict[str, str]:
        """
        What stands in an address for `<name>`: a region, a project.
        """
        return {}


def _fits_a_header(text: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]+", text):
        raise ValueError("expected letters of ASCII in one line: it is sent as a header")
    return text


HeaderText = Annotated[
    str,
    AfterValidator(_fits_a_header),
    Field(json_schema_extra={"pattern": "^[\\x20-\\x7e]+$"}),
]


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What a vendor needs to know of the job. *top_n* is None unless it is to be sent.
    """

    model: str
    base_url: str
    top_n: int | None
    options: Options


@dataclass(frozen=True, slots=True)
class Signing:
    """
    That requests are signed with AWS's credentials (SigV4), as those for *service*. With *or_key* a
    job may name a key instead, which goes into a header as anybody's does.
    """

    service: str
    or_key: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """
    What a person should know of a vendor; nothing is decided by it.

    Attributes:
        title: what it is, in a few words.
        limits: what it takes and allows, as far as that is documented.
        billing: what it counts.
        scores: what its scores are: their range, and whether they are raw.
        pairs: how we know whether pairs are scored independently.
        verified: what was compared with what; nothing was tried on a real service.
        unknown: what was looked for and not found.
    """

    title: str
    limits: tuple[str, ...] = ()
    billing: str = "not documented"
    scores: str = "not documented"
    pairs: str = "not documented"
    verified: str = ""
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vendor:
    """
    A vendor's facts as data, and how to make its provider.

    Attributes:
        base_url: where its API is unless the job says otherwise; "" if the job has to.
        key_env: the environment variable that usually holds its key.
        options: the model of `[provider.options]`, named as the vendor names its request fields.
        score_options: those that decide a score.
        documents_max: how many documents one request may hold; None is "not documented".
        bytes_max, tokens_max: how many bytes and tokens, likewise. Bytes are those of the body,
            unless *pair_bytes* is told: then those of each document, of the query, and so many.
        bills_hundreds: it bills by the hundred documents where no price says otherwise.
        documents_max_by_model: the same of models that differ, by what their names begin with.
        splits: pairs are scored independently, so that a group may be asked in several requests.
        scores_pairs_alone: somebody who must know says so of every model behind it: the vendor's
            documents, or the server's code (beside the value stands who). Where nobody does, a
            group that is too large may still be split, and no score is taken for another group.
        prices: by model, dated; a job file's price goes before them.
        query_each: where tokens are billed, the query counts once for every document; None is "not
            documented".
        facts: what a person should know beside.
        address: which address a job has to give where *base_url* is "", and why.
        key_header: where the key goes, unless the options say otherwise.
        signing: requests are signed, instead of sent with a key; the options have a region.
        needs_key: without one nobody is answered; a server of one's own may do without.
        bills: calls cost money; on a server of one's own they do not.
        takes_top_n, takes_images: it has a field for them.
        checks: what it tells for nothing, to be asked before the first paid call.
    """

    name: str
    base_url: str
    key_env: str
    options: type[Options]
    make: Callable[[Settings], Provider]
    score_options: frozenset[str] = frozenset()
    documents_max: int | None = None
    bytes_max: int | None = None
    tokens_max: int | None = None
    pair_bytes: int | None = None
    bills_hundreds: bool = False
    documents_max_by_model: Mapping[str, int | None] = field(default_factory=dict)
    splits: bool = True
    scores_pairs_alone: bool = False
    prices: Mapping[str, Price] = field(default_factory=dict)
    query_each: bool | None = None
    facts: Facts = field(default_factory=lambda: Facts(""))
    address: str = ""
    key_header: KeyHeader = field(default_factory=KeyHeader)
    needs_key: bool = True
    bills: bool = True
    takes_top_n: bool = True
    takes_images: bool = False
    signing: Signing | None = None
    checks: tuple[Check, ...] = ()

    def documents_max_of(self, model: str) -> int | None:
        """
        How many documents one request to *model* may hold; None is "not documented".
        """
        limits = self.documents_max_by_model.items()
        return next((most for name, most in limits if model.startswith(name)), self.documents_max)


def structure(document: RichDocument) -> dict[str, str]:
    """
    A document as Cohere's format, and whoever follows it, writes one that is more than a text.
    """
    both = {"text": document.text, "image": document.image}
    return {key: value for key, value in both.items() if value is not None}


# --- statuses -------------------------------------------------------------------------------------

STATUS_KINDS: Mapping[int, FailureKind] = {
    401: FailureKind.FATAL,
    402: FailureKind.FATAL,
    403: FailureKind.FATAL,
    404: FailureKind.FATAL,
    407: FailureKind.FATAL,
    408: FailureKind.UNKNOWN,
    409: FailureKind.UNKNOWN,
    424: FailureKind.UNKNOWN,
    425: FailureKind.UNKNOWN,
    429: FailureKind.THROTTLED,
    499: FailureKind.UNKNOWN,
    503: FailureKind.THROTTLED,
    529: FailureKind.THROTTLED,
}
"""Statuses that do not follow their hundred (see `kind_of_status`)."""


def kind_of_status(status: int) -> FailureKind:
    """
    The class of a failure of which nothing is known but its status.
    """
    if status in STATUS_KINDS:
        return STATUS_KINDS[status]
    if 300 <= status < 400:
        return FailureKind.FATAL  # a redirect would carry the key elsewhere
    if 400 <= status < 500:
        return FailureKind.BAD_GROUP
    return FailureKind.UNKNOWN if status >= 500 else FailureKind.BAD_REPLY


# --- binding scores to documents ------------------------------------------------------------------


class Results(msgspec.Struct, frozen=True, gc=False):
    """
    A vendor's results, line by line: place among the documents sent, score, and the document that
    the line repeats, None where it repeats none.
    """

    indices: Sequence[int]
    scores: Sequence[float]
    echoes: Sequence[Document | None]


def bind(request: RerankRequest, results: Results, top_n: int | None) -> tuple[float, ...] | str:
    """
    Put scores in the order of the request's documents, or say why the results cannot be trusted.

    Every index is in range and comes once; all are there, or *top_n* of them where that was sent;
    every score is finite; an echoed document is the one that was sent at that index.
    """
    documents, indices, echoes = request.documents, results.indices, results.echoes
    # Whole lists at a time, as nearly every reply can be checked; `_placed` looks at each line.
    if (
        top_n is not None
        or sorted(indices) != list(range(len(documents)))
        or (echoes.count(None) != len(echoes) and [documents[index] for index in indices] != echoes)
        or not all(map(isfinite, results.scores))
    ):
        return _placed(documents, results, top_n)
    scores = [UNSCORED] * len(documents)
    for index, score in zip(indices, results.scores, strict=True):
        scores[index] = score
    return tuple(scores)


def _placed(
    documents: Sequence[Document], results: Results, top_n: int | None
) -> tuple[float, ...] | str:
    count = len(documents)
    scores = [UNSCORED] * count
    seen = 0
    for index, score, echo in zip(results.indices, results.scores, results.echoes, strict=True):
        if not 0 <= index < count:
            return f"index {index} of {count} documents"
        if not isnan(scores[index]):
            return f"index {index} twice"
        if not isfinite(score):
            return f"a score that is not finite at index {index}"
        if echo is not None and not same_document(documents[index], echo):
            return f"another document than the one sent at index {index}"
        scores[index] = score
        seen += 1
    expected = count if top_n is None else min(top_n, count)
    return tuple(scores) if seen == expected else f"{seen} results for {expected} documents"


def same_document(sent: Document, echoed: Document) -> bool:
    """
    Tell whether an echo repeats what was sent; a plain text may come back as a structure.
    """
    return sent == echoed or _plain(sent) == _plain(echoed)


def _plain(document: Document) -> tuple[str | None, str | None]:
    if isinstance(document, RichDocument):
        return document.text, document.image
    return document, None


def same_model(asked: str, served: str) -> bool:
    """
    Tell whether *served* is *asked*, or that slug plus a date; `:variant` is a way of routing.
    """
    slug = asked.partition(":")[0]
    if served in (asked, slug):
        return True
    date = served.removeprefix(f"{slug}-")
    return date != served and bool(_DATE.fullmatch(date))


_DATE = re.compile(r"20[0-9]{2}(-?)(0[1-9]|1[0-2])\1(0[1-9]|[12][0-9]|3[01])")


# --- refused replies, and hints -------------------------------------------------------------------


def bad_reply(reply: HttpReply, why: str, known: Failure) -> Failure:
    """
    A failure of class bad reply, with what is kept of the reply: its digest, length and status.

    *known* holds what else the reply told (its bill, who served it).
    """
    return replace(
        known,
        kind=FailureKind.BAD_REPLY,
        message=why,
        status=reply.status,
        reply_bytes=len(reply.body),
        reply_sha256=hashlib.sha256(reply.body).hexdigest(),
    )


def later_page(failure: Failure) -> Failure:
    """
    A failure after the first page of an answer: what is free by itself is not free with a page that
    may have been billed. Asking anew says by its first page what is wrong, and is not done without
    end.
    """
    if failure.kind is FailureKind.BAD_REPLY:
        return failure
    message = f"on a later page: {failure.message}"
    return replace(failure, kind=FailureKind.UNKNOWN, message=message, too_large=False)


def retry_after_s(headers: Headers, now_epoch_s: float | None) -> float | None:
    """
    How long the other side asks to be left alone, in seconds; None if it says nothing or nonsense.

    `retry-after-ms` and `x-ms-retry-after-ms` first, then `Retry-After` as seconds or as a date
    (RFC 9110 §10.2.3), measured from the reply's own `Date`: our clock may be wrong. Without one
    *now_epoch_s*, our clock, has to do.
    """
    for wait_s in _waits(headers, now_epoch_s):
        if wait_s is not None:
            return wait_s if wait_s <= RETRY_AFTER_S_MAX else None
    return None


def _waits(headers: Headers, now_epoch_s: float | None) -> Iterator[float | None]:
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        value = positive(headers.get(name))
        yield None if value is None else value / 1000
    text = headers.get("retry-after")
    yield positive(text)
    then, date_s = date_epoch_s(text), date_epoch_s(headers.get("date"))
    now_s = now_epoch_s if date_s is None else date_s
    yield None if then is None or now_s is None else max(0.0, then - now_s)


def positive(value: object, most: float = math.inf) -> float | None:
    """
    *value* as a finite number from 0 to *most*, or None.
    """
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) and 0 <= number <= most else None


def date_epoch_s(text: str | None) -> float | None:
    """
    An HTTP date (RFC 9110 §5.6.7), in any of its three forms, as seconds since the epoch; or None.
    """
    try:
        date = parsedate_to_datetime(text) if text else None
        if date is None:
            return None
        # C's form names no zone: all of them are in UTC.
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
