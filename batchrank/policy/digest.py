"""
What makes two requests the same: the content key of a group, by which its scores can be reused, and
that of each of its pairs, by which one score can.

Owns the encoding that is digested. It keeps every boundary (no two different groups are written
alike) and every character as it is: texts are normalised in no way. A digest is of two halves, so
that what is asked can be known where nobody knows who is asked. Compares nothing, keeps nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from struct import pack
from typing import Any

from batchrank.domain import Document, RichDocument

DIGEST_BYTES = 16
"""Of SHA-256, which processors compute: among 10^9 groups two are alike by chance once in 10^20."""

HEAD = b"batchrank content 1\n"
"""What every encoding begins with; another encoding has another head."""

PAIR_HEAD = b"batchrank pair 1\n"
"""The same for a query with one document: no pair has the key of a group."""

NOT_SENT, STRUCTURED = -1, -2
"""Stand for the length of a document that is not sent, and of one that has an image."""


def content_of(query: str, documents: Sequence[Document | None]) -> bytes:
    """
    The digest of what is asked: the query, and the documents in their order.

    Digested are, all numbers little-endian int64: the number of documents, the query's length in
    bytes of UTF-8, the query, the length of each document, the texts. After them comes for each
    document with an image: the lengths of its text and image, its text, its image.
    """
    asked = _bytes(query)
    texts = [_bytes(document) for document in documents if isinstance(document, str)]
    held = iter(texts)
    lengths = [len(next(held)) if isinstance(d, str) else _mark(d) for d in documents]
    numbers = pack(f"<{len(lengths)}q", *lengths)
    rich = (_structured(d) for d in documents if isinstance(d, RichDocument))
    pieces = (HEAD, head_of(len(documents), len(asked)), asked, numbers, *texts, *rich)
    return sha256(b"".join(pieces)).digest()[:DIGEST_BYTES]


def pairs_of(query: str, documents: Sequence[Document | None]) -> list[bytes | None]:
    """
    The digest of the query with each of the documents; None for one that is not sent.

    Encoded as `content_of` does a group of one document, behind a head of its own.
    """
    asked = _bytes(query)
    begun = sha256(PAIR_HEAD + head_of(1, len(asked)) + asked)
    return [None if document is None else _pair(begun.copy(), document) for document in documents]


def _pair(digesting: Any, document: Document) -> bytes:
    if isinstance(document, str):
        text = _bytes(document)
        digesting.update(pack("<q", len(text)) + text)
    else:
        digesting.update(pack("<q", STRUCTURED) + _structured(document))
    return digesting.digest()[:DIGEST_BYTES]  # type: ignore[no-any-return] # hashlib names no class


def head_of(documents: int, query_bytes: int) -> bytes:
    """
    The two numbers that stand before the query.
    """
    return pack("<2q", documents, query_bytes)


def _mark(document: RichDocument | None) -> int:
    return NOT_SENT if document is None else STRUCTURED


def _structured(document: RichDocument) -> bytes:
    held = (document.text, document.image)
    parts = [b"" if part is None else _bytes(part) for part in held]
    lengths = (NOT_SENT if part is None else len(b) for part, b in zip(held, parts, strict=True))
    return pack("<2q", *lengths) + b"".join(parts)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def digest_of(settings: bytes, content: bytes) -> bytes:
    """
    The digest of a request: of who is asked and how, digested as *settings*, and of what is asked.
    """
    return sha256(settings + content).digest()[:DIGEST_BYTES]
