"""
BM25 over one group: the documents of a request are the whole collection.

Owns the formula, its constants and how texts become words. Scores are finite, never negative, and a
pure function of query and documents; a document without any word of the query gets 0.

Never sees another group: scores of two requests are not comparable, least of all those of two
slices of one group.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from math import log

from batchrank.domain import Answer, RerankReply, RerankRequest, Served, Usage, text_of

K1 = 1.2
"""How soon repetitions of a word stop counting; 1.2 to 2 is usual (Robertson and Zaragoza)."""

B = 0.75
"""How much a long document is held against itself: 0 not at all, 1 in proportion."""

SERVED = Served("lexical-bm25", "batchrank")
"""Who scored, in the words of a reply."""

_words = re.compile(r"\w+").findall

_ASCII_WORDS = "".join(c.lower() if c.isalnum() or c == "_" else " " for c in map(chr, range(128)))
"""What stands for each ASCII character: its lower case, or a space where a word ends."""


def words(text: str) -> list[str]:
    """
    The words of *text* in lower case: runs of letters, digits and underscores of any script.
    """
    if text.isascii():
        return text.translate(_ASCII_WORDS).split()  # the same words, in a third of the time
    # NFKC makes one letter of a letter and its accent, and plain letters of ligatures and of those
    # in full width.
    return _words(unicodedata.normalize("NFKC", text).lower())


def scores(query: str, documents: Sequence[str]) -> list[float]:
    """
    The BM25 score of each document, in the order given.

    S. Robertson and H. Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009),
    eq. 3.15, summed over the query's words with repetitions:
    idf · tf · (k1 + 1) / (tf + k1 · (1 - b + b · length / mean length)), where
    idf = ln(1 + (N - n + 0.5) / (n + 0.5)) for a word in n of N documents: the 1 within the
    logarithm is Lucene's, and keeps a word that stands in most of them from counting against them.
    """
    asked = Counter(words(query))
    tokens = [words(document) for document in documents]
    found = [Counter([token for token in line if token in asked]) for line in tokens]
    weights = _weights(asked, found)
    mean = sum(map(len, tokens)) / max(1, len(tokens)) or 1.0
    return [
        _score(counts, weights, K1 * (1 - B + B * len(line) / mean))
        for counts, line in zip(found, tokens, strict=True)
    ]


def _weights(asked: Mapping[str, int], found: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """
    What each word of the query is worth: its idf, its repetitions in the query, and k1 + 1.
    """
    holding = Counter(word for counts in found for word in counts)
    total = len(found)
    return {
        word: times * (K1 + 1) * log(1 + (total - holding[word] + 0.5) / (holding[word] + 0.5))
        for word, times in asked.items()
    }


def _score(counts: Mapping[str, int], weights: Mapping[str, float], saturation: float) -> float:
    # One after the other in the query's order, not with `sum`: how that rounds depends on the
    # version of Python, and scores must not depend on anything but the texts.
    score = 0.0
    for word, weight in weights.items():
        if word in counts:
            score += weight * counts[word] / (counts[word] + saturation)
    return score


class LexicalScorer:
    """
    The embedded default: scores requests in process, with `scores`.

    It holds the event loop while it computes: 0.1 ms for 20 documents of 200 characters, 3 to 4 ms
    for 100 of 1,500.
    """

    async def score(self, request: RerankRequest) -> Answer:
        """
        The scores of *request*, for nothing. An image is not looked at.
        """
        texts = [text_of(document) for document in request.documents]
        return RerankReply(tuple(scores(request.query, texts)), SERVED, Usage(cost_usd=0.0))
