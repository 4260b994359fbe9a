"""
The port through which the engine asks for scores, and its implementation for vendors on the wire.

Owns the last look at everything a vendor said before the engine sees it: no key and no document's
text leaves this module. Never retries, waits or judges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from batchrank.domain import (
    Answer,
    Document,
    Failure,
    RerankReply,
    RerankRequest,
    Served,
)
from batchrank.providers.base import HttpReply, Onward, Provider, later_page
from batchrank.wire.auth import Redacts
from batchrank.wire.exchange import Wire


class Scorer(Protocol):
    """
    Scores one request. Returns what happened; raises only for bugs.
    """

    async def score(self, request: RerankRequest, /) -> Answer:
        """
        Ask once.
        """


class HttpScorer:
    """
    A vendor's translation, and the wire. *wall* is seconds since the epoch; *one_more* hears of
    every page of a reply that is asked for.
    """

    def __init__(
        self,
        provider: Provider,
        wire: Wire,
        secret: Redacts,
        wall: Callable[[], float],
        one_more: Callable[[], None],
    ) -> None:
        self._provider = provider
        self._wire = wire
        self._secret = secret
        self._wall = wall
        self._one_more = one_more

    async def score(self, request: RerankRequest, /) -> Answer:
        """
        Ask once over the wire.
        """
        reply = await self._wire.exchange(self._provider.call(request))
        if isinstance(reply, Failure):
            return reply  # in the wire's own words, which it has cleaned
        answer = self._provider.read(request, reply, self._wall())
        while isinstance(answer, Onward):
            answer = await self._next_page(answer)
        return cleaned(answer, request, self._secret)

    async def _next_page(self, onward: Onward) -> Answer | Onward:
        """
        Ask for one more page of an answer. The first may have been billed, so that a page which is
        never sent leaves the outcome unknown.
        """
        self._one_more()
        reply = await self._wire.exchange(onward.call)
        if isinstance(reply, HttpReply):
            return onward.read(reply, self._wall())
        return later_page(reply)


def cleaned(answer: Answer, request: RerankRequest, secret: Redacts) -> Answer:
    """
    The answer without the key, wherever it was repeated, without passages of the texts sent, and
    without characters that a terminal obeys. Redacted first and cut after: half a key is a leak.

    The model of a reply stays as it is: it is the one that was asked for, which no key is part of.
    """
    if isinstance(answer, RerankReply):
        provider = _name(answer.served.provider, secret)
        request_id = _name(answer.request_id, secret)
        if (provider, request_id) == (answer.served.provider, answer.request_id):
            return answer
        return replace(
            answer, served=replace(answer.served, provider=provider), request_id=request_id
        )
    message = secret.redact(answer.message)[:MESSAGE_CHARS_MAX]
    served = answer.served
    return replace(
        answer,
        message=_printable(without_texts(message, request)),
        code=answer.code and without_texts(_name(answer.code, secret) or "", request),
        request_id=_name(answer.request_id, secret),
        served=served and Served(_name(served.model, secret) or "", _name(served.provider, secret)),
    )


def shown(words: str, secret: Redacts) -> str:
    """
    What a vendor said when no text was sent to it, as a person may see it.
    """
    return _printable(secret.redact(words)[:WORDS_CHARS_MAX])


WORDS_CHARS_MAX = 1000
MESSAGE_CHARS_MAX = 400
NAME_CHARS_MAX = 200


def _name(text: str | None, secret: Redacts) -> str | None:
    return text and _printable(secret.redact(text)[:NAME_CHARS_MAX])


def _printable(text: str) -> str:
    """
    *text* with spaces for line breaks, escape sequences and their like.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


WINDOW = 12
"""So many characters that also stand in a text that was sent are taken for a quotation of it."""

WORD = 3
"""A text that is shorter than the window, but not than this, is looked for as a whole."""


def without_texts(message: str, request: RerankRequest) -> str:
    """
    *message* without passages of the query or the documents (vendors quote what they reject).
    """
    texts = [request.query, *(_text(document) for document in request.documents)]
    if "\\" in message:
        # An upstream's body as a string in the body: its quotations are escaped once more.
        texts += [json.dumps(text)[1:-1] for text in texts]
    quoted = [False] * len(message)
    for at in range(len(message) - WINDOW + 1):
        window = message[at : at + WINDOW]
        if any(window in text for text in texts):
            quoted[at : at + WINDOW] = [True] * WINDOW
    for text in {text.strip() for text in texts if len(text) < WINDOW}:
        if len(text) >= WORD and text in message:
            for found in re.finditer(rf"(?<!\w){re.escape(text)}(?!\w)", message):
                quoted[slice(*found.span())] = [True] * len(text)
    kept = []
    for at, character in enumerate(message):
        if not quoted[at]:
            kept.append(character)
        elif not kept or kept[-1] != "…":
            kept.append("…")
    return "".join(kept)


def _text(document: Document) -> str:
    if isinstance(document, str):
        return document
    return f"{document.text or ''}\n{document.image or ''}"
