"""
A key goes to its server and nowhere else; texts go there and into no log, table or message.

Every job here has a canary for a key, and words in its texts that occur nowhere else. Servers
repeat them in every way that was thought of; then all bytes that were written or said are searched.
"""

from __future__ import annotations

import html
import json
import os
import pty
import re
import select
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchrank.domain import (
    Failure,
    FailureKind,
    RerankReply,
    RerankRequest,
    Served,
    Slice,
)
from batchrank.engine.scorer import cleaned
from batchrank.rehearsal.faults import STATUSES, Fault
from batchrank.wire.auth import Secret
from tests.e2e.small_jobs import (
    Heard,
    Liar,
    Ran,
    SmallJob,
    command,
    everything_in,
    expected,
    http,
)
from tests.edges.wild_server import WildServer, breaks
from tests.laws import law
from tests.rehearsing import Server, running

CANARY = "sk-or-v1/canary+0123456789=<&'key>"
"""With characters that URLs, JSON and HTML write in their own ways."""

QUERY, DOCUMENT, SHORT = "querymarker", "documentmarker", "tiny9"
MARKERS = (QUERY, DOCUMENT, SHORT)


def rows(count: int) -> list[dict[str, Any]]:
    """
    Groups whose texts can be recognised anywhere.
    """
    return [
        {
            "query_id": f"q{n}",
            "query": f"{QUERY} about the subject number {n}",
            "documents": [
                {"id": f"d{n}-0", "text": f'first {DOCUMENT} with "quotes" and ümläüts, {n}\nend'},
                {"id": f"d{n}-1", "text": SHORT},
                {"id": f"d{n}-2", "text": f"the second {DOCUMENT} of {n}"},
            ],
        }
        for n in range(count)
    ]


def written(job: SmallJob) -> bytes:
    """
    Everything that is in the output and the state folder, what Parquet has compressed unfolded.
    """
    found = []
    for path, body in everything_in(job.output, job.base / ".batchrank").items():
        found += [str(path).encode(), body]
        if path.suffix == ".parquet":
            found.append(repr(pq.read_table(path).to_pylist()).encode())
    return b"\n".join(found)


SPELLINGS: list[Callable[[str], str]] = [
    str,
    quote,
    lambda text: quote(text, safe=""),
    lambda text: re.sub("%..", lambda code: code[0].lower(), quote(text, safe="")),
    lambda text: json.dumps(text)[1:-1],
    lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
    html.escape,
]


def check_clean(job: SmallJob, *rans: Ran) -> None:
    """
    Neither the key, in any spelling, nor a word of the texts was written or said.
    """
    bytes_found = written(job) + "".join(ran.out + ran.err for ran in rans).encode()
    for secret in {spell(CANARY) for spell in SPELLINGS} | set(MARKERS):
        assert secret.encode() not in bytes_found, secret


# --- the embedded server's faults -----------------------------------------------------------------

FATAL = {
    Fault.NO_MODEL,
    Fault.UNAUTHORIZED,
    Fault.NOT_FOUND,
    Fault.NO_ENDPOINTS,
    Fault.PRIVACY,
    Fault.NO_CREDIT,
    Fault.KEY_LIMIT,
    Fault.QUOTA,
    Fault.REDIRECT,
    Fault.OTHER_MODEL,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """
    One server for all tests of this file; they turn its faults.
    """
    with running(slow_body_s=5) as server:
        yield server


@pytest.mark.parametrize("fault", sorted(FATAL))
def test_no_fault_that_stops_a_job_tells_the_key(
    tmp_path: Path, server: Server, fault: Fault
) -> None:
    """
    The reason is told to a person, in full sentences.
    """
    server.turn(faults=[f"{fault}@2.."])
    server.reset()
    job = SmallJob(tmp_path, server.port, CANARY, limits={"concurrency_max": 1}).source(rows(3))
    ran = job.cli("run")

    assert 3 == ran.code
    check_clean(job, ran, job.cli("status"), job.cli("verify"), job.cli("run", "--json"))


def test_a_403_for_one_groups_texts_is_not_one_for_the_key(tmp_path: Path, server: Server) -> None:
    """
    The moderated group is rejected, its text untold, and the night goes on; the same status for the
    key stops the job, which goes on from there.
    """
    job = SmallJob(tmp_path, server.port, CANARY, output={"rejected_max": 1}).source(rows(30))
    server.turn(faults=["403-moderation=number 7", "403-key=number 20"])
    stopped = job.cli("run")
    server.turn(faults=["403-moderation=number 7"])
    done = job.cli("run", "--json")

    assert (3, 0) == (stopped.code, done.code)
    assert "Key limit exceeded" in stopped.err
    assert ["q7"] == [reject["query_id"] for reject in job.rejects()]
    assert {"bad_group": 1} == done.json["rejects_by_kind"]
    check_clean(job, stopped, done, job.cli("status"), job.cli("verify"))


def test_no_other_fault_tells_the_key(tmp_path: Path, server: Server) -> None:
    """
    All of them in one run, each on a call of its own; the first, which goes alone, goes well.
    """
    # Those that shut the gate come last: probes would meet one of the others after the other.
    faults = sorted(set(Fault) - FATAL, key=lambda fault: STATUSES.get(fault) in (429, 503, 529))
    told = [f"{fault}@{number}" for number, fault in enumerate(faults, 2)]
    server.turn(faults=told, latency=0.3)
    server.reset()
    job = SmallJob(
        tmp_path,
        server.port,
        CANARY,
        provider={"timeout_s": 1.0},
        limits={"concurrency_max": 60},
        output={"rejected_max": 9},
    ).source(rows(60))
    ran = job.cli("run")
    server.turn(latency=None)

    assert dict.fromkeys(faults, 1) == server.admin()["by_fault"]
    assert 0 == ran.code
    assert 3 == len(job.rejects())
    check_clean(job, ran, job.cli("status"), job.cli("verify"))


# --- a server that repeats whatever it hears ------------------------------------------------------


def error(heard: Heard, status: int, message: str, **metadata: Any) -> bytes:
    """
    An error of OpenRouter's shape.
    """
    code = metadata.pop("code", status)
    return http({"error": {"code": code, "message": message, "metadata": metadata}}, status)


def quoting(heard: Heard) -> str:
    """
    All that was sent, in one sentence.
    """
    texts = "; ".join(heard.asked["documents"])
    return f"Bearer {heard.key} asked {heard.asked['query']} of {texts}"


def raw_body(heard: Heard) -> str:
    """
    An upstream's JSON in which everything is escaped once more.
    """
    return json.dumps({"auth": heard.key, "input": heard.asked})


PARROTS: dict[str, Callable[[Heard], bytes]] = {
    "the message of a 400": lambda heard: error(heard, 400, quoting(heard)),
    "the message of a 413": lambda heard: error(heard, 413, quoting(heard)),
    "the message of a 500": lambda heard: error(heard, 500, quoting(heard)),
    "the message of a 503": lambda heard: error(heard, 503, quoting(heard)),
    "the message of a 429": lambda heard: error(heard, 429, quoting(heard)),
    "an error in a 200": lambda heard: http({"error": {"message": quoting(heard)}}),
    "an error that is a text": lambda heard: http({"error": quoting(heard)}, 400),
    "a moderation error": lambda heard: error(
        heard, 403, "flagged: " + heard.asked["query"], reasons=[heard.key], flagged_input=heard.key
    ),
    "the upstream's words": lambda heard: error(heard, 400, "upstream", raw=raw_body(heard)),
    "the upstream's name": lambda heard: error(heard, 400, "upstream", provider_name=heard.key),
    "the typed code": lambda heard: error(heard, 400, "x", error_type=f"{heard.key}{SHORT}"),
    "the last letters that are kept": lambda heard: error(heard, 400, "." * 390 + heard.key),
    "a name that is too long": lambda heard: error(heard, 400, "x", error_type="." * 190 + CANARY),
    "a percent-encoded address": lambda heard: error(
        heard, 400, f"see https://x.example/?key={quote(heard.key, safe='')}"
    ),
    "an address in small letters": lambda heard: error(
        heard, 400, f"see https://x.example/?key={quote(heard.key, safe='').lower()}"
    ),
    "a message escaped as JSON": lambda heard: error(
        heard, 400, "".join(f"\\u{ord(c):04x}" for c in heard.key)
    ),
    "a body escaped as JSON": lambda heard: http(
        json.dumps({"error": {"code": 400, "message": "@"}})
        .replace("@", "".join(f"\\u{ord(c):04x}" for c in heard.key))
        .encode(),
        400,
    ),
    "a page": lambda heard: http(f"<html>{html.escape(quoting(heard))}</html>".encode(), 400),
    "a message escaped for a page": lambda heard: error(heard, 400, html.escape(heard.key)),
    "what is not JSON": lambda heard: http(quoting(heard).encode()),
    "headers": lambda heard: http(
        {"error": {"code": 400, "message": "no"}},
        400,
        {
            "X-Generation-Id": heard.key,
            "WWW-Authenticate": f"Bearer {heard.key}",
            "Retry-After": heard.key,
            "Set-Cookie": f"key={heard.key}",
            heard.key.replace("=<&'", "").replace("/", "").replace(">", ""): "a name",
        },
    ),
    "the reason of a status": lambda heard: http({}, 400, reason=heard.key),
    "no HTTP at all": lambda heard: f"{quoting(heard)}\r\n\r\n".encode(),
    "a status that is none": lambda heard: f"HTTP/1.1 {heard.key}\r\n\r\n".encode(),
    "the id of a good reply": lambda heard: http(heard.reply(id=f"gen-{heard.key}")),
    "the provider of a good reply": lambda heard: http(heard.reply(provider=f"P {heard.key}")),
    "an unknown field of a good reply": lambda heard: http(heard.reply(echo=quoting(heard))),
    "a wrong echo": lambda heard: http(
        heard.reply(
            results=[{"index": 0, "relevance_score": 1, "document": {"text": quoting(heard)}}]
        )
    ),
    "a score": lambda heard: http(
        heard.reply(results=[{"index": 0, "relevance_score": heard.key}])
    ),
}


def parrot() -> Callable[[Heard], bytes]:
    """
    Repeats what it hears in the way that the query's number asks for; but only once.
    """
    plays = list(PARROTS.values())
    played: set[int] = set()

    def answer(heard: Heard) -> bytes:
        number = int(heard.asked["query"].rpartition(" ")[2])
        if number >= len(plays) or number in played:
            return http(heard.reply())
        played.add(number)
        return plays[number](heard)

    return answer


def test_nothing_that_a_server_repeats_is_written(tmp_path: Path) -> None:
    """
    Wherever it stands in a reply: the key is starred out, passages of texts are left out.
    """
    with Liar(parrot()) as server:
        job = SmallJob(
            tmp_path,
            server.port,
            CANARY,
            limits={"concurrency_max": 64},
            output={"rejected_max": 99},
        ).source(rows(len(PARROTS) + 30))
        ran = job.cli("run")
        status = job.cli("status"), job.cli("status", "--json"), job.cli("verify")
        again = job.cli("run", "--retry-rejects")

    assert {CANARY} == {heard.key for heard in server.heard}
    assert (0, 0) == (ran.code, again.code)
    assert len(PARROTS) - 3 == sum(call["failure"] is not None for call in job.calls())
    check_clean(job, ran, again, *status)


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(lambda heard: error(heard, 401, quoting(heard)), id="401"),
        pytest.param(lambda heard: error(heard, 403, quoting(heard)), id="403"),
        pytest.param(lambda heard: http(heard.reply(model=heard.key)), id="another model"),
        pytest.param(
            lambda heard: http(b"", 307, {"Location": f"http://{heard.key}.example/{heard.key}"}),
            id="a redirect",
        ),
    ],
)
def test_the_reason_of_a_stop_repeats_nothing(
    tmp_path: Path, play: Callable[[Heard], bytes]
) -> None:
    """
    In the log, the summary, the report, the ledger's list of runs.
    """
    with Liar(play) as server:
        job = SmallJob(tmp_path, server.port, CANARY).source(rows(3))
        ran = job.cli("run")

    assert 3 == ran.code
    assert '"reason"' in ran.err
    check_clean(job, ran, job.cli("status"))


def on_a_terminal(job: SmallJob) -> tuple[Ran, bytes, bytes]:
    """
    Run *job* as a process with a terminal for its standard error.

    Returns how it ended, what the terminal showed, and the command line that everybody can see.
    """
    ours, theirs = pty.openpty()
    cmdline = b""
    shown = []
    with subprocess.Popen(
        command("run", job.file), stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        while process.poll() is None or select.select([ours], [], [], 0)[0]:
            cmdline = cmdline or Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    shown.append(os.read(ours, 65_536))
                except OSError:  # the other end is closed: how Linux says that a terminal is over
                    break
        os.close(ours)
        assert process.stdout is not None
        said = process.stdout.read()
        code = process.wait(10)
    return Ran(code, said, ""), b"".join(shown), cmdline


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs Linux")
def test_a_terminal_shows_neither_key_nor_text(tmp_path: Path) -> None:
    """
    Nor does the list of processes. What a server paints with stays its own.
    """

    def play(heard: Heard) -> bytes:
        if heard.number % 2:
            return http(heard.reply(provider="P\x1b[2J"))
        paint = f"\x1b]0;owned\x07\x1b[31m\x9b2J[bold]{quoting(heard)}"
        return error(heard, 400, paint)

    with Liar(play) as server:
        job = SmallJob(
            tmp_path,
            server.port,
            CANARY,
            output={"rejected_max": 99},
            limits={"concurrency_max": 2},
        )
        job.source([{**row, "query_id": f"\x1b[31m{n}"} for n, row in enumerate(rows(12))])
        ran, shown, cmdline = on_a_terminal(job)

    assert 0 == ran.code
    assert b"rejected: query" in shown
    assert b"job.toml" in cmdline
    for painted in (b"\x1b]0;owned", b"\x1b[31m\xc2", "\x9b".encode(), b"\x1b[2J"):
        assert painted not in shown + ran.out.encode()
    check_clean(job, ran, Ran(0, shown.decode(), cmdline.decode()), job.cli("status"))
    assert "\x1b" not in job.cli("status").out


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("http://user:{canary}@127.0.0.1:{port}", id="a proxy that refuses us"),
        pytest.param("http://user:{canary}@[bad:{port}", id="an address that is none"),
    ],
)
def test_the_password_of_a_proxy_is_not_told(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It stands in the environment, and goes to the proxy alone.
    """
    reply = (
        b"HTTP/1.1 407 no canary-of-a-proxy\r\nX: canary-of-a-proxy\r\nContent-Length: 0\r\n\r\n"
    )
    with WildServer([breaks(reply)]) as proxy:
        url = address.format(canary="canary-of-a-proxy", port=proxy.port)
        job = SmallJob(tmp_path, 1, CANARY, provider={"base_url": "https://rerank.example/v1"})
        job.source(rows(2))
        monkeypatch.setenv("HTTPS_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "")
        ran = job.cli("run")

    assert 3 == ran.code
    assert "proxy" in ran.out
    check_clean(job, ran)
    for secret in (b"canary-of-a-proxy", b"Y2FuYXJ5LW9mLWEtcHJveHk"):
        assert secret not in written(job) + ran.out.encode() + ran.err.encode()


# --- keys that are words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["abc", "0", "rehearsal", "document", "relevance_score", "cohere", "secret-key", '\\u00"'],
)
def test_a_key_that_is_a_word_changes_no_score(tmp_path: Path, server: Server, key: str) -> None:
    """
    Its letters stand in texts, in replies and in names; scores, echoes and models stay as they are.
    """
    server.turn(faults=[])
    server.reset()
    texts = [
        {"query_id": "q", "query": f"{key} {key}", "documents": [{"id": key, "text": f"a {key} b"}]}
    ]
    job = SmallJob(tmp_path, server.port, key).source(texts)
    summary = job.run()
    rows = [{**row, "provider": None} for row in job.rows()]

    assert (0, {}) == (summary.exit_code, summary.calls_failed)
    assert [{**row, "provider": None} for row in expected(texts)] == rows


# --- the last look --------------------------------------------------------------------------------

keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=4, max_size=40)
any_text = st.text(max_size=30)
ASKED = RerankRequest(Slice(0, 0, 1), "what is asked", ("a document that was sent",), (0,))


@law(40)
@given(keys, st.sampled_from(SPELLINGS), st.integers(0, 450), any_text)
def test_a_failure_leaves_without_the_key(
    key: str, spell: Callable[[str], str], before: int, after: str
) -> None:
    """
    In whichever field and spelling it comes, and wherever the field is cut.
    """
    said = "-" * before + spell(key) + after
    failure = Failure(
        FailureKind.UNKNOWN, said, code=said, request_id=said, served=Served(said, said)
    )
    left = cleaned(failure, ASKED, Secret(key))
    fields = [left.message, left.code, left.request_id] if isinstance(left, Failure) else []
    served = left.served or Served("")
    for field in (*fields, served.model, served.provider):
        shown = (field or "").replace("***", "").replace("…", "")

        assert key not in shown
        assert key[:4] not in shown.replace(after, "") or key[:4] in "-" * 4
        assert shown.isprintable()
        assert len(shown) <= 400


@law(40)
@given(st.text(min_size=12, max_size=60), any_text, any_text)
def test_a_failure_leaves_without_the_texts(text: str, before: str, after: str) -> None:
    """
    A quotation of twelve letters and more is left out.
    """
    asked = replace(ASKED, documents=(text,))
    left = cleaned(Failure(FailureKind.UNKNOWN, before + text + after), asked, Secret("sk-canary"))

    assert isinstance(left, Failure)
    assert text not in left.message
    assert "…" in left.message


@pytest.mark.parametrize(
    ("text", "message", "shown"),
    [
        pytest.param("red shoe", 'flagged: "red shoe"', 'flagged: "…"', id="a short text"),
        pytest.param("red", "required field", "required field", id="a part of a word"),
        pytest.param("id", "id is wrong", "id is wrong", id="too short to be told from words"),
        pytest.param("a\nb c d e f g h", "see a\nb c d e f g h!", "see …!", id="several lines"),
        pytest.param(
            "was schön und übrig ist", json.dumps("was schön und übrig ist"), '"…"', id="escaped"
        ),
    ],
)
def test_a_quotation_is_left_out_of_a_message(text: str, message: str, shown: str) -> None:
    """
    What is not a quotation stays, for it says what is wrong.
    """
    asked = replace(ASKED, documents=(text,))

    left = cleaned(Failure(FailureKind.UNKNOWN, message), asked, Secret("sk-canary"))

    assert Failure(FailureKind.UNKNOWN, shown) == left


def test_a_good_reply_keeps_its_model() -> None:
    """
    It is the one that was asked for, whatever the key is.
    """
    reply = RerankReply((0.5,), Served("cohere/rerank-v3.5", "Cohere key"), request_id="gen-key-1")
    left = cleaned(reply, ASKED, Secret("key"))

    assert Served("cohere/rerank-v3.5", "Cohere ***") == left.served
    assert "gen-***-1" == left.request_id
