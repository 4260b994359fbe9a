"""
What one request may hold: as it is told beforehand, and as refusals have taught.

Owns the bounds that groups are cut to, how a request is weighed against them, and what is learned
of a limit that nobody told. How a group is cut is for `slicing` to say. No clock, no I/O: whoever
weighs a body is an argument.

Bytes are those that the vendor counts, mostly the body's as it is sent, to the byte. Tokens nobody
knows beforehand, so they have two estimates: cuts are made at `BYTES_PER_TOKEN_SURE`, which makes a
request too small rather than too large, and refused without a call is only what has too many at
`BYTES_PER_TOKEN_MOST`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import msgspec
from msgspec.structs import replace

from batchrank.domain import Document, Failure, RerankRequest, Slice
from batchrank.policy.billing import BYTES_PER_TOKEN_MOST, Sizes, sizes_of, tokens_most

BYTES_PER_TOKEN_SURE = 2.0
"""
English has about 4.5, German 4, code 3, Chinese and Japanese 2.5: half of what most texts have, and
a fifth less than the shortest that is common.
"""

ESCAPED_BYTES_MAX = 6
"""What one character takes in JSON at most, as in `\\u0001`; in UTF-8 it is four."""

TEXT_BYTES_MAX = 4
PAIR_BYTES_MAX = 160
"""What any vendor adds to a document at most: braces, names, or what its rule counts (150)."""

Weigh = Callable[[RerankRequest], int]
"""How many bytes a vendor counts a request as: so many for each document, and so many beside."""


def texts_bytes(request: RerankRequest) -> int:
    """
    The bytes of a request's texts, each once: for whoever sends no body.
    """
    sizes = sizes_of(request)
    return sizes.query_bytes + sum(sizes.document_bytes)


def pairs_bytes(pair_bytes: int) -> Weigh:
    """
    The bytes of a request where each document counts with the query, and *pair_bytes* beside.
    """

    def weigh(request: RerankRequest) -> int:
        sizes = sizes_of(request)
        each = sizes.query_bytes + pair_bytes
        return each * len(sizes.document_bytes) + sum(sizes.document_bytes)

    return weigh


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """
    What one request may hold at most; None is no limit.

    *bytes_max* are as *weigh* counts them, *frame_bytes* those of a request without any text;
    *tokens_max* are estimated. What refusals taught of bytes is only good for cuts, which are made
    at *bytes_cut* then: a document above it may do, and is sent by itself. *hundreds*: documents
    are billed by the hundred. *splits*: a group may be asked about in several requests; else one
    that is too large is not asked about at all.
    """

    documents_max: int | None = None
    bytes_max: int | None = None
    tokens_max: int | None = None
    bytes_cut: int | None = None
    hundreds: bool = False
    splits: bool = True
    weigh: Weigh = texts_bytes
    frame_bytes: int = 0

    def surely_hold(self, query: str, documents: Sequence[Document | None]) -> bool:
        """
        Tell, from lengths alone, whether one request may ask about *documents*; those that are None
        are not sent. Nearly every group is within all bounds, and need not be weighed.
        """
        count = len(documents)
        if self.documents_max is not None and count > self.documents_max:
            return False
        if not self.weighs:
            return True
        chars = sum(len(d) if type(d) is str else _chars(d) for d in documents)
        chars += count * len(query)
        most_bytes = self.frame_bytes + PAIR_BYTES_MAX * count + ESCAPED_BYTES_MAX * chars
        most_tokens = TEXT_BYTES_MAX * chars / BYTES_PER_TOKEN_SURE
        return _within(most_bytes, self.bytes_most) and _within(most_tokens, self.tokens_max)

    def hold(self, query: str, documents: Sequence[Document]) -> bool:
        """
        Tell the same of bytes and tokens by weighing them.
        """
        asking = _asking(query, *documents)
        tokens = tokens_most(sizes_of(asking)) / BYTES_PER_TOKEN_SURE
        light = _within(self.weigh(asking), self.bytes_most)
        return light and _within(tokens, self.tokens_max)

    @property
    def weighs(self) -> bool:
        """
        Whether texts decide what goes into a request, and not the number of documents alone.
        """
        return self.bytes_most is not None or self.tokens_max is not None

    @property
    def bytes_most(self) -> int | None:
        """
        How many bytes a request is given.
        """
        return self.bytes_max if self.bytes_cut is None else self.bytes_cut


def _chars(document: Document | None) -> int:
    if document is None:
        return 0
    if isinstance(document, str):
        return len(document)
    return len(document.text or "") + len(document.image or "")


def _within(amount: float, most: int | None) -> bool:
    return most is None or amount <= most


# --- loads ----------------------------------------------------------------------------------------


class Load(msgspec.Struct, frozen=True, gc=False):
    """
    How documents weigh on one bound: *sums* over the first 0, 1, 2, ... of them, in bytes. Cuts are
    made at *most*; what is above *refused* surely does not go. *bound* says what that is.
    """

    sums: Sequence[int]
    most: float
    refused: float
    bound: str

    def reach(self, start: int) -> int:
        """
        Where a request ends that begins with document *start* and takes as many as go; it may be
        none.
        """
        return bisect_right(self.sums, self.sums[start] + self.most) - 1

    def holds(self, start: int, stop: int) -> bool:
        """
        Tell whether these documents go into one request.
        """
        return self.sums[stop] - self.sums[start] <= self.most

    def refuses(self, start: int, stop: int) -> bool:
        """
        Tell whether these documents are surely too much for one request.
        """
        return self.sums[stop] - self.sums[start] > self.refused


def loads(query: str, documents: Sequence[Document], bounds: Bounds) -> list[Load]:
    """
    How *documents* weigh on the bounds of bytes and tokens, as far as there are any.
    """
    return [*_bytes_load(query, documents, bounds), *_tokens_load(query, documents, bounds)]


def _bytes_load(query: str, documents: Sequence[Document], bounds: Bounds) -> Iterator[Load]:
    cut = bounds.bytes_most
    if cut is None:
        return
    none, one = _asking(query), _asking(query, documents[0])
    frame = bounds.weigh(none)
    # What a second one takes more than the first: the comma before it.
    comma = bounds.weigh(_asking(query, documents[0], documents[0])) - 2 * bounds.weigh(one) + frame
    each = (bounds.weigh(_asking(query, d)) - frame + comma for d in documents)
    beside = frame - comma
    refused = math.inf if bounds.bytes_max is None else bounds.bytes_max - beside
    yield Load(_sums(each), cut - beside, refused, f"{bounds.bytes_max or cut:,} bytes")


def _tokens_load(query: str, documents: Sequence[Document], bounds: Bounds) -> Iterator[Load]:
    if bounds.tokens_max is None:
        return
    sizes = sizes_of(_asking(query, *documents))
    most, refused = (bounds.tokens_max * n for n in (BYTES_PER_TOKEN_SURE, BYTES_PER_TOKEN_MOST))
    yield Load(_sums(_pairs(sizes)), most, refused, f"{bounds.tokens_max:,} tokens")


def _pairs(sizes: Sizes) -> Iterator[int]:
    return (sizes.query_bytes + document for document in sizes.document_bytes)


def _sums(each: Iterator[int]) -> list[int]:
    return list(accumulate(each, initial=0))


def _asking(query: str, *documents: Document) -> RerankRequest:
    count = len(documents)
    return RerankRequest(Slice(0, 0, count), query, documents, tuple(range(count)))


# --- what refusals teach --------------------------------------------------------------------------


@dataclass(slots=True)
class _Sought:
    """
    A limit that nobody tells: what was refused as too large for it, and what has passed since.

    One group proves nothing, for it may be refused for something else; nor does what is no larger
    than what has passed. The limit that follows from two is five eighths of the least that was
    refused, so that two halves of it go that are not quite alike, or the most that has passed if
    that is more: never less than half of what would do, whatever the groups are like.
    """

    passed: int = 0
    refused: int | None = None
    groups: set[int] = field(default_factory=set)

    def refuse(self, size: int, position: int) -> None:
        if size > self.passed:
            self.refused = min(size, self.refused or size)
            if len(self.groups) < 2:
                self.groups.add(position)

    def let_pass(self, size: int) -> None:
        self.passed = max(self.passed, size)
        if self.refused is not None and size >= self.refused:
            self.refused, self.groups = None, set()

    @property
    def most(self) -> int | None:
        if self.refused is None or len(self.groups) < 2:
            return None
        return max(1, self.passed, min(self.refused - 1, -(-5 * self.refused // 8)))


@dataclass(frozen=True, slots=True)
class Learned:
    """
    What one request may hold as far as refusals have taught it; None is nothing.
    """

    documents_max: int | None = None
    bytes_max: int | None = None

    def sentence(self) -> str:
        """
        What a person is told of it; "" if there is nothing to tell.
        """
        told = ((self.documents_max, "document"), (self.bytes_max, "byte"))
        parts = [f"{most:,} {one}{'s' * (most != 1)}" for most, one in told if most]
        if not parts:
            return ""
        return f"larger requests were refused: they are kept to {' and '.join(parts)} from here on"


class Capacity:
    """
    What a request of this run may hold: the bounds it began with, and what it has learned since.
    """

    def __init__(self, told: Bounds) -> None:
        self.bounds = self._told = told
        self.learned = Learned()
        self._stated: int | None = None
        self._documents, self._bytes = _Sought(), _Sought()
        self._seeking = False

    def tell(self, documents_max: int) -> None:
        """
        The server has said how many documents it takes: that goes before what was known.
        """
        self._told = replace(self._told, documents_max=documents_max)
        self.bounds = narrowed(self._told, self.learned)

    def refused(self, request: RerankRequest, failure: Failure) -> bool:
        """
        *request* was too large, as *failure* says; tell whether something was learned from that.
        """
        self._seeking = True
        stated, count = failure.documents_max, len(request.documents)
        if stated is not None and 0 < stated < count:
            self._stated = min(stated, self._stated or stated)
        elif failure.too_many:
            self._documents.refuse(count, request.slice.position)
        else:
            self._bytes.refuse(self.bounds.weigh(request), request.slice.position)
        return self._relearn()

    def passed(self, request: RerankRequest) -> None:
        """
        *request* was not too large. Asks nothing of it as long as none was.
        """
        if self._seeking:
            self._documents.let_pass(len(request.documents))
            self._bytes.let_pass(self.bounds.weigh(request))
            self._relearn()

    def _relearn(self) -> bool:
        known = [most for most in (self._stated, self._documents.most) if most]
        learned = Learned(min(known, default=None), self._bytes.most)
        if learned == self.learned or not self.bounds.splits:
            return False
        self.learned = learned
        self.bounds = narrowed(self._told, learned)
        return True


def narrowed(bounds: Bounds, learned: Learned) -> Bounds:
    """
    *bounds* with what was *learned* where that is less.
    """
    return replace(
        bounds,
        documents_max=_less(bounds.documents_max, learned.documents_max),
        bytes_cut=_less(bounds.bytes_most, learned.bytes_max),
    )


def _less(one: int | None, other: int | None) -> int | None:
    return min((most for most in (one, other) if most is not None), default=None)
