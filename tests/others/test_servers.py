"""
Servers that others wrote, asked by batchrank in whole runs: right scores, and errors of the class
that they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from batchrank.rehearsal import hashed_scores
from tests.e2e.small_jobs import SmallJob, expected, groups
from tests.others.environments import python_of
from tests.others.models import TOLERANCE, build, in_order, said_directly
from tests.others.serving import infinity, serving
from tests.rehearsing import Server, running

pytestmark = pytest.mark.others

KEY = "sk-front-of-tests"

SERVED_ANOTHER = "asked for another, served by tiny"
"""An Infinity with one model asks that one, whatever the request names; batchrank sees it."""


def job_at(base: Path, address: str, name: str, model: str, **provider: Any) -> SmallJob:
    """
    A job that asks the server at *address*, with its key.
    """
    base.mkdir(exist_ok=True)
    table = {"name": name, "model": model, "base_url": address, **provider}
    return SmallJob(base, 0, KEY, provider=table)


# --- LiteLLM's proxy, in front of the embedded server ---------------------------------------------

CONFIG = """
model_list:
  - model_name: reranker
    litellm_params: {{model: cohere/rerank-v3.5, api_base: "http://127.0.0.1:{port}", api_key: k}}
general_settings: {{master_key: {key}}}
litellm_settings: {{num_retries: 0}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
"""


@pytest.fixture(scope="module")
def behind() -> Iterator[Server]:
    """
    The embedded server.
    """
    with running(hashed_scores) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(behind: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    The address of a proxy in front of it.
    """
    base = tmp_path_factory.mktemp("proxy")
    (base / "config.yaml").write_text(CONFIG.format(port=behind.port, key=KEY))
    command = python_of("litellm_proxy").with_name("litellm")
    options = ("--config", "config.yaml", "--host", "127.0.0.1", "--port", "PORT")
    with serving(base, "/health/liveliness", command, *options) as address:
        yield address


def test_a_run_through_litellm_gets_the_scores_of_the_server_behind(
    tmp_path: Path, behind: Server, proxy: str
) -> None:
    """
    With what the proxy says that it costs, and nobody asked twice.
    """
    behind.reset()
    rows = groups(12, candidates=5)
    job = job_at(tmp_path, proxy, "litellm", "reranker").source(rows)
    summary = job.run()

    assert (0, 12) == (summary.exit_code, behind.admin()["calls"])
    told = [{**line, "model": "reranker", "provider": "litellm"} for line in expected(rows)]
    assert told == job.rows()
    assert 12.0 == summary.search_units
    assert pytest.approx(0.024) == summary.cost_usd
    assert summary.cost_usd == summary.cost_usd_by_source["reported"]


@pytest.mark.parametrize(
    ("provider", "key", "says"),
    [
        ({}, "sk-another", "No connected db"),
        ({"model": "another"}, KEY, "Invalid model name passed in model=another"),
    ],
)
def test_a_key_and_a_model_that_litellm_does_not_know_stop_the_job(
    tmp_path: Path, proxy: str, provider: Mapping[str, str], key: str, says: str
) -> None:
    """
    At the first reply, and no group is rejected for it.
    """
    job = job_at(tmp_path, proxy, "litellm", "reranker").source(groups(30))
    job.change(provider=provider, limits={"concurrency": 1}).write_key(key)
    summary = job.run()

    assert (3, 1, 0) == (summary.exit_code, summary.calls_now, summary.rejected)
    assert says in summary.reason
    assert key not in summary.reason


@pytest.mark.parametrize(
    ("fault", "exit_code", "rejects", "failed"),
    [
        ("400", 1, {"bad_group": 1}, {"bad_group": 1}),
        ("401", 3, {}, {"fatal": 1}),
        ("422", 1, {"bad_group": 1}, {"bad_group": 1}),
        ("429", 0, {}, {"throttled": 2}),
        ("500", 0, {}, {"unknown": 2}),
        ("503", 0, {}, {"throttled": 2}),
    ],
)
def test_errors_behind_litellm_keep_their_class(
    tmp_path: Path,
    behind: Server,
    proxy: str,
    fault: str,
    exit_code: int,
    rejects: Mapping[str, int],
    failed: Mapping[str, int],
) -> None:
    """
    One group is refused, or twice put off, by the server behind.
    """
    behind.reset()
    behind.turn(faults=[f"{fault}=subject 0"] if exit_code else [f"{fault}@1..2"])
    job = job_at(tmp_path, proxy, "litellm", "reranker").source(groups(1))
    try:
        summary = job.run()
    finally:
        behind.turn(faults=[])

    assert exit_code == summary.exit_code
    assert (rejects, failed) == (summary.rejects_by_kind, summary.calls_failed)


# --- Infinity, over a model that was built here ---------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A small model's folder.
    """
    return build(tmp_path_factory.mktemp("models") / "all") / "tiny"


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """
    The address of an Infinity that serves it.
    """
    base = tmp_path_factory.mktemp("infinity")
    command = infinity(python_of("infinity"), model, "--api-key", KEY)
    with serving(base, "/health", *command) as address:
        yield address


def test_a_run_at_infinity_gets_the_models_scores(tmp_path: Path, served: str, model: Path) -> None:
    """
    Compared with what sentence-transformers says of the same files; raw where a job wants that.
    """
    rows = groups(9, candidates=6)
    for raw, activation in ((False, "sigmoid"), (True, "identity")):
        options = {"raw_scores": raw, "return_documents": True}
        base = tmp_path / activation
        job = job_at(base, served, "infinity", "tiny", options=options).source(rows)
        summary = job.run()

        assert (0, 9, 0.0) == (summary.exit_code, summary.calls_now, summary.cost_usd)
        direct = said_directly(model, rows, activation)
        assert pytest.approx(direct, abs=TOLERANCE) == in_order(job.rows())
        assert {("tiny", "infinity")} == {(r["model"], r["provider"]) for r in job.rows()}


def test_more_documents_than_infinity_takes_are_cut_or_split(
    tmp_path: Path, served: str, model: Path
) -> None:
    """
    Its limit is known; where a job says that it were higher, the server's word is heard.
    """
    rows = groups(1, candidates=2100)
    direct = said_directly(model, rows)
    for most, calls in ((None, 2), (4000, 3)):
        job = job_at(tmp_path / str(most), served, "infinity", "tiny", documents_max=most)
        summary = job.source(rows).run()

        assert (0, calls) == (summary.exit_code, summary.calls_now)
        assert pytest.approx(direct, abs=TOLERANCE) == in_order(job.rows())


@pytest.mark.parametrize(
    ("provider", "key", "says"),
    [({}, "sk-another", "Unauthorized"), ({"model": "another"}, KEY, SERVED_ANOTHER)],
)
def test_a_key_and_a_model_that_infinity_does_not_know_stop_the_job(
    tmp_path: Path, served: str, provider: Mapping[str, str], key: str, says: str
) -> None:
    """
    Before the first call, or at the first reply, and no group is rejected for it.
    """
    job = job_at(tmp_path, served, "infinity", "tiny").source(groups(30))
    job.write_key(key)
    asked = job.change(provider=provider).run()
    called = job.change(provider={**provider, "check": False}).run(restart=True)

    assert (3, 0, 0) == (asked.exit_code, asked.calls_now, asked.rejected)
    assert "infinity says before the first call: " in asked.reason
    assert (3, 1, 0) == (called.exit_code, called.calls_now, called.rejected)
    assert says in called.reason
