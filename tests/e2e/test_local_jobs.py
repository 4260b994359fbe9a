"""
What a job file may say of scorers in this process, and what is said where the extra is not there.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from batchrank.errors import JobError
from batchrank.examine.plan import plan
from batchrank.job.steering import controller_for
from tests.e2e.small_jobs import SmallJob, groups

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def job_in(base: Path, model: str | None, **options: Any) -> SmallJob:
    """
    A job for a cross-encoder; a model that is a folder is there.
    """
    (base / "m").mkdir()
    (base / "m" / "config.json").write_text("{}")
    table = {"name": "crossencoder", "model": model, "options": options}
    return SmallJob(base, provider=table).source(groups(3))


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        (None, {}, r"line 5: provider\.model: is missing \(a folder, as in"),
        ("org/m", {}, r"line 8: provider\.options\.revision: is missing \(the commit"),
        ("./m", {"revision": COMMIT}, r"line 8: provider\.options\.revision: is for models on the"),
        ("org/m", {"revision": "main"}, r"the 40 digits of a commit: a branch or a tag may move"),
        ("./m", {"device": "gpu"}, r'expected "cpu", "cuda", "cuda:1" or "mps"'),
        ("./m", {"batch": 8}, r"batch: .*batch_size"),
    ],
)
def test_what_is_wrong_with_a_model_is_told_with_its_line(
    tmp_path: Path, model: str | None, options: dict[str, Any], says: str
) -> None:
    """
    And a remedy, before anything is looked at.
    """
    with pytest.raises(JobError, match=says):
        job_in(tmp_path, model, **options).run()


def test_images_are_refused(tmp_path: Path) -> None:
    """
    A cross-encoder reads texts.
    """
    job = job_in(tmp_path, "./m").change(source={"image": "picture"})

    with pytest.raises(JobError, match=r"source\.image: cannot be sent"):
        job.run()


@pytest.mark.skipif(importlib.util.find_spec("sentence_transformers") is not None, reason="is here")
def test_without_the_extra_a_run_says_how_to_get_it_and_begins_nothing(tmp_path: Path) -> None:
    """
    While `plan` works, and tells the same; it needs no model.
    """
    job = job_in(tmp_path, "./m")
    before = {path.name for path in tmp_path.iterdir()}

    with pytest.raises(JobError, match=r"needs sentence-transformers: pip install 'batchrank\[lo"):
        job.run()

    assert before == {path.name for path in tmp_path.iterdir()}
    planned = plan(job.job)
    assert (3, True) == (planned.groups, planned.in_process)
    assert "`run` needs sentence-transformers: pip install 'batchrank[local]'" in planned.warnings


def test_groups_are_cut_only_where_pairs_are_scored_alone(tmp_path: Path) -> None:
    """
    The lexical scorer weighs a group's words against each other: halves of it are another group.
    """
    job = SmallJob(tmp_path).source(groups(2, candidates=7))
    whole = job.run()
    rows = job.rows()
    job.change(provider={"documents_max": 2})
    again = job.run(restart=True)

    assert (2, 2) == (whole.calls_now, again.calls_now)
    assert rows == job.rows()


def test_few_requests_wait_for_the_one_thread_that_computes(tmp_path: Path) -> None:
    """
    Unless the job says otherwise: whoever stops a run waits for all that is under way.
    """
    job = job_in(tmp_path, "./m")
    usual = controller_for(job.job.first, None).concurrency
    job.change(limits={"concurrency": 7})

    assert (2, 7) == (usual, controller_for(job.job.first, None).concurrency)


def test_pairs_that_are_scored_alone_may_be_reused_one_by_one(tmp_path: Path) -> None:
    """
    Unless the job says that they are not.
    """
    job = job_in(tmp_path, "./m").change(output={"reuse": "previous", "reuse_pairs": True})
    job.change(source={"path": "{date}.parquet"}, output={"path": "out/{date}"})

    assert job.job.config.output.reuse_pairs
    job.change(provider={"splits": False})
    with pytest.raises(JobError, match=r"reuse_pairs: needs scores that do not depend on the oth"):
        _ = job.job
