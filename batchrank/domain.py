"""
The words everyone speaks: groups, requests, replies, failures, outcomes.

Values here are frozen and carry no behaviour beyond questions about themselves. This module imports
nothing of the package; every room may import it. How a value travels (JSON, SQLite, Parquet) is the
business of the room that carries it.

What is made for every group is a struct: a frozen dataclass takes ten times as long to make.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import msgspec

UNSCORED = math.nan
"""Stands in a list of scores for a document that has none (left out of the request, or cut)."""


class RichDocument(msgspec.Struct, frozen=True, gc=False):
    """
    A document with an image, or one whose text and image are sent as a structure.

    At least one of *text* and *image* is there; *image* is an http(s) URL or a `data:image/` URI.
    """

    text: str | None = None
    image: str | None = None


Document = str | RichDocument
"""A text that may be ranked: plain, or with an image."""


def text_of(document: Document) -> str:
    """
    The text of a document, "" if it has an image alone.
    """
    return document if isinstance(document, str) else document.text or ""


class Group(msgspec.Struct, frozen=True, gc=False):
    """
    One query and all its candidates: unit of work, of commit, of failure.

    *position* is the group's 0-based place in the source and its identity in a run. A document that
    is None was empty or null: it is never sent and gets a null score. *flaw* says why the group
    cannot be asked at all (text that is not UTF-8, ids that do not match); such a group is rejected
    without a call.

    *firsts* is empty unless equal documents are to be sent once and there are some: then it has for
    each candidate the index of the first one with the same document. *cut* counts the documents
    that were longer in the source than they may be.

    *known* are scores that earlier outputs have of some of its pairs: these documents are None,
    because they are not sent again, and the group's outcome takes their scores from there.
    """

    position: int
    query_id: str | int
    query: str
    documents: tuple[Document | None, ...]
    flaw: str | None = None
    firsts: tuple[int, ...] = ()
    cut: int = 0
    known: Ranked | None = None


class Slice(msgspec.Struct, frozen=True, gc=False):
    """
    The candidates `start <= index < stop` of the group at *position*: what one request asks about.
    """

    position: int
    start: int
    stop: int


class RerankRequest(msgspec.Struct, frozen=True, gc=False):
    """
    What one provider call asks.

    *indices* are the candidates' places in their group, one for each document: a reply speaks of
    places in *documents*, the group of places in itself.
    """

    slice: Slice
    query: str
    documents: tuple[Document, ...]
    indices: tuple[int, ...]


class Served(msgspec.Struct, frozen=True, gc=False):
    """
    Who scored: the *model* slug and the *provider* as the reply names them; where it names none,
    the model that was asked for and the vendor.
    """

    model: str
    provider: str | None = None


class CostSource(StrEnum):
    """
    How we know what a call cost, from the best knowledge to the worst.
    """

    REPORTED = "reported"  # the reply said so
    PRICED = "priced"  # units from the reply, times the configured price
    ESTIMATED = "estimated"  # units by the provider's billing rule, times the price
    UNKNOWN = "unknown"  # no price is known: booked as 0 and counted apart


class Usage(msgspec.Struct, frozen=True, gc=False):
    """
    What a reply says about its own bill; None is "did not say". *cost_usd* is US dollars.
    """

    search_units: float | None = None
    total_tokens: int | None = None
    cost_usd: float | None = None


class Advertised(msgspec.Struct, frozen=True, gc=False):
    """
    The limit of requests that the headers of a reply tell; None is "did not say".

    Every number is finite and not negative. *per_s* is the quota over its window, *remaining* how
    many requests are left until the window ends, *reset_s* when it ends, in seconds from the reply.
    """

    per_s: float | None = None
    remaining: float | None = None
    reset_s: float | None = None


class RerankReply(msgspec.Struct, frozen=True, gc=False):
    """
    A reply that was understood and whose results are bound to their documents.

    *scores* has one number for each document of the request, in the request's order, UNSCORED where
    a `top_n` that was sent cut the document off. *echoed* tells whether every document came back
    and was compared with the one that was sent.
    """

    scores: tuple[float, ...]
    served: Served
    usage: Usage = Usage()
    request_id: str | None = None
    echoed: bool = True
    advertised: Advertised | None = None


class FailureKind(StrEnum):
    """
    The class of a failed attempt: it decides what is retried, and what is booked as spent.
    """

    NEVER_SENT = "never_sent"
    THROTTLED = "throttled"
    UNKNOWN = "unknown"
    BAD_REPLY = "bad_reply"
    BAD_GROUP = "bad_group"
    FATAL = "fatal"


PERHAPS_BILLED = frozenset({FailureKind.UNKNOWN, FailureKind.BAD_REPLY})
"""Failures whose cost is booked as spent: nobody can say that they were free."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """
    A failed attempt, in the provider's words and our class.

    Attributes:
        kind: what decides the next step.
        message: for a person; trimmed, without a key or a document's text.
        status: the HTTP status, or None where no reply was read.
        code: the provider's typed code, or our own word for a failure of the wire.
        retry_after_s: how long the other side asked us to stay away.
        too_large: the request would do if it were smaller.
        too_many: it is the number of its documents that is too large.
        documents_max: how many one request may have, if the reply says so.
        usage, served: as far as the reply told.
        reply_bytes, reply_sha256: what is kept of a reply that was refused.
        advertised: the limit that the reply's headers told.
    """

    kind: FailureKind
    message: str
    status: int | None = None
    code: str | None = None
    retry_after_s: float | None = None
    too_large: bool = False
    too_many: bool = False
    documents_max: int | None = None
    usage: Usage = Usage()
    served: Served | None = None
    request_id: str | None = None
    reply_bytes: int | None = None
    reply_sha256: str | None = None
    advertised: Advertised | None = None


Answer = RerankReply | Failure
"""What a scorer returns for one attempt: it never raises for what the world does."""


class Share(msgspec.Struct, frozen=True, gc=False):
    """
    Who scored the candidates up to `index < stop`, from where the share before ends.
    """

    stop: int
    served: Served


class Ranked(msgspec.Struct, frozen=True, gc=False):
    """
    A group's scores in source order, UNSCORED for documents that were not sent.

    *shares* says who scored which candidates: one share, several where slices were served by
    different upstream providers, none where no document could be sent. *cut* counts the documents
    that were longer in the source than they may be.
    """

    position: int
    scores: tuple[float, ...]
    shares: tuple[Share, ...]
    cut: int = 0


class RejectKind(StrEnum):
    """
    Why a group has no scores.
    """

    EMPTY_QUERY = "empty_query"
    FLAWED = "flawed"
    TOO_LARGE = "too_large"
    BAD_GROUP = "bad_group"
    BAD_REPLY = "bad_reply"
    UNKNOWN = "unknown"
    THROTTLED = "throttled"


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """
    The final word on a group that could not be scored, until `--retry-rejects` asks again.
    """

    position: int
    query_id: str | int
    kind: RejectKind
    message: str
    status: int | None = None
    code: str | None = None
    attempts: int = 0


class Empty(msgspec.Struct, frozen=True, gc=False):
    """
    The final word on a group without candidates: nothing to rank, nothing to pay.
    """

    position: int


Outcome = Ranked | Rejected | Empty


class Scored(msgspec.Struct, frozen=True, gc=False):
    """
    The scores of one slice of a group that needs several requests; durable by itself.

    *scores* covers `slice.start <= index < slice.stop` in source order.
    """

    slice: Slice
    scores: tuple[float, ...]
    served: Served


class Call(msgspec.Struct, frozen=True, gc=False):
    """
    One attempt, as the calls table keeps it.

    *attempt* counts the sendings of this slice from 1, over all runs. *sent_at* is seconds since
    the epoch, UTC. *cost_nano_usd* is what is booked: 10^-9 US dollars. *search_units* are what is
    booked, too: those of *usage*, or the most that it can be, as far as anybody counts them. *day*
    is the UTC day that it counts for, where a budget of days is shared; else "". *route* is the
    name of the way that it took.
    """

    slice: Slice
    attempt: int
    sent_at: float
    latency_s: float
    failure: Failure | None
    served: Served | None
    usage: Usage
    request_id: str | None
    cost_nano_usd: int
    cost_source: CostSource
    probe: bool = False
    route: str = ""
    search_units: int = 0
    day: str = ""


class Positions:
    """
    A set of positions `0 <= p < total`, one bit each: 1.25 MB for ten million.
    """

    def __init__(self, total: int, members: Iterable[int] = ()) -> None:
        self.total = total
        self._bits = bytearray((total + 7) // 8)
        self._count = 0
        for position in members:
            self.add(position)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, position: int) -> bool:
        return bool(self._bits[position >> 3] & (1 << (position & 7)))

    def __repr__(self) -> str:
        return f"<Positions {self._count} of {self.total}>"

    def add(self, position: int) -> None:
        """
        Put *position* in; nothing happens if it is there already.
        """
        bit = 1 << (position & 7)
        if not self._bits[position >> 3] & bit:
            self._bits[position >> 3] |= bit
            self._count += 1

    def discard(self, position: int) -> None:
        """
        Take *position* out; nothing happens if it is not there.
        """
        bit = 1 << (position & 7)
        if self._bits[position >> 3] & bit:
            self._bits[position >> 3] &= ~bit
            self._count -= 1

    def add_range(self, start: int, stop: int) -> None:
        """
        Put in every position `start <= p < stop`, whole bytes at a time where it can.
        """
        first, last = (start + 7) // 8, stop // 8
        if first >= last:
            for position in range(start, stop):
                self.add(position)
            return
        for position in (*range(start, first * 8), *range(last * 8, stop)):
            self.add(position)
        held = int.from_bytes(self._bits[first:last]).bit_count()
        self._bits[first:last] = b"\xff" * (last - first)
        self._count += (last - first) * 8 - held

    def united(self, other: Positions) -> Positions:
        """
        The positions that are in this set or in *other*, as a set of its own.
        """
        return self._of(self._as_bits() | other._as_bits())

    def others(self) -> Positions:
        """
        The positions that are not in the set, as a set of its own.
        """
        return self._of((1 << self.total) - 1 & ~self._as_bits())

    def _as_bits(self) -> int:
        return int.from_bytes(self._bits, "little")

    def _of(self, bits: int) -> Positions:
        made = Positions(self.total)
        made._bits[:] = bits.to_bytes(len(self._bits), "little")
        made._count = bits.bit_count()
        return made

    def count(self, start: int, stop: int) -> int:
        """
        How many positions of `start <= p < stop` are in the set.
        """
        bits = int.from_bytes(self._bits[start >> 3 : (stop + 7) >> 3], "little")
        return (bits >> (start & 7) & (1 << max(0, stop - start)) - 1).bit_count()

    def missing(self, start: int, stop: int) -> Iterator[int]:
        """
        Yield the positions of `start <= p < stop` that are not in the set, in order.
        """
        position = start
        while position < stop:
            byte = self._bits[position >> 3]
            if byte == 0xFF:
                position = (position >> 3) + 1 << 3
                continue
            if not byte & (1 << (position & 7)):
                yield position
            position += 1


@dataclass(frozen=True, slots=True)
class SourceFile:
    """
    The identity of one source file: where it is, its length, what its footer says. Never a time.

    *path* is relative to the job file. *row_groups* holds the rows of each row group.
    """

    path: str
    size_bytes: int
    footer_sha256: str
    row_groups: tuple[int, ...] = field(repr=False)

    @property
    def rows(self) -> int:
        """
        Groups in this file.
        """
        return sum(self.row_groups)


class SourceBatch(Protocol):
    """
    Some consecutive groups, as the source read them at once.
    """

    @property
    def position(self) -> int:
        """
        The position of the first group.
        """

    @property
    def rows(self) -> int:
        """
        How many groups there are.
        """

    @property
    def carried(self) -> bytes:
        """
        Ids and carried columns of all its groups, packed: what a part needs besides scores.
        """

    def group(self, position: int) -> Group:
        """
        Build the group at *position*; texts become Python strings only here.
        """


@dataclass(frozen=True, slots=True)
class RateLimit:
    """
    At most *count* (requests, documents) in any *period_s* seconds.
    """

    count: float
    period_s: float

    @property
    def per_s(self) -> float:
        """
        The same as a mean rate in 1/s.
        """
        return self.count / self.period_s


@dataclass(frozen=True, slots=True)
class Price:
    """
    What a model costs, in US dollars, as seen on *as_of* (ISO date) at *source*.
    """

    usd_per_search_unit: float | None = None
    usd_per_million_tokens: float | None = None
    as_of: str = ""
    source: str = ""
