"""
How many tokens a text has at least and at most: what real tokenizers counted lies between.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.policy.characters import KINDS, tokens_between
from tests.laws import law

MEASURED = {
    "English": ("923 77", 0.2336, 0.2482),
    "German": ("916 70 12 0 0 2", 0.2467, 0.3106),
    "Spanish": ("927 58 15", 0.2360, 0.2986),
    "French": ("909 61 27 0 0 3", 0.2386, 0.3005),
    "Portuguese": ("909 57 33 0 0 0 0 0 1", 0.2498, 0.3225),
    "Turkish": ("861 72 65 0 0 2", 0.2970, 0.4456),
    "Russian": ("247 72 1 679 0 1", 0.2833, 0.3778),
    "Ukrainian": ("248 73 1 677", 0.3325, 0.4030),
    "Hindi": ("546 57 0 0 396", 0.2640, 0.6500),
    "Chinese": ("380 122 0 0 0 2 464 0 32", 0.6198, 0.7153),
    "Chinese, traditional": ("399 106 0 0 0 0 459 0 35", 0.6659, 0.7698),
    "Japanese": ("272 89 0 0 0 0 632 0 6", 0.5739, 0.8229),
    "Korean": ("412 126 0 0 0 0 0 461 1", 0.4582, 0.8099),
    "code": ("878 122", 0.2095, 0.2640),
    "SciFact's abstracts": ("956 44", 0.2063, 0.2523),
    "SciFact's claims": ("970 30", 0.2034, 0.2617),
}
"""
For each kind of text: of a thousand characters how many are of each of `KINDS`, in their order, and
the tokens for a character that were counted by vocabularies of 131,000 and of 32,000 (Mistral's, of
mistral-common 1.13.1). FastAPI's documents, 500 to 800 paragraphs each without their code; its
code; 600 abstracts and 300 claims of SciFact.
"""


@pytest.mark.parametrize(("shares", "few", "many"), MEASURED.values(), ids=[*MEASURED])
def test_what_real_tokenizers_counted_lies_between(shares: str, few: float, many: float) -> None:
    """
    The better vocabulary has no fewer than the least, the poorer one no more than the most.
    """
    each = zip(map(int, shares.split()), KINDS.values(), strict=False)
    low, high = (
        sum(values) / 1000
        for values in zip(*((n * k.tokens.low, n * k.tokens.high) for n, k in each), strict=True)
    )

    assert low <= few
    assert many <= high


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        pytest.param("", 0.0, 1.0, id="nothing"),
        pytest.param("a word", 1.2, 2.56, id="words"),
        pytest.param("1,2", 0.6, 2.5, id="digits and signs"),
        pytest.param("née", 0.9, 4.82, id="an accent"),
        pytest.param("да", 0.56, 2.06, id="Cyrillic"),
        pytest.param("日本", 1.2, 3.3, id="Japanese"),
        pytest.param("🙂", 0.7, 4.0, id="beyond the basic plane"),
        pytest.param("\ud83d", 0.6, 2.5, id="half a surrogate pair"),
    ],
)
def test_characters_count_by_their_kinds(text: str, low: float, high: float) -> None:
    """
    A token that is begun is one: the most is rounded up.
    """
    assert (low, high) == pytest.approx(tokens_between(text))


@law(100)
@given(st.text(), st.text())
def test_more_text_never_has_fewer_tokens(some: str, more: str) -> None:
    """
    Whatever is in it; and no token is shorter than a byte.
    """
    text, longer = tokens_between(some), tokens_between(some + more)

    assert 0 <= text.low <= text.high
    assert text.low <= longer.low + 1e-9
    assert text.high <= longer.high + 1e-9
    assert text.low <= len(some.encode("utf-8", "surrogatepass"))


def test_every_byte_that_can_begin_a_character_is_of_one_kind() -> None:
    """
    Those that follow in UTF-8 are of none: each character counts once.
    """
    first = b"".join(kind.first_bytes for kind in KINDS.values())

    assert sorted(first) == [*range(0x80), *range(0xC2, 0xF5)]
    assert all(kind.tokens.low < kind.tokens.high for kind in KINDS.values())
