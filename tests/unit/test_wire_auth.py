"""
A key that does not show, and addresses that may be told one.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.errors import Exit, JobError
from batchrank.providers.base import KeyHeader
from batchrank.wire.auth import (
    Anonymous,
    Bearer,
    Secret,
    check_base_url,
    is_loopback,
    key_from_environment,
)

KEY = "sk-or-v1/0123+456=789"
keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=4, max_size=40)
texts = st.text(max_size=40)


def test_a_secret_is_not_shown() -> None:
    """
    Neither printed nor formatted; only `reveal` gives it.
    """
    secret = Secret(KEY)

    assert ["***"] * 4 == [repr(secret), str(secret), f"{secret}", f"{[secret]}"[1:-1]]
    assert KEY == secret.reveal()


@pytest.mark.parametrize(
    "spread",
    [
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(json.dumps, id="json"),
    ],
)
def test_a_secret_does_not_spread(spread: Callable[[Secret], object]) -> None:
    """
    What travels to another process or file would be readable there.
    """
    with pytest.raises(TypeError):
        spread(Secret(KEY))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(KEY, id="as it is"),
        pytest.param(quote(KEY, safe=""), id="percent-encoded"),
        pytest.param(quote(KEY, safe="").lower(), id="percent-encoded in small letters"),
        pytest.param(quote(KEY), id="percent-encoded but for slashes"),
        pytest.param(quote_plus(KEY), id="as in a form"),
        pytest.param(json.dumps(KEY)[1:-1], id="as in JSON"),
        pytest.param(KEY.replace("/", "\\/"), id="as in JSON by PHP"),
        pytest.param(KEY.replace("=", "\\u003d").replace("+", "\\u002b"), id="as in JSON by Java"),
        pytest.param("".join(f"\\u{ord(c):04x}" for c in KEY), id="as in JSON, all escaped"),
    ],
)
def test_redaction_finds_every_shape_of_a_key(shape: str) -> None:
    """
    An error that repeats the request repeats the key, in the spelling of its own format.
    """
    secret = Secret(KEY)

    assert "key *** refused" == secret.redact(f"key {shape} refused")


@given(keys, texts, texts)
def test_nothing_of_a_key_remains(key: str, before: str, after: str) -> None:
    """
    Whatever stands around it, as text, in a URL or in JSON.
    """
    secret = Secret(key)
    for spell in (str, quote, lambda text: quote(text, safe=""), json.dumps):
        assert key not in secret.redact(before + spell(key) + after).replace("***", "")


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        pytest.param("k", "batchrank-rehearsal", "batchrank-rehearsal", id="in a name"),
        pytest.param("abc", "key abc refused", "key *** refused", id="as it is"),
        pytest.param("abc", '{"key":"abc"}', '{"key":"***"}', id="in JSON"),
        pytest.param("a=b", "key=a%3Db&x=1", "key=***&x=1", id="in a URL"),
        pytest.param("test", "the latest", "the la***", id="not so short"),
    ],
)
def test_a_short_key_is_looked_for_as_a_word(key: str, text: str, shown: str) -> None:
    """
    Servers of one's own take any: what is part of other words by chance must not change the names
    that stand in the output.
    """
    assert shown == Secret(key).redact(text)


@given(keys, texts)
def test_a_text_without_the_key_is_left_alone(key: str, text: str) -> None:
    """
    Redaction changes nothing else.
    """
    secret = Secret(f"{key}-never-in-the-text-0123456789")

    assert text == secret.redact(text)


def test_bearer_is_one_header() -> None:
    """
    And it shows no more than its secret does.
    """
    bearer = Bearer(Secret(KEY))

    assert (("authorization", f"Bearer {KEY}"),) == bearer.headers()
    assert KEY not in repr(bearer)


def test_a_vendor_may_want_its_key_in_another_header() -> None:
    """
    By its name, and bare where nothing is to stand before it.
    """
    keyed = Bearer(Secret(KEY), KeyHeader("api-key", ""))

    assert (("api-key", KEY),) == keyed.headers()
    assert "***" == keyed.redact(KEY)


def test_where_no_key_goes_plain_http_will_do() -> None:
    """
    But for where clouds serve credentials, and addresses that can be read in two ways.
    """
    assert check_base_url("http://tei.internal:8080", keyed=False) is None
    assert check_base_url("http://169.254.169.254/x", keyed=False)
    assert check_base_url("http://u:p@tei.internal", keyed=False)
    assert check_base_url("http://2852039166", keyed=False)


def test_nobody_signs_for_a_server_of_ones_own() -> None:
    """
    No key, no header, nothing to redact.
    """
    nobody = Anonymous()

    assert ((), "text") == (nobody.headers(), nobody.redact("text"))


# --- keys in the environment ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [KEY, f"{KEY}\n", f"{KEY}\r\n"])
def test_a_key_comes_from_the_environment(value: str) -> None:
    """
    One newline at its end came with the file it was read from.
    """
    assert KEY == key_from_environment("SCORER_KEY", {"SCORER_KEY": value}).reveal()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({}, "the environment variable SCORER_KEY is not set", id="not set"),
        pytest.param({"SCORER_KEY": ""}, "is empty", id="empty"),
        pytest.param({"SCORER_KEY": "\n"}, "is empty", id="a newline"),
        pytest.param({"SCORER_KEY": "Bearer canary"}, "a space", id="a space"),
        pytest.param({"SCORER_KEY": "canary\n\n"}, "a space", id="two newlines"),
        pytest.param({"SCORER_KEY": "canary\r\nX: y"}, "a space", id="a header"),
        pytest.param({"SCORER_KEY": "canary\x00"}, "a space", id="a NUL"),
        pytest.param({"SCORER_KEY": "canary…"}, "another character", id="not ASCII"),
        pytest.param({"SCORER_KEY": '"canary"'}, "quotation marks", id="quoted"),
        pytest.param({"SCORER_KEY": "canary" * 5000}, "too large", id="too large"),
    ],
)
def test_what_cannot_be_a_key_is_refused(environ: dict[str, str], message: str) -> None:
    """
    Before anything is paid, with the setting, a remedy, and without the value.
    """
    with pytest.raises(JobError) as refused:
        key_from_environment("SCORER_KEY", environ)

    [problem] = refused.value.problems
    assert message in problem.message
    assert ("provider.key_env", "export SCORER_KEY=…") == (problem.key, problem.remedy)
    assert refused.value.exit_code is Exit.USAGE
    assert "canary" not in str(refused.value)


def test_a_key_in_the_place_of_a_name_is_not_repeated() -> None:
    """
    Some keys would do as names of variables; names are written in capitals.
    """
    with pytest.raises(JobError) as refused:
        key_from_environment("hf_canary0123", {})

    assert "canary" not in str(refused.value)


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://openrouter.ai/api/v1",
        "https://openrouter.ai:8443",
        "https://10.0.0.7/rerank",
        "https://[2001:db8::1]/v1",
        "http://localhost:8080/v1",
        "http://127.0.0.1:8080",
        "http://127.9.9.9/",
        "http://[::1]:8080/v1",
        "https://xn--zrich-kva.example/",
    ],
)
def test_an_address_that_may_be_told_a_key(url: str) -> None:
    """
    Anywhere by https, this machine also by http.
    """
    assert check_base_url(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        pytest.param("", "expected https://", id="empty"),
        pytest.param("openrouter.ai/api/v1", "expected https://", id="no scheme"),
        pytest.param("https:///v1", "expected https://", id="no host"),
        pytest.param("ftp://openrouter.ai", "expected https://", id="another scheme"),
        pytest.param("file:///etc/passwd", "expected https://", id="a file"),
        pytest.param("http://openrouter.ai/api/v1", "unencrypted", id="http"),
        pytest.param("http://10.0.0.7/", "unencrypted", id="http in a private network"),
        pytest.param("http://0.0.0.0/", "unencrypted", id="http to no address"),
        pytest.param("http://localhost.example.com/", "unencrypted", id="not this machine"),
        pytest.param("https://u:canary@openrouter.ai/", "password", id="userinfo"),
        pytest.param("https://canary@openrouter.ai/", "password", id="user"),
        pytest.param("https://@openrouter.ai/", "password", id="an empty user"),
        pytest.param("https://openrouter.ai/?key=canary", "before any ?", id="query"),
        pytest.param("https://openrouter.ai/?", "before any ?", id="empty query"),
        pytest.param("https://openrouter.ai/#x", "before any ?", id="fragment"),
        pytest.param("https://169.254.169.254/", "link-local", id="metadata"),
        pytest.param("https://[fe80::1]/", "link-local", id="link-local, IPv6"),
        pytest.param("https://[fe80::1%25eth0]/", "link-local", id="with a zone"),
        pytest.param("https://[::ffff:169.254.169.254]/", "link-local", id="mapped into IPv6"),
        pytest.param("https://[fd00:ec2::254]/", "link-local", id="metadata, IPv6"),
        pytest.param("https://metadata.google.internal/", "link-local", id="metadata by name"),
        pytest.param("https://Metadata.Google.Internal./", "link-local", id="and in full"),
        pytest.param("https://2852039166/", "a number for a host", id="a decimal number"),
        pytest.param("https://0xA9FEA9FE/", "a number for a host", id="a hexadecimal number"),
        pytest.param("https://169.16689662/", "a number for a host", id="a short form"),
        pytest.param("https://0251.0376.0251.0376/", "a number for a host", id="octal"),
        pytest.param("https://open router.ai/", "a space", id="space"),
        pytest.param("https://openrouter.ai/\n", "a space", id="newline"),
        pytest.param("https://openrouter.ai\\@evil.example/", "a space", id="backslash"),
        pytest.param("https://zürich.example/", "a space", id="not ASCII"),
        pytest.param("https://openrouter.ai:0/", "port 0", id="port 0"),
        pytest.param("https://openrouter.ai:99999/", "not a URL", id="no port"),
        pytest.param("https://openrouter.ai:x/", "not a URL", id="port x"),
        pytest.param("https://[::1/", "not a URL", id="half an address"),
    ],
)
def test_an_address_that_may_not_be_told_a_key(url: str, problem: str) -> None:
    """
    The problem is told, the URL is not: there may be a password in it.
    """
    told = check_base_url(url)

    assert told is not None
    assert problem in told
    assert "canary" not in told


@given(st.text())
def test_any_text_is_answered(text: str) -> None:
    """
    Garbage is a problem, not an exception.
    """
    for url in (text, f"https://{text}", f"https://{text}/v1"):
        told = check_base_url(url)

        assert told is None or told


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST.", True),
        ("127.255.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_this_machine_is_known_by_its_addresses(host: str, expected: bool) -> None:
    """
    By the one name, and by nothing that only looks like it.
    """
    assert expected is is_loopback(host)
