"""
What to ask about a group: nothing, one request, or several.

Owns which candidates go into which request and how scores come back to their candidates. Knows no
provider: what a provider takes at most is an argument.

A candidate whose document the group has before (`Group.firsts`) is in no request. In its slice, and
in what the ledger keeps of that, it has no score; when the group is assembled it gets the first
one's. A document whose score is known (`Group.known`) is in no request either, and the outcome has
the score that is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from math import isnan
from typing import cast

from msgspec.structs import replace

from batchrank.domain import (
    UNSCORED,
    Document,
    Empty,
    Group,
    Ranked,
    Rejected,
    RejectKind,
    RerankReply,
    RerankRequest,
    Scored,
    Served,
    Share,
    Slice,
)

BILLED_HUNDRED = 100
"""Search units are billed by the hundred documents: cuts fall on multiples of it where they can."""


def firsts(documents: Sequence[Document | None]) -> tuple[int, ...]:
    """
    For each document the index of the first one that is equal to it, character by character, image
    by image; empty if no two are equal. What is not sent (None) is nobody's equal.
    """
    seen: dict[Document, int] = {}
    places = tuple(n if d is None else seen.setdefault(d, n) for n, d in enumerate(documents))
    return () if places == _places(0, len(places)) else places


def without_call(group: Group) -> Ranked | Rejected | Empty | None:
    """
    The outcome of a group that needs no call, or None if somebody must be asked.
    """
    if group.flaw is not None:
        return Rejected(group.position, group.query_id, RejectKind.FLAWED, group.flaw)
    if not group.documents:
        return Empty(group.position)
    if not group.query.strip():
        message = "the query is empty or only white space"
        return Rejected(group.position, group.query_id, RejectKind.EMPTY_QUERY, message)
    if all(document is None for document in group.documents):
        nothing = Ranked(group.position, (UNSCORED,) * len(group.documents), (), group.cut)
        return _completed(group, nothing)
    return None


def knowing(group: Group, known: Ranked) -> Group:
    """
    The group with the documents that have their scores in *known* left out of what is sent.
    """
    if known.position != group.position or len(known.scores) != len(group.documents):
        raise AssertionError(f"scores of group {known.position} for {group.position}")
    pairs = zip(group.documents, known.scores, strict=True)
    left = tuple(document if isnan(score) else None for document, score in pairs)
    return replace(group, documents=left, known=known)


def requests(
    group: Group, documents_max: int | None, scored: Sequence[Slice] = ()
) -> list[RerankRequest]:
    """
    The fewest requests of at most *documents_max* candidates (None: no limit) that are still to be
    asked about a group of which the slices *scored* have their scores.

    Candidates that cannot be sent are in no request; a slice of nothing else makes none. Those that
    repeat an earlier one do not count either: a slice with some is longer.
    """
    count = len(group.documents)
    if not scored and (documents_max is None or count <= documents_max):
        whole = request_for(group, Slice(group.position, 0, count))
        return [] if whole is None else [whole]
    gaps = _gaps(count, sorted((part.start, part.stop) for part in scored))
    cuts = (cut for start, stop in gaps for cut in _cuts_of(group, start, stop, documents_max))
    asked = (request_for(group, Slice(group.position, *cut)) for cut in cuts)
    return [request for request in asked if request is not None]


def _gaps(count: int, covered: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at = 0
    for start, stop in covered:
        if at < start:
            yield at, start
        at = max(at, stop)
    if at < count:
        yield at, count


def _cuts_of(group: Group, start: int, stop: int, most: int | None) -> Iterator[tuple[int, int]]:
    if not group.firsts:
        yield from _cuts(start, stop, most)
        return
    new = [n for n in range(start, stop) if group.firsts[n] == n]
    for first, last in _cuts(0, len(new), most) if new else ():
        yield new[first] if first else start, new[last] if last < len(new) else stop


def _cuts(start: int, stop: int, most: int | None) -> Iterator[tuple[int, int]]:
    step = _step(stop - start, most)
    for at in range(start, stop, step):
        yield at, min(at + step, stop)


def _step(count: int, most: int | None) -> int:
    step = count if most is None else min(most, count)
    return step - step % BILLED_HUNDRED if BILLED_HUNDRED < step < count else step


def cuts(count: int, most: int | None) -> Iterator[tuple[int, int]]:
    """
    Where *count* documents are cut into requests of at most *most* each (None: no limit).
    """
    return _cuts(0, count, most)


def slices(count: int, most: int | None) -> int:
    """
    How many requests ask about *count* documents, of at most *most* each (None: no limit).
    """
    return -(-count // _step(count, most)) if count else 0


def request_for(group: Group, part: Slice) -> RerankRequest | None:
    """
    The request about the candidates of *part*; None if none of them can be sent.
    """
    held = group.documents[part.start : part.stop]
    if group.firsts:
        new = enumerate(group.firsts[part.start : part.stop], part.start)
        held = tuple(group.documents[n] if n == first else None for n, first in new)
    if None not in held:
        documents, indices = cast(tuple[Document, ...], held), _places(part.start, part.stop)
    else:
        there = [(n, d) for n, d in enumerate(held, part.start) if d is not None]
        documents, indices = tuple(d for _, d in there), tuple(n for n, _ in there)
    return RerankRequest(part, group.query, documents, indices) if documents else None


@lru_cache(maxsize=1024)
def _places(start: int, stop: int) -> tuple[int, ...]:
    """
    The indices of candidates that are all sent: for nearly all groups of a job the same few.
    """
    return tuple(range(start, stop))


def halves(group: Group, part: Slice) -> list[RerankRequest]:
    """
    Ask about a slice that was too large in two requests, cut at a multiple of a hundred if one is
    near. Empty if only one candidate of it can be sent: there is nothing to cut.
    """
    count = part.stop - part.start
    if count < 2:
        return []
    half = count // 2
    if count > BILLED_HUNDRED:
        half = max(BILLED_HUNDRED, half - half % BILLED_HUNDRED)
    bounds = ((part.start, part.start + half), (part.start + half, part.stop))
    asked = [r for bound in bounds if (r := request_for(group, Slice(part.position, *bound)))]
    # All that can be sent lies in one half: asked as it is, it would be as large as before.
    return halves(group, asked[0].slice) if len(asked) == 1 else asked


def scored(request: RerankRequest, reply: RerankReply) -> Scored:
    """
    Bring a reply's scores back to the candidates of its slice; what was not sent is UNSCORED.
    """
    part = request.slice
    if len(request.indices) == len(reply.scores) == part.stop - part.start:
        return Scored(part, reply.scores, reply.served)
    whole = [UNSCORED] * (part.stop - part.start)
    for index, score in zip(request.indices, reply.scores, strict=True):
        whole[index - part.start] = score
    return Scored(part, tuple(whole), reply.served)


def assembled(group: Group, parts: Sequence[Scored]) -> Ranked:
    """
    Put the scored slices of a group together; what no slice covers and is not known is UNSCORED.
    """
    return _completed(group, _joined(group, parts))


def _joined(group: Group, parts: Sequence[Scored]) -> Ranked:
    if len(parts) == 1 and len(parts[0].scores) == len(group.documents):
        whole = parts[0]
        _of(group, whole)
        scores = _for_all(group, whole.scores) if group.firsts else whole.scores
        return Ranked(group.position, scores, (Share(len(scores), whole.served),), group.cut)
    held = [UNSCORED] * len(group.documents)
    shares: list[Share] = []
    for part in sorted(parts, key=lambda scored: scored.slice.start):
        _of(group, part)
        held[part.slice.start : part.slice.stop] = part.scores
        if shares and shares[-1].served == part.served:
            shares.pop()
        shares.append(Share(part.slice.stop, part.served))
    if shares:
        shares[-1] = Share(len(held), shares[-1].served)
    if group.firsts:
        shares = _shares_for_all(group, shares)
    return Ranked(group.position, _for_all(group, held), tuple(shares), group.cut)


def _completed(group: Group, ranked: Ranked) -> Ranked:
    """
    Add the scores that were known before anybody was asked, each with whoever gave it.
    """
    known = group.known
    if known is None:
        return ranked
    asked, before = _by(ranked.shares), _by(known.shares)
    scores, by = list(ranked.scores), []
    for n, score in enumerate(known.scores):
        there = not isnan(score)
        scores[n] = score if there else scores[n]
        by.append(before(n) if there or not ranked.shares else asked(n))
    return Ranked(group.position, tuple(scores), tuple(_shares(by)), group.cut)


def _by(shares: Sequence[Share]) -> Callable[[int], Served]:
    """
    Who scored the candidate of an index.
    """
    stops = [share.stop for share in shares]
    return lambda index: shares[bisect_right(stops, index)].served


def _shares(by: Sequence[Served]) -> list[Share]:
    """
    The fewest shares that say who scored each candidate.
    """
    ends = [n for n in range(1, len(by) + 1) if by[n - 1 : n] != by[n : n + 1]]
    return [Share(end, by[end - 1]) for end in ends]


def _for_all(group: Group, scores: Sequence[float]) -> tuple[float, ...]:
    """
    Every candidate's score: the one of the first candidate with its document.
    """
    return tuple(scores[first] for first in group.firsts) if group.firsts else tuple(scores)


def _shares_for_all(group: Group, shares: Sequence[Share]) -> list[Share]:
    """
    Who scored every candidate, where *shares* say who scored the first ones with their documents.
    """
    return _shares([*map(_by(shares), group.firsts)]) if shares else []


def _of(group: Group, part: Scored) -> None:
    if part.slice.position != group.position:
        raise AssertionError(f"a slice of group {part.slice.position} in {group.position}")
