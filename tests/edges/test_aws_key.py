"""
Requests signed for AWS: what a server makes of the bytes, and where the credentials come from.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import RerankRequest, Slice
from batchrank.errors import JobError
from batchrank.providers import VENDORS
from batchrank.providers.base import HttpCall, HttpReply, Settings
from batchrank.wire.aws import AwsKey
from batchrank.wire.failures import ClockOff, KeyNotRenewed
from batchrank.wire.routes import Route, parsed
from batchrank.wire.transport import _head
from tests.aws import signed_rightly
from tests.laws import law

ID, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "to/ken+0123456789=="
SCOPE = ("us-east-1", "bedrock")
JSON = (("accept", "application/json"), ("content-type", "application/json"))


def key(*found: Any, **clocks: Callable[[], float]) -> AwsKey:
    """
    Credentials as found: the first ones, and those that are found when these are refused.
    """
    left = list(found)
    return AwsKey("bedrock", "us-east-1", resolve=lambda: left.pop(0), **clocks)


def arrived(call: HttpCall, signer: AwsKey) -> tuple[str, dict[str, str]]:
    """
    The first line and the headers of a call as they are on the wire.
    """
    lines = tuple({**dict(call.headers), **dict(signer.lines(call))}.items())
    head = _head(call.method, Route(parsed(call.url, "the address")), lines).decode()
    first, *rest = f"{head}{len(call.body)}".split("\r\n")
    named = (line.partition(": ") for line in rest)
    return first.removesuffix(" HTTP/1.1") + " HTTP/1.1", {name: value for name, _, value in named}


def is_signed(call: HttpCall, signer: AwsKey, secret: str = SECRET) -> bool:
    """
    Tell whether a server would take the call.
    """
    line, headers = arrived(call, signer)
    return signed_rightly(line, headers, call.body, secret, SCOPE)


def test_a_server_knows_the_signature_that_aws_published() -> None:
    """
    `get-vanilla` of AWS's test suite: whoever checks here checks as AWS does.
    """
    signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    credential = f"{ID}/20150830/us-east-1/service/aws4_request"
    signed = f"SignedHeaders=host;x-amz-date, Signature={signature}"
    headers = {
        "host": "example.amazonaws.com",
        "x-amz-date": "20150830T123600Z",
        "authorization": f"AWS4-HMAC-SHA256 Credential={credential}, {signed}",
    }
    scope = ("us-east-1", "service")

    assert signed_rightly("GET / HTTP/1.1", headers, b"", SECRET, scope)
    assert not signed_rightly("GET /x HTTP/1.1", headers, b"", SECRET, scope)
    assert not signed_rightly("GET / HTTP/1.1", headers, b"x", SECRET, scope)


hosts = st.sampled_from(
    (
        *("https://bedrock-runtime.us-east-1.amazonaws.com", "https://Vpce-1.Example.com:8443"),
        *("http://127.0.0.1:8080", "http://[::1]:80", "https://h.example:443", "http://localhost"),
    )
)
texts = st.text("abcXYZ019-._~:%/@!$&'()*+,;=", max_size=30).map(lambda text: f"/{text}")
# What a server makes of steps that are empty, or dots, is not asked for.
paths = texts.filter(lambda path: "//" not in path and "/." not in path)
queries = st.sampled_from(("", "?b=2&a=1", "?a", "?a=%3A&a=%2F"))


@law(200)
@given(hosts, paths, queries, st.binary(max_size=200), st.sampled_from((TOKEN, None)))
def test_what_is_sent_is_what_is_signed(
    host: str, path: str, query: str, body: bytes, token: str | None
) -> None:
    """
    Whatever stands in the address, byte for byte, and nobody else's key makes that signature.
    """
    call = HttpCall("POST", f"{host}{path}{query}", JSON, body)
    signer = key(Credentials(ID, SECRET, token))

    assert is_signed(call, signer)
    assert not is_signed(call, signer, SECRET.lower())
    assert token == dict(signer.lines(call)).get("x-amz-security-token")


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
MODELS = (
    *("cohere.rerank-v3-5:0", "amazon.rerank-v1:0"),
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456",
)


@pytest.mark.parametrize("name", ["bedrock", "bedrock-rerank"])
@law(40)
@given(
    query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=5), model=st.sampled_from(MODELS)
)
def test_every_call_of_bedrock_is_signed(
    name: str, query: str, documents: list[str], model: str
) -> None:
    """
    With any texts and any form of a model's name.
    """
    vendor, count = VENDORS[name], len(documents)
    options = vendor.options.model_validate({"region": "us-east-1"})
    provider = vendor.make(Settings(model, vendor.base_url, None, options))
    request = RerankRequest(Slice(0, 0, count), query, tuple(documents), tuple(range(count)))
    call = provider.call(request)
    headers = tuple((name.lower(), value) for name, value in call.headers)
    sent = HttpCall(call.method, call.url, headers, call.body)

    assert is_signed(sent, key(Credentials(ID, SECRET, TOKEN)))


def test_a_header_of_ones_own_is_signed_where_aws_demands_it() -> None:
    """
    Everything that is AWS's own; the date and the token are ours whatever a job says.
    """
    own = (("x-amz-date", "20000101T000000Z"), ("x-amz-meta-team", "search"), ("x-other", "y"))
    signer = key(Credentials(ID, SECRET, TOKEN))
    call = HttpCall("POST", "https://h.example/rerank", (*JSON, *own), b"{}")
    signed = dict(signer.lines(call))["authorization"].partition("SignedHeaders=")[2]

    assert is_signed(call, signer)
    assert "x-amz-meta-team" in signed
    assert "x-other" not in signed


def test_a_botocore_client_asks_the_same_address_with_the_same_signature() -> None:
    """
    The client that AWS ships, stopped before it sends: its address, and its signature if it signs
    the same headers at the same time.
    """
    session = Session()
    session.set_credentials(ID, SECRET, TOKEN)
    client = session.create_client("bedrock-runtime", region_name="us-east-1")
    seen: list[Any] = []

    class Stopped(Exception):
        pass

    def stop(request: Any, **_: object) -> None:
        seen.append(request)
        raise Stopped

    client.meta.events.register("before-send", stop)
    for model in MODELS:
        with pytest.raises(Stopped):
            client.invoke_model(modelId=model, body=b"{}", contentType="application/json")
        vendor = VENDORS["bedrock"]
        options = vendor.options.model_validate({"region": "us-east-1"})
        provider = vendor.make(Settings(model, vendor.base_url, None, options))
        call = provider.call(RerankRequest(Slice(0, 0, 1), "q", ("d",), (0,)))
        sent = seen.pop()
        headers = {name.lower(): _text(value) for name, value in sent.headers.items()}
        target = sent.url.removeprefix("https://bedrock-runtime.us-east-1.amazonaws.com")

        assert sent.url == call.url
        headers["host"] = "bedrock-runtime.us-east-1.amazonaws.com"
        assert signed_rightly(f"POST {target} HTTP/1.1", headers, sent.body, SECRET, SCOPE)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# --- where credentials come from ------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """
    A machine without AWS credentials; variables can be set on it.
    """
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return monkeypatch


def test_without_credentials_the_job_is_refused(nowhere: pytest.MonkeyPatch) -> None:
    """
    With the ways in which they are found.
    """
    with pytest.raises(JobError, match="there are no AWS credentials") as refused:
        AwsKey("bedrock", "us-east-1")

    assert "AWS_PROFILE" in str(refused.value)


def test_a_profile_that_is_not_there_is_told_without_a_word_of_botocores(
    nowhere: pytest.MonkeyPatch,
) -> None:
    """
    The name of what is wrong, and where to look.
    """
    nowhere.setenv("AWS_PROFILE", "sk-pasted-here")

    with pytest.raises(JobError, match="ProfileNotFound") as refused:
        AwsKey("bedrock", "us-east-1")

    assert "sk-pasted-here" not in str(refused.value)


@pytest.mark.parametrize("bad", ["ключ", "two words", "two\nlines"])
def test_credentials_that_can_be_none_are_refused_and_not_repeated(
    nowhere: pytest.MonkeyPatch, bad: str
) -> None:
    """
    They would break the request, or be another one.
    """
    nowhere.setenv("AWS_ACCESS_KEY_ID", bad)
    nowhere.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    with pytest.raises(JobError, match="a character that none have") as refused:
        AwsKey("bedrock", "us-east-1")

    assert bad not in str(refused.value)


def test_without_botocore_the_job_is_told_what_to_install(nowhere: pytest.MonkeyPatch) -> None:
    """
    Nobody else needs it.
    """
    nowhere.setitem(sys.modules, "botocore.auth", None)

    with pytest.raises(JobError, match=r"pip install 'batchrank\[bedrock\]'"):
        AwsKey("bedrock", "us-east-1")


@pytest.mark.parametrize("way", ["environment", "profile"])
def test_credentials_are_found_as_aws_tools_find_them(
    nowhere: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    """
    In variables, or in the profile that one names.
    """
    if way == "environment":
        nowhere.setenv("AWS_ACCESS_KEY_ID", ID)
        nowhere.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        nowhere.setenv("AWS_SESSION_TOKEN", TOKEN)
    else:
        nowhere.setenv("AWS_PROFILE", "night")
        lines = (f"aws_access_key_id={ID}", f"aws_secret_access_key={SECRET}")
        (tmp_path / "credentials").write_text("\n".join(("[night]", *lines)))
    call = HttpCall("POST", "https://h.example/rerank", JSON, b"{}")

    assert is_signed(call, AwsKey("bedrock", "us-east-1"))


def test_what_a_tool_prints_is_taken_again_before_it_ends(
    nowhere: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    `credential_process`, as single sign-on tools have it: botocore renews within 15 minutes of the
    end. Whatever the tool says, a failure repeats nothing of it.
    """
    ends = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    tool = tmp_path / "tool"
    tool.write_text(
        f'#!/bin/sh\necho x >> {tmp_path}/asked\nn=$(wc -l < {tmp_path}/asked | tr -d " ")\n'
        f'[ -e {tmp_path}/broken ] && echo "sk-canary is broken" >&2 && exit 3\n'
        f'echo \'{{"Version": 1, "AccessKeyId": "AKID\'$n\'", "SecretAccessKey": "{SECRET}",'
        f' "SessionToken": "t", "Expiration": "{ends}"}}\'\n'
    )
    tool.chmod(0o700)
    (tmp_path / "config").write_text(f"[profile night]\ncredential_process = {tool}\n")
    nowhere.setenv("AWS_PROFILE", "night")
    now = [0.0]
    signer = AwsKey("bedrock", "us-east-1", clock=lambda: now[0])
    call = HttpCall("POST", "https://h.example/rerank", JSON, b"{}")
    before = dict(signer.lines(call))["authorization"]

    assert not signer.is_due()
    now[0] = 61.0
    assert signer.is_due()
    assert signer.renew(refused=False)
    assert not signer.is_due()
    after = dict(signer.lines(call))["authorization"]
    assert before.split("/")[0] != after.split("/")[0]
    assert is_signed(call, signer)

    (tmp_path / "broken").touch()
    with pytest.raises(KeyNotRenewed) as failed:
        signer.renew(refused=True)
    assert "sk-canary" not in str(failed.value)
    assert is_signed(call, signer)


# --- refused --------------------------------------------------------------------------------------


def test_credentials_that_are_refused_are_found_anew() -> None:
    """
    Others that lie there by now are taken; the same ones again are none.
    """
    signer = key(Credentials("A", "a"), Credentials("A", "a"), Credentials("B", "b"), None)

    assert not signer.renew(refused=True)
    assert signer.renew(refused=True)
    with pytest.raises(KeyNotRenewed, match="there are no AWS credentials"):
        signer.renew(refused=True)


def test_those_that_botocore_has_renewed_are_taken() -> None:
    """
    Without looking elsewhere: `resolve` is not asked again.
    """
    soon = datetime.now(UTC) + timedelta(minutes=1)
    later = {"access_key": "B", "secret_key": "b", "token": "t2", "account_id": None}
    expiring = RefreshableCredentials(
        "A", "a", "t1", soon, lambda: {**later, "expiry_time": "2999-01-01T00:00:00Z"}, "fake"
    )
    signer = key(expiring)

    assert not signer.renew(refused=False)  # it was renewed as it was found
    assert (
        "Credential=B/"
        in dict(signer.lines(HttpCall("POST", "https://h", (), b"")))["authorization"]
    )


@pytest.mark.parametrize(
    ("status", "headers", "body", "is_refused"),
    [
        pytest.param(403, {"x-amzn-errortype": "ExpiredTokenException:"}, b"{}", True, id="ended"),
        pytest.param(403, {}, b'{"__type":"x#UnrecognizedClientException"}', True, id="unknown"),
        pytest.param(403, {"x-amzn-errortype": "AccessDeniedException"}, b"{}", False, id="denied"),
        pytest.param(
            403, {"x-amzn-errortype": "InvalidSignatureException"}, b"", False, id="wrong"
        ),
        pytest.param(200, {}, b'{"text": "ExpiredToken"}', False, id="a good reply"),
        pytest.param(500, {}, b"ExpiredToken", False, id="an error of theirs"),
    ],
)
def test_what_says_that_credentials_are_not_good(
    status: int, headers: dict[str, str], body: bytes, is_refused: bool
) -> None:
    """
    By the name of the error, in the header or in the body; what is not allowed is not that.
    """
    reply = HttpReply(status, headers, body)

    assert is_refused is key(Credentials(ID, SECRET)).is_refused(reply)


@pytest.mark.parametrize(
    ("our_s", "told"),
    [(-1020.0, "17 minutes behind"), (600.0, "10 minutes ahead of"), (250.0, None)],
)
def test_a_wrong_clock_is_told(our_s: float, told: str | None) -> None:
    """
    Where a signature is refused, and the reply says what time it is there.
    """
    then = datetime(2026, 11, 21, 12, tzinfo=UTC)
    signer = key(Credentials(ID, SECRET), wall=lambda: then.timestamp() + our_s)
    headers = {
        "x-amzn-errortype": "InvalidSignatureException",
        "date": f"{then:%a, %d %b %Y %T} GMT",
    }
    reply = HttpReply(403, headers, b'{"message": "Signature expired"}')

    if told is None:
        assert not signer.is_refused(reply)
    else:
        with pytest.raises(ClockOff, match=told):
            signer.is_refused(reply)


def test_what_aws_repeats_of_a_request_is_redacted() -> None:
    """
    The canonical request in an error holds the session's token; those of before are kept in mind.
    """
    signer = key(
        Credentials("AKIDBEFORE1", "before/12345", "tok/old"), Credentials(ID, SECRET, TOKEN)
    )
    signer.renew(refused=True)
    told = f"x-amz-security-token:{TOKEN} tok/old {ID} AKIDBEFORE1 {SECRET} before/12345"

    assert "x-amz-security-token:*** *** *** *** *** ***" == signer.redact(told)
    assert "AKID" not in repr(signer)


def test_nothing_of_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """
    Not even where somebody logs everything: botocore would log what it signs.
    """
    caplog.set_level(logging.DEBUG)
    signer = key(Credentials(ID, SECRET, TOKEN))

    assert is_signed(HttpCall("POST", "https://h.example/rerank", JSON, b"{}"), signer)
    assert "" == caplog.text
