"""
What to ask about a group: nothing, one request, or several.

Owns which candidates go into which request and how scores come back to their candidates. Knows no
provider: what a provider takes at most is an argument (`capacity.Bounds`).

A candidate whose document the group has before (`Group.firsts`) is in no request. In its slice, and
in what the ledger keeps of that, it has no score; when the group is assembled it gets the first
one's. A document whose score is known (`Group.known`) is in no request either, and the outcome has
the score that is known.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
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
from batchrank.policy.billing import DOCUMENTS_PER_UNIT
from batchrank.policy.capacity import Bounds, Load, loads


class TooLargeError(Exception):
    """
    A group, or one candidate of it, is more than a request may hold: nobody need be asked.
    """


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


def requests(group: Group, bounds: Bounds, scored: Sequence[Slice] = ()) -> list[RerankRequest]:
    """
    The few requests within *bounds* that are still to be asked about a group of which the slices
    *scored* have their scores.

    Candidates that cannot be sent are in no request; a slice of nothing else makes none. Neither
    they nor those that repeat an earlier one count: a slice with some is longer.

    Raises:
        TooLargeError: it cannot be asked about within *bounds*.
    """
    count = len(group.documents)
    if not scored and bounds.surely_hold(group.query, group.documents):
        whole = request_for(group, Slice(group.position, 0, count))
        return [] if whole is None else [whole]
    gaps = _gaps(count, sorted((part.start, part.stop) for part in scored))
    return [request for gap in gaps for request in _cut(group, *gap, bounds)]


def _gaps(count: int, covered: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    at = 0
    for start, stop in covered:
        if at < start:
            yield at, start
        at = max(at, stop)
    if at < count:
        yield at, count


def _cut(group: Group, start: int, stop: int, bounds: Bounds) -> list[RerankRequest]:
    """
    The requests about `start <= index < stop`, each within *bounds*.

    Raises:
        TooLargeError: as in `requests`.
    """
    sent = _sent(group, start, stop)
    if not bounds.splits:
        _check_whole(group, sent, bounds)
        return _asked(group, start, stop, ())
    evenly = _even(len(sent), bounds)
    cuts = [piece for cut in evenly for piece in _packed(group, sent, cut, bounds)]
    return _asked(group, start, stop, [sent[first] for first, _ in cuts[1:]])


def within(group: Group, part: Slice, bounds: Bounds) -> list[RerankRequest]:
    """
    The few requests within *bounds* that ask what one about *part* would.

    Raises:
        TooLargeError: as in `requests`.
    """
    return _cut(group, part.start, part.stop, bounds)


def _sent(group: Group, start: int, stop: int) -> list[int]:
    """
    Which of these candidates are sent.
    """
    documents, firsts = group.documents, group.firsts
    return [
        n for n in range(start, stop) if documents[n] is not None and (not firsts or firsts[n] == n)
    ]


def documents_sent(group: Group) -> int:
    """
    How many of a group's documents are sent if it is asked about.
    """
    return len(_sent(group, 0, len(group.documents)))


def _asked(group: Group, start: int, stop: int, inside: Sequence[int]) -> list[RerankRequest]:
    """
    The requests about `start <= index < stop`, cut at the indices *inside*.
    """
    ends = pairwise((start, *inside, stop))
    asked = (request_for(group, Slice(group.position, *cut)) for cut in ends)
    return [request for request in asked if request is not None]


def _even(count: int, bounds: Bounds) -> Iterator[tuple[int, int]]:
    """
    The fewest cuts by number: at hundreds where these are billed, else all of nearly one length.
    """
    step = _step(count, bounds)
    if bounds.hundreds:
        yield from ((at, min(at + step, count)) for at in range(0, count, step or 1))
    else:
        yield from _alike(count, requests_needed(count, bounds))


def _alike(count: int, number: int) -> Iterator[tuple[int, int]]:
    return ((count * n // number, count * (n + 1) // number) for n in range(number))


def _step(count: int, bounds: Bounds) -> int:
    return _hundreds(min(bounds.documents_max or count, count), count, bounds)


def _hundreds(step: int, count: int, bounds: Bounds) -> int:
    """
    So many of *count* documents, or the whole hundreds in them if others are left and it matters.
    """
    if bounds.hundreds and DOCUMENTS_PER_UNIT < step < count:
        return step - step % DOCUMENTS_PER_UNIT
    return step


def _packed(
    group: Group, sent: Sequence[int], cut: tuple[int, int], bounds: Bounds
) -> list[tuple[int, int]]:
    """
    A cut once more, by weight, if it is too heavy.

    Raises:
        TooLargeError: one document of it is too heavy by itself.
    """
    start, stop = cut
    documents = _documents(group, sent[start:stop])
    if bounds.surely_hold(group.query, documents) or bounds.hold(group.query, documents):
        return [cut]
    weighed = loads(group.query, documents, bounds)
    for place in range(len(documents)):
        if over := [load.bound for load in weighed if load.refuses(place, place + 1)]:
            index = sent[start + place]
            raise TooLargeError(f"the candidate at index {index}, with the query: {_more(over[0])}")
    filled = list(_filled(len(documents), weighed, bounds))
    alike = list(_alike(len(documents), len(filled)))
    fits = all(load.holds(*piece) for load in weighed for piece in alike)
    chosen = alike if fits and not bounds.hundreds else filled
    return [(start + first, start + last) for first, last in chosen]


def _filled(count: int, weighed: Sequence[Load], bounds: Bounds) -> Iterator[tuple[int, int]]:
    """
    As many documents in each request as go.
    """
    at = 0
    while at < count:
        reach = min((load.reach(at) for load in weighed), default=count)
        end = at + _hundreds(max(1, reach - at), count - at, bounds)
        yield at, end
        at = end


def _check_whole(group: Group, sent: Sequence[int], bounds: Bounds) -> None:
    """
    Raises:
        TooLargeError: these candidates do not go into one request, and may not be cut apart.
    """
    documents = _documents(group, sent)
    if not sent or bounds.surely_hold(group.query, documents):
        return
    weighed = loads(group.query, documents, bounds)
    over = [load.bound for load in weighed if load.refuses(0, len(sent))]
    if bounds.documents_max is not None and len(sent) > bounds.documents_max:
        over.insert(0, f"{bounds.documents_max:,} documents")
    if over:
        raise TooLargeError(f"its {len(sent):,} documents: {_more(over[0])}, and {NOT_CUT}")


NOT_CUT = "pairs are not known to be scored independently (provider.splits = true says they are)"


def _more(bound: str) -> str:
    return f"more than the {bound} that one request may hold"


def _documents(group: Group, sent: Sequence[int]) -> list[Document]:
    return [cast(Document, group.documents[n]) for n in sent]


def cuts(count: int, bounds: Bounds) -> Iterator[tuple[int, int]]:
    """
    Where *count* documents are cut into requests, by their number alone.
    """
    if bounds.splits:
        yield from _even(count, bounds)
    elif count:
        yield 0, count


def pieces(query: str, documents: Sequence[Document], bounds: Bounds) -> list[tuple[int, int]]:
    """
    Where a group that sends all of *documents* is cut into requests, as `requests` cuts it; empty
    if its texts do not let it be asked about.
    """
    if not bounds.weighs:
        return [*cuts(len(documents), bounds)]
    try:
        asked = requests(Group(0, "", query, (*documents,)), bounds)
    except TooLargeError:
        return []
    return [(request.slice.start, request.slice.stop) for request in asked]


def requests_needed(count: int, bounds: Bounds) -> int:
    """
    How many requests ask about *count* documents, by their number alone.
    """
    return -(-count // _step(count, bounds)) if count else 0


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


def smaller(group: Group, part: Slice, bounds: Bounds) -> list[RerankRequest]:
    """
    Ask about what was too large in several requests: within *bounds*, or in two halves if it was
    within these already, cut at a hundred where these are billed and one is near.

    Empty if that cannot be: only one candidate of it can be sent.
    """
    sent = _sent(group, part.start, part.stop)
    if len(sent) < 2:
        return []
    try:
        asked = _cut(group, part.start, part.stop, bounds)
    except TooLargeError:
        return []
    if len(asked) > 1:
        return asked
    half = _hundreds(len(sent) // 2, len(sent), bounds)
    if bounds.hundreds and half < DOCUMENTS_PER_UNIT < len(sent):
        half = DOCUMENTS_PER_UNIT
    return _asked(group, part.start, part.stop, [sent[half]])


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
