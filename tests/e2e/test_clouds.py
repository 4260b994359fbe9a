"""
Whole runs against servers that take no key that lasts: signatures, and tokens that end.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from batchrank.errors import JobError
from batchrank.job.loading import load
from batchrank.rehearsal import hashed_scores
from tests.aws import signed_rightly
from tests.e2e.small_jobs import Heard, Liar, Ran, SmallJob, everything_in, expected, groups, http

pytestmark = pytest.mark.campaign

REGION = "eu-central-1"
SCOPE = (REGION, "bedrock")
MODEL = "cohere.rerank-v3-5:0"


def lines(rows: list[dict[str, Any]], model: str, provider: str) -> list[dict[str, Any]]:
    """
    What should be in the output.
    """
    return [{**line, "model": model, "provider": provider} for line in expected(rows)]


class Aws:
    """
    Bedrock as a server: it checks signatures itself, and knows secrets by the ids in *secrets*.
    """

    def __init__(self, secrets: dict[str, str], page: int = 1000) -> None:
        self.secrets = secrets
        self.page = page
        self.pages_asked = 0

    def __call__(self, heard: Heard) -> bytes:
        """
        The reply to one request.
        """
        said = heard.headers.get("authorization", "")
        found = [secret for name, secret in self.secrets.items() if f"Credential={name}/" in said]
        if not found:
            return error(403, "ExpiredTokenException", f"is expired: {heard.headers}")
        if not signed_rightly(heard.line, heard.headers, heard.body, found[0], SCOPE):
            return error(403, "InvalidSignatureException", f"it should have been {heard.headers}")
        if "/rerank " in heard.line:
            return self._rerank(heard.asked)
        assert f"POST /model/{MODEL.replace(':', '%3A')}/invoke HTTP/1.1" == heard.line
        scores = enumerate(hashed_scores(heard.asked["query"], heard.asked["documents"]))
        return http({"results": [{"index": n, "relevance_score": score} for n, score in scores]})

    def _rerank(self, asked: Any) -> bytes:
        texts = [s["inlineDocumentSource"]["textDocument"]["text"] for s in asked["sources"]]
        scores = hashed_scores(asked["queries"][0]["textQuery"]["text"], texts)
        results = [{"index": n, "relevanceScore": score} for n, score in enumerate(scores)][::-1]
        start = int(asked.get("nextToken", 0))
        self.pages_asked += start > 0
        body: dict[str, Any] = {"results": results[start : start + self.page]}
        if start + self.page < len(results):
            body["nextToken"] = str(start + self.page)
        return http(body)


def error(status: int, name: str, message: str) -> bytes:
    """
    An error as AWS tells it.
    """
    return http({"message": message}, status, {"x-amzn-ErrorType": f"{name}:http://internal/"})


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """
    A machine without AWS credentials; variables can be set on it.
    """
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    return monkeypatch


def bedrock(base: Path, port: int, name: str = "bedrock", **provider: Any) -> SmallJob:
    """
    A job that asks the server at *port* as Bedrock is asked.
    """
    options = {"region": REGION}
    address = f"http://127.0.0.1:{port}"
    table = {"name": name, "model": MODEL, "base_url": address, "options": options, **provider}
    return SmallJob(base, port, provider={"key_file": None, **table})


@pytest.mark.parametrize("name", ["bedrock", "bedrock-rerank"])
def test_bedrock_is_asked_with_signatures_that_it_checks(
    tmp_path: Path, machine: pytest.MonkeyPatch, name: str
) -> None:
    """
    By both of its operations, the whole job through; `rerank` replies in pages of two.
    """
    machine.setenv("AWS_ACCESS_KEY_ID", "AKIDCANARY")
    machine.setenv("AWS_SECRET_ACCESS_KEY", "secret/canary")
    machine.setenv("AWS_SESSION_TOKEN", "token+canary")
    rows = groups(12, candidates=5)
    aws = Aws({"AKIDCANARY": "secret/canary"}, page=2)
    with Liar(aws) as server:
        job = bedrock(tmp_path, server.port, name).source(rows)
        job.change(budget={"cost_usd_max": 1})
        summary = job.run()

    assert (0, 12, 0.024) == (summary.exit_code, summary.calls_now, summary.cost_usd)
    assert lines(rows, MODEL, name) == job.rows()
    assert aws.pages_asked == (24 if name == "bedrock-rerank" else 0)
    assert {"token+canary"} == {heard.headers["x-amz-security-token"] for heard in server.heard}


def test_a_page_that_fails_is_tried_again_from_the_first(
    tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    """
    What came before it may have been billed, so that the call is booked, and not asked for without
    end.
    """
    machine.setenv("AWS_ACCESS_KEY_ID", "AKID1")
    machine.setenv("AWS_SECRET_ACCESS_KEY", "secret-1")
    rows, aws = groups(1, candidates=5), Aws({"AKID1": "secret-1"}, page=2)
    left = [error(429, "ThrottlingException", "slow down"), b"nonsense\r\n\r\n"]

    def answer(heard: Heard) -> bytes:
        return left.pop() if "nextToken" in heard.asked and left else aws(heard)

    with Liar(answer) as server:
        job = bedrock(tmp_path, server.port, "bedrock-rerank").source(rows)
        job.change(budget={"cost_usd_max": 1})
        summary = job.run()

    assert (0, 3, 0.006) == (summary.exit_code, summary.calls_now, summary.cost_usd)
    assert lines(rows, MODEL, "bedrock-rerank") == job.rows()
    told = [(call["failure"], call["code"]) for call in job.calls()]
    assert [("unknown", "garbage"), ("unknown", "ThrottlingException"), (None, None)] == told


def check_clean(base: Path, *ran: Ran) -> None:
    """
    No canary in anything that was written or said.
    """
    for path, content in everything_in(base).items():
        if path.name not in ("aws-credentials", "groups.parquet"):
            assert b"canary" not in content, path
    assert all("canary" not in one.out + one.err for one in ran)


def test_credentials_that_end_in_mid_run_are_found_anew(
    tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    """
    A profile that others renew: what was refused is tried again, and no group is asked twice. What
    AWS repeats of a request stands nowhere.
    """
    rows, held = groups(30), tmp_path / "aws-credentials"

    def profile(n: int) -> None:
        held.write_text(
            f"[default]\naws_access_key_id = AKID{n}\naws_secret_access_key = canary-{n}-secret\n"
            f"aws_session_token = canary-{n}-token\n"
        )

    aws, lock = Aws({"AKID1": "canary-1-secret"}), threading.Lock()

    def answer(heard: Heard) -> bytes:
        with lock:
            if heard.number == 11:
                aws.secrets = {"AKID2": "canary-2-secret"}
                profile(2)
        return aws(heard)

    profile(1)
    with Liar(answer) as server:
        job = bedrock(tmp_path, server.port).source(rows)
        ran = job.cli("run")

    assert 0 == ran.code
    assert lines(rows, MODEL, "bedrock") == job.rows()
    assert 30 == server.billed
    assert "key_renewed" in {call["code"] for call in job.calls()}
    check_clean(tmp_path, ran, job.cli("status"))


def test_a_signature_that_is_refused_stops_the_job_and_repeats_nothing(
    tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    """
    AWS says what should have been signed, and the session's token with it.
    """
    machine.setenv("AWS_ACCESS_KEY_ID", "AKID1")
    machine.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    machine.setenv("AWS_SESSION_TOKEN", "canary-token")
    with Liar(Aws({"AKID1": "another"})) as server:
        job = bedrock(tmp_path, server.port).source(groups(3))
        ran = job.cli("run")

    assert 3 == ran.code
    assert "it should have been" in ran.err
    check_clean(tmp_path, ran)


def test_bedrock_takes_a_key_of_its_own_instead(
    tmp_path: Path, machine: pytest.MonkeyPatch
) -> None:
    """
    Its operation InvokeModel does, as anybody's key: nothing is signed.
    """
    rows = groups(2)

    def answer(heard: Heard) -> bytes:
        texts = heard.asked["documents"]
        scores = enumerate(hashed_scores(heard.asked["query"], texts))
        return http({"results": [{"index": n, "relevance_score": score} for n, score in scores]})

    machine.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key")
    with Liar(answer) as server:
        job = bedrock(tmp_path, server.port).source(rows)

        assert 0 == job.run().exit_code
    assert {"bedrock-api-key"} == {heard.key for heard in server.heard}


@pytest.mark.parametrize(
    ("provider", "told"),
    [
        pytest.param({}, "there are no AWS credentials", id="no credentials"),
        pytest.param({"options": {}}, "provider.options.region: is missing", id="no region"),
        pytest.param({"options": {"region": "evil.example/"}}, "region", id="no such region"),
        pytest.param({"name": "bedrock-rerank", "key_env": "X"}, "takes no key", id="a key"),
        pytest.param(
            {"base_url": "http://vpce.example"}, "would send the key unencrypted", id="plain"
        ),
        pytest.param({"key_env": "X", "key_command": ["x"]}, "key_command", id="two ways"),
        pytest.param({"key_command": []}, "key_command", id="an empty command"),
    ],
)
def test_what_cannot_be_signed_is_told_before_anything_is_paid(
    tmp_path: Path, machine: pytest.MonkeyPatch, provider: dict[str, Any], told: str
) -> None:
    """
    With its line.
    """
    table = {"name": "bedrock", "model": MODEL, "options": {"region": REGION}, **provider}
    job = SmallJob(tmp_path, provider=table).source(groups(1))

    with pytest.raises(JobError, match="line ") as refused:
        load(job.file)

    assert told in str(refused.value)
    if told != "region" and "key" not in told and "missing" not in told:
        assert 0 == job.cli("plan").code  # whoever calls nobody needs none


# --- tokens that end ------------------------------------------------------------------------------

TOKENS = 'n=$(cat token); echo "canary-token-$n"'


def rerank(provider: str, asked: Any) -> bytes:
    """
    What Vertex, or Cohere on Azure, would say.
    """
    if provider == "azure":
        scores = enumerate(hashed_scores(asked["query"], asked["documents"]))
        return http({"results": [{"index": n, "relevance_score": score} for n, score in scores]})
    texts = [record["content"] for record in asked["records"]]
    scored = zip(asked["records"], hashed_scores(asked["query"], texts), strict=True)
    return http({"records": [{"id": record["id"], "score": score} for record, score in scored]})


@pytest.mark.parametrize(
    ("provider", "options"), [("vertex", {"project": "night-1"}), ("azure", {})]
)
def test_a_token_that_ends_in_mid_run_is_got_anew_from_its_command(
    tmp_path: Path, provider: str, options: dict[str, Any]
) -> None:
    """
    After ten calls each token is refused: no group is lost or asked twice, and no token is written
    down.
    """
    rows, lock, taken = groups(35), threading.Lock(), [0]
    token = tmp_path / "token"
    token.write_text("0")

    def answer(heard: Heard) -> bytes:
        with lock:
            if heard.key != f"canary-token-{taken[0] // 10}":
                return http({"error": {"message": f"{heard.key} has ended"}}, 401)
            taken[0] += 1
            token.write_text(str(taken[0] // 10))
        return rerank(provider, heard.asked)

    with Liar(answer) as server:
        address = f"http://127.0.0.1:{server.port}"
        asked = {"name": provider, "model": "m", "base_url": address, "options": options}
        command = {"key_file": None, "key_command": ["sh", "-c", TOKENS]}
        job = SmallJob(tmp_path, server.port, provider={**asked, **command}).source(rows)
        ran = job.cli("run")

    assert 0 == ran.code
    assert lines(rows, "m", provider) == job.rows()
    assert 35 == server.billed
    job.file.unlink()  # its command has the beginning of the tokens in it
    check_clean(tmp_path, ran)


def test_a_token_that_is_refused_for_good_stops_the_job(tmp_path: Path) -> None:
    """
    The command prints the same one again: a person is needed.
    """
    with Liar(lambda heard: http({"error": {"message": heard.key}}, 401)) as server:
        address = f"http://127.0.0.1:{server.port}"
        asked = {"name": "vertex", "model": "m", "base_url": address, "key_file": None}
        command = {"options": {"project": "p"}, "key_command": ["echo", "canary-token"]}
        job = SmallJob(tmp_path, server.port, provider={**asked, **command}).source(groups(3))
        ran = job.cli("run")
        said = json.dumps(job.cli("status", "--json").json)

    assert 3 == ran.code
    assert "canary" not in ran.out + ran.err + said
