"""
A scorer that costs next to nothing, for benchmarks and tests of everything but scores.

Owns numbers that look like scores and follow from the texts alone. Real ones come from whoever is
given to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

Score = Callable[[str, Sequence[str]], Sequence[float]]
"""What the server asks for scores: a query and its documents in, one number for each out."""

_MOST = 0xFFFF_FFFF


def hashed_scores(query: str, documents: Sequence[str]) -> list[float]:
    """
    A score from 0 to 1 for each document, from the bytes of *query* and document.
    """
    begun = crc32(query.encode("utf-8", "surrogatepass"))
    return [
        crc32(document.encode("utf-8", "surrogatepass"), begun) / _MOST for document in documents
    ]
