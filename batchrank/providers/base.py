"""
What every vendor has in common: the shape of calls and replies, and what a status means by itself.

Owns the words between `providers` and `wire` (`HttpCall`, `HttpReply`), the checks that bind scores
to documents, and the table of statuses. Vendor files add only what differs.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from math import isfinite, isnan
from typing import Protocol

from pydantic import BaseModel, ConfigDict

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

Headers = Mapping[str, str]
"""Names in lower case."""

RETRY_AFTER_S_MAX = 2 * 86_400.0
"""Quotas come back within a day; whoever asks for more than two is not to be believed."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """
    One HTTP request, but for the key: `wire` adds that.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpReply:
    """
    One HTTP reply, read to its end.
    """

    status: int
    headers: Headers
    body: bytes


class Provider(Protocol):
    """
    A vendor with one job's model and options.
    """

    def call(self, request: RerankRequest) -> HttpCall:
        """
        The call that asks *request*.
        """

    def read(self, request: RerankRequest, reply: HttpReply) -> Answer:
        """
        What *reply* says: scores bound to the request's documents, or a classed failure.
        """


class Options(BaseModel):
    """
    A vendor's own request fields: strict, and frozen.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


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
class Vendor:
    """
    A vendor's facts as data, and how to make its provider.

    Attributes:
        base_url: where its API is unless the job says otherwise.
        key_env: the environment variable that usually holds its key.
        options: the model of `[provider.options]`, named as the vendor names its request fields.
        score_options: those that decide a score.
        documents_max: how many documents one request may hold; None is "not documented".
        splits: pairs are scored independently, so that a group may be asked in several requests.
        prices: by model, dated; a job file's price goes before them.
    """

    name: str
    base_url: str
    key_env: str
    options: type[Options]
    make: Callable[[Settings], Provider]
    score_options: frozenset[str] = frozenset()
    documents_max: int | None = None
    splits: bool = True
    prices: Mapping[str, Price] = field(default_factory=dict)


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


@dataclass(slots=True)  # not frozen: that takes three times as long, for each of a reply's lines
class Result:
    """
    One line of a vendor's results; *echo* is the document it repeats, if it does.
    """

    index: int
    score: float
    echo: Document | None = None


def bind(
    request: RerankRequest, results: Iterable[Result], top_n: int | None
) -> tuple[float, ...] | str:
    """
    Put scores in the order of the request's documents, or say why the results cannot be trusted.

    Every index is in range and comes once; all are there, or *top_n* of them where that was sent;
    every score is finite; an echoed document is the one that was sent at that index.
    """
    documents = request.documents
    count = len(documents)
    scores = [UNSCORED] * count
    seen = 0
    for result in results:
        index, score, echo = result.index, result.score, result.echo
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


# --- helpers for reading --------------------------------------------------------------------------


def bad_reply(reply: HttpReply, why: str, known: Failure | None = None) -> Failure:
    """
    A failure of class bad reply, with what is kept of the reply: its digest, length and status.

    *known* holds what else the reply told (its bill, who served it).
    """
    return replace(
        known or Failure(FailureKind.BAD_REPLY, why),
        kind=FailureKind.BAD_REPLY,
        message=why,
        status=reply.status,
        reply_bytes=len(reply.body),
        reply_sha256=hashlib.sha256(reply.body).hexdigest(),
    )


def retry_after_s(headers: Headers) -> float | None:
    """
    How long the other side asks to be left alone, in seconds; None if it says nothing or nonsense.

    `retry-after-ms` and `x-ms-retry-after-ms` first, then `Retry-After` as seconds or as a date
    (RFC 9110 §10.2.3), measured from the reply's own `Date`: our clock may be wrong.
    """
    for wait_s in _waits(headers):
        if wait_s is not None:
            return wait_s if wait_s <= RETRY_AFTER_S_MAX else None
    return None


def _waits(headers: Headers) -> Iterator[float | None]:
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        value = positive(headers.get(name))
        yield None if value is None else value / 1000
    text = headers.get("retry-after")
    yield positive(text)
    then, now = _date(text), _date(headers.get("date"))
    yield None if then is None or now is None else max(0.0, then - now)


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


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (TypeError, ValueError, OverflowError):
        return None
