"""
`batchrank[local]` for real: whole runs with a model that was built here, in the environment that
has the extra, and what is said where it cannot be had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.small_jobs import Ran, SmallJob, groups
from tests.others.environments import ROOT, python_of
from tests.others.models import TOLERANCE, build, in_order, said_directly
from tests.others.serving import QUIET

pytestmark = pytest.mark.others

ROWS = groups(6, candidates=9)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder with the models.
    """
    return build(tmp_path_factory.mktemp("models") / "all")


def job_in(base: Path, model: object, **options: Any) -> SmallJob:
    """
    A job for a cross-encoder.
    """
    table = {"name": "crossencoder", "model": str(model), "options": options}
    return SmallJob(base, provider=table).source(ROWS)


def ran(job: SmallJob, command: str, *options: str) -> Ran:
    """
    Run a command on *job* where the extra is.
    """
    done = subprocess.run(
        [python_of("local"), "-m", "batchrank", command, job.file, *options],
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("activation", ["sigmoid", "identity"])
def test_scores_are_those_of_sentence_transformers(
    tmp_path: Path, models: Path, activation: str
) -> None:
    """
    Each at its document, in batches smaller than a group, and the model's name in every row;
    standard error has nothing but our own lines.
    """
    job = job_in(tmp_path, models / "tiny", activation=activation, batch_size=4)
    done = ran(job, "run")

    assert 0 == done.code, done.err
    expected = said_directly(models / "tiny", ROWS, activation)
    assert pytest.approx(expected, abs=TOLERANCE) == in_order(job.rows())
    assert len({round(score, 6) for score in expected}) > 40  # not all the same
    assert {(str(models / "tiny"), "sentence-transformers")} == {
        (row["model"], row["provider"]) for row in job.rows()
    }
    assert all(json.loads(line)["event"] for line in done.err.splitlines())
    assert 0 == ran(job, "verify").code


def test_the_same_job_gives_the_same_bytes_and_a_finished_one_needs_no_model(
    tmp_path: Path, models: Path
) -> None:
    """
    Scores do not depend on which groups are scored side by side; what is done is done.
    """
    outputs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        job = job_in(tmp_path / name, models / "tiny")
        job.change(limits={"concurrency_max": 1 if name == "a" else 8})
        assert 0 == ran(job, "run").code
        outputs.append([part.read_bytes() for part in job.parts()])
    again = job.run()  # here, where the extra is not

    assert outputs[0] == outputs[1]
    assert (0, 0) == (again.exit_code, again.calls_now)


def test_another_model_in_the_same_folder_is_not_mixed_in(tmp_path: Path, models: Path) -> None:
    """
    Its files are looked at, not its name.
    """
    shutil.copytree(models / "tiny", tmp_path / "mine")
    job = job_in(tmp_path, "./mine")
    assert 0 == ran(job, "run", "--limit", "2").code
    weights = tmp_path / "mine" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refused = ran(job, "run")

    assert 2 == refused.code
    assert "provider.model.files was" in refused.err
    assert 0 == ran(job, "run", "--restart").code


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("three", {}, "it gives 3 numbers for a pair, not one"),
        ("headless", {}, "its files hold no weights for a score"),
        ("nowhere", {}, "No model is there"),
        ("tiny", {"max_length": 65}, "takes 64 tokens, and provider.options.max_length is 65"),
        ("tiny", {"device": "cuda"}, "cannot be loaded: "),
    ],
)
def test_a_model_that_cannot_score_begins_nothing(
    tmp_path: Path, models: Path, model: str, options: dict[str, Any], says: str
) -> None:
    """
    It is refused with the job file's line, and nothing lies anywhere afterwards.
    """
    refused = ran(job_in(tmp_path, models / model, **options), "run")

    assert 2 == refused.code
    assert "provider.model: " in refused.err
    assert says in refused.err
    assert "Traceback" not in refused.err
    assert {"job.toml", "groups.parquet"} == {path.name for path in tmp_path.iterdir()}


def test_a_model_on_the_hub_is_named_with_its_commit(tmp_path: Path) -> None:
    """
    And one that cannot be fetched is told in a line.
    """
    job = job_in(tmp_path, "nobody/no-such-reranker", revision="0" * 40)
    refused = ran(job, "run")

    assert 2 == refused.code
    assert "provider.model: cannot be loaded: " in refused.err
    assert "Traceback" not in refused.err
