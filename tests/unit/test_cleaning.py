"""
The last look at what a vendor said: neither the key nor a document's text goes any further.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    Document,
    Failure,
    FailureKind,
    RerankReply,
    RerankRequest,
    RichDocument,
    Served,
    Slice,
    Usage,
)
from batchrank.engine.scorer import WINDOW, cleaned, without_texts
from batchrank.wire.auth import Secret
from tests.laws import law

KEY = "sk-or-v1-0123456789abcdef"


def asking(query: str = "what is this", *documents: Document) -> RerankRequest:
    """
    A request of these texts.
    """
    held = documents or ("a short text",)
    return RerankRequest(Slice(0, 0, len(held)), query, held, tuple(range(len(held))))


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "documents", "expected"),
    [
        pytest.param(
            "document 3 is flagged: patient John Doe has it",
            ["The patient John Doe has it, too."],
            "document 3 is flagged:…",
            id="a quotation, from the space before it",
        ),
        pytest.param(
            "rejected ‘the private letter’ for violence",
            ["I read the private letter yesterday."],
            "rejected ‘…’ for violence",
            id="a quotation within words of the vendor's",
        ),
        pytest.param(
            "rate limit exceeded", ["another text"], "rate limit exceeded", id="nothing quoted"
        ),
        pytest.param("bad: a cat.", ["a cat"], "bad: ….", id="a short text, as a whole word"),
        pytest.param("concatenate", ["cat"], "concatenate", id="a short text within a word"),
        pytest.param("it is", ["it"], "it is", id="hardly a text"),
        pytest.param(
            'raw: {\\"text\\":\\"two\\nlines of text\\"}',
            ["two\nlines of text"],
            'raw: {\\"text\\":\\"…\\"}',
            id="as a string within a string",
        ),
        pytest.param(
            "first passage!! and 2nd passage!!",
            ["first passage!!", "2nd passage!!"],
            "… and …",
            id="two quotations",
        ),
        pytest.param("", ["a text"], "", id="no message"),
        pytest.param(
            "bad image https://x.example/patient-7.png",
            [RichDocument("look", "https://x.example/patient-7.png")],
            "bad image …",
            id="the address of an image",
        ),
        pytest.param(
            "bad text: confidential words",
            [RichDocument("confidential words", None)],
            "bad text: …",
            id="the text of a structure",
        ),
        pytest.param("für die Straße 🙂🙂 7", ["die Straße 🙂🙂"], "für … 7", id="any script"),
    ],
)
def test_passages_of_what_was_sent_are_taken_out(
    message: str, documents: list[Document], expected: str
) -> None:
    """
    Vendors quote what they reject; whatever is also in a text that was sent is left out.
    """
    assert expected == without_texts(message, asking("a query that is not quoted", *documents))


def test_the_query_is_a_text_too() -> None:
    """
    What people search for is nobody else's business either.
    """
    request = asking("symptoms of a rare disease")

    assert "flagged: …" == without_texts("flagged: symptoms of a rare disease", request)


@law(80)
@given(st.text("ab ", max_size=60), st.lists(st.text("ab ", max_size=40), min_size=1, max_size=4))
def test_no_window_of_a_text_is_left(message: str, held: list[str]) -> None:
    """
    No twelve characters that stand together in the result stand in a text; what is left is the
    message's own.
    """
    request = asking(held[0], *held[1:], "x")

    left = without_texts(message, request)

    for piece in left.split("…"):
        assert piece in message
        windows = {piece[at : at + WINDOW] for at in range(len(piece) - WINDOW + 1)}
        assert not any(window in text for window in windows for text in held)
    if "…" not in left:
        assert message == left


def test_a_long_message_over_many_documents_does_not_hold_up_the_loop() -> None:
    """
    400 characters against a thousand documents of 2 KB: a quarter of a second, where a loop over
    the letters takes more than a minute.
    """
    documents = [f"{n} " + "lorem ipsum dolor " * 110 for n in range(1_000)]
    request = asking("query", *documents)

    began = time.process_time()  # what others do meanwhile is not ours
    without_texts("nothing of this stands in any of them, whatever you read. " * 7, request)

    assert time.process_time() - began < 10.0


# --- keys -----------------------------------------------------------------------------------------

SECRET = Secret(KEY)


def test_a_failure_loses_the_key_wherever_it_stands() -> None:
    """
    In the message, the code, the request's id, the model, the provider.
    """
    failure = Failure(
        FailureKind.FATAL,
        f"key {KEY} is revoked",
        status=401,
        code=f"bad:{KEY}",
        retry_after_s=3.0,
        usage=Usage(cost_usd=0.5),
        served=Served(f"m-{KEY}", f"p-{KEY}"),
        request_id=KEY,
        reply_bytes=7,
        reply_sha256="ab",
    )

    found = cleaned(failure, asking(), SECRET)

    assert KEY not in repr(found)
    assert (
        Failure(
            FailureKind.FATAL,
            "key *** is revoked",
            status=401,
            code="bad:***",
            retry_after_s=3.0,
            usage=Usage(cost_usd=0.5),
            served=Served("m-***", "p-***"),
            request_id="***",
            reply_bytes=7,
            reply_sha256="ab",
        )
        == found
    )


def test_a_reply_loses_it_too() -> None:
    """
    Its scores stay as they are.
    """
    reply = RerankReply((0.5,), Served("m", f"by {KEY}"), Usage(1), request_id=f"gen-{KEY}")

    found = cleaned(reply, asking(), SECRET)

    assert RerankReply((0.5,), Served("m", "by ***"), Usage(1), request_id="gen-***") == found


@pytest.mark.parametrize("character", ["\x1b", "\x9b", "\n", "\r", "\x00", "\u202e"], ids=ascii)
def test_nothing_steers_a_terminal(character: str) -> None:
    """
    Escape sequences and their like are spaces wherever a vendor may put them.
    """
    word = f"a{character}[31mb"
    failure = Failure(FailureKind.UNKNOWN, word, code=word, served=Served(word, word))
    reply = RerankReply((0.5,), Served("m", word), request_id=word)

    for found in (cleaned(failure, asking(), SECRET), cleaned(reply, asking(), SECRET)):
        assert ascii(character)[1:-1] not in ascii(found)
        assert "a [31mb" in repr(found)


def test_a_key_that_a_cut_goes_through_is_redacted_first() -> None:
    """
    Half a key is a leak.
    """
    failure = Failure(FailureKind.FATAL, "." * 390 + KEY)

    found = cleaned(failure, asking(), SECRET)

    assert isinstance(found, Failure)
    assert "." * 390 + "***" == found.message


def test_a_reply_with_nothing_to_hide_is_passed_on_as_it_is() -> None:
    """
    The usual case costs nothing.
    """
    reply = RerankReply((0.5,), Served("m", "p"), Usage(1), request_id="gen-1")

    assert reply is cleaned(reply, asking(), SECRET)


@pytest.mark.parametrize("served", [None, Served("m")], ids=["nobody", "without a provider"])
def test_what_was_not_said_stays_unsaid(served: Served | None) -> None:
    """
    None is None, not a text.
    """
    failure = Failure(FailureKind.UNKNOWN, "reset", served=served)

    assert failure == cleaned(failure, asking(), SECRET)
