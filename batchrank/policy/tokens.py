"""
How many tokens a request will be counted as, before its reply says so: for a limit of tokens.

Owns the estimate from bytes, and how it learns. Nobody knows a provider's tokens beforehand: a
request is paced by the estimate, and what it was wrong by is booked when the reply tells. So the
mean is right whatever the estimate; that only decides how much is under way. Waits for nobody.

A request is measured as providers that limit tokens count it: the query once for every document
(Voyage: query x n + documents; `billing.tokens_most`).
"""

from __future__ import annotations

from batchrank.policy.billing import Sizes, tokens_most

BYTES_PER_TOKEN_FIRST = 3.0
"""
Where the estimate begins. English has four characters to a token (OpenAI's rule of thumb), code and
most other languages have fewer bytes: three is cautious.
"""

BYTES_PER_TOKEN_MIN, BYTES_PER_TOKEN_MAX = 1.0, 32.0
"""
What the estimate stays within. No token is shorter than a byte. Hardly any text has more than eight
to a token; four times that leaves room for who counts the query once, or cuts documents short.
"""

FRAME_TOKENS_MAX = 4096
"""The most that a provider adds to one document: a template around it, or its image."""

WEIGHT = 0.1
"""How much one reply counts: the last ten decide, more or less."""


class TokenGauge:
    """
    Estimates tokens from bytes, and learns from replies what a token is.
    """

    def __init__(self) -> None:
        self._tokens_per_byte = 1 / BYTES_PER_TOKEN_FIRST

    def estimate(self, sizes: Sizes) -> float:
        """
        The tokens that a request of these *sizes* is expected to count as; at least one a document.
        """
        return max(float(len(sizes.document_bytes)), tokens_most(sizes) * self._tokens_per_byte)

    def correct(self, sizes: Sizes, estimated: float, total_tokens: int | None) -> float:
        """
        Learn that a request booked with *estimated* tokens was counted as *total_tokens*; return
        what is left to book, in tokens, which may be negative.

        A reply that does not say (None, or 0 where tokens are not counted) leaves everything as it
        is. One that says more than can be is taken for the most that can be.
        """
        if total_tokens is None or total_tokens <= 0:
            return 0.0
        measured = tokens_most(sizes)
        frames = FRAME_TOKENS_MAX * max(1, len(sizes.document_bytes))
        tokens = min(float(total_tokens), float(measured + frames))
        if measured:
            seen = tokens / measured
            seen = min(max(seen, 1 / BYTES_PER_TOKEN_MAX), 1 / BYTES_PER_TOKEN_MIN)
            self._tokens_per_byte += WEIGHT * (seen - self._tokens_per_byte)
        return tokens - estimated
