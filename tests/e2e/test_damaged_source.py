"""
A source that breaks in the middle, and is mended: what was paid for is kept and never paid again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.errors import Exit
from batchrank.store.reading import LedgerReader
from tests.e2e.small_jobs import Heard, Liar, Row, SmallJob, expected, groups, http
from tests.rehearsing import Server

pytestmark = pytest.mark.campaign

GROUPS, ROW_GROUP = 60, 20
ROWS = groups(GROUPS)


@pytest.fixture
def job(server: Server, tmp_path: Path) -> SmallJob:
    """
    A job over three row groups, sound as yet.
    """
    return written(SmallJob(tmp_path, server.port, output={"part_groups": 25}), ROWS)


def written(job: SmallJob, rows: list[Any], **options: Any) -> SmallJob:
    """
    Write the source with checksums, its texts as they are.
    """
    table = pa.Table.from_pylist(rows)
    options = {"compression": "none", "use_dictionary": False, **options}
    return job.source(table, row_group_size=ROW_GROUP, write_page_checksum=True, **options)


def overwrite_pages(body: bytearray, path: Path) -> None:
    """
    The second row group's texts become bytes of nonsense, headers and all.
    """
    chunk = pq.read_metadata(path).row_group(1).column(3)
    start, length = chunk.data_page_offset, chunk.total_compressed_size
    body[start : start + length] = b"\xff" * length


def change_a_letter(body: bytearray, _path: Path) -> None:
    """
    One letter of one text: only the page's checksum can tell.
    """
    at = body.index(b"passage 1 about subject 30")
    body[at : at + 7] = b"message"


DAMAGES = [
    pytest.param(overwrite_pages, id="a page of nonsense"),
    pytest.param(change_a_letter, id="a wrong checksum"),
]
Damage = Callable[[bytearray, Path], None]


def damaged(job: SmallJob, damage: Damage) -> bytes:
    """
    Damage the source; returns the bytes that it had.
    """
    path = job.base / "groups.parquet"
    sound = path.read_bytes()
    body = bytearray(sound)
    damage(body, path)
    path.write_bytes(body)
    return sound


def check_half_done(job: SmallJob, server: Server) -> None:
    """
    The run ended with exit 2 and the place, and the ledger has all that the server charged.
    """
    ran = job.cli("run")
    ended = ran.events[-1]

    assert 2 == ran.code
    assert "groups.parquet: row group 1 (counted from 0) cannot be decoded" in ended["reason"]
    assert "mend the file and run again with --accept groups.parquet" in ended["notes"]
    assert "groups.parquet: row group 1" in ran.out
    with LedgerReader.open(job.state / "ledger.sqlite") as ledger:
        durable = ledger.count_ranked(0, GROUPS)
    assert ROW_GROUP == durable == server.admin()["billed_calls"]
    assert ended["ranked"] == durable


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_read_before_the_damage_is_kept(
    job: SmallJob, server: Server, damage: Damage
) -> None:
    """
    It is named by file and row group; with the file as it was, a plain run carries on.
    """
    sound = damaged(job, damage)
    check_half_done(job, server)
    check_half_done(job, server)
    (job.base / "groups.parquet").write_bytes(sound)
    summary = job.run()

    assert (Exit.DONE, GROUPS - ROW_GROUP) == (summary.exit_code, summary.calls_now)
    assert GROUPS == server.admin()["billed_calls"]
    assert expected(ROWS) == job.rows()
    assert () == summary.accepted
    assert 0 == job.cli("verify").code


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("rerendered", [False, True], ids=["as it is", "in another layout"])
def test_a_file_that_was_written_anew_is_accepted_by_name(
    job: SmallJob, server: Server, damage: Damage, rerendered: bool
) -> None:
    """
    `run` refuses it and says how to accept it; then nothing is paid twice, and the summary tells.
    """
    damaged(job, damage)
    check_half_done(job, server)
    written(job, ROWS, compression="zstd")
    refused = job.cli("run")
    if rerendered:
        job.change(output={"top_n": 2, "part_groups": 7})
    ran = job.cli("run", "--accept", "groups.parquet")

    assert 2 == refused.code
    assert "groups.parquet changed: it had" in refused.err
    assert "a mended source file is taken with --accept FILE" in refused.err
    assert 0 == ran.code
    assert GROUPS == server.admin()["billed_calls"]
    assert expected(ROWS, 2 if rerendered else None) == job.rows()
    assert "accepted groups.parquet" in ran.out
    assert "groups.parquet was mended in mid-run: outcomes from before stay as they are" in ran.out
    assert 0 == job.cli("verify").code
    # From now on it is the file that belongs to the output.
    assert (0, GROUPS) == (job.cli("run").code, server.admin()["billed_calls"])


def test_a_file_with_other_row_counts_is_never_accepted(job: SmallJob, server: Server) -> None:
    """
    Groups would change their positions; `--accept` is not even proposed.
    """
    damaged(job, overwrite_pages)
    check_half_done(job, server)
    job.source(ROWS, row_group_size=15)
    for options in ((), ("--accept", "groups.parquet")):
        ran = job.cli("run", *options)

        assert 2 == ran.code
        assert "it had 3 row groups and has 4, so that --accept is not possible" in ran.err
        assert "--accept FILE" not in ran.err
    assert ROW_GROUP == server.admin()["billed_calls"]


def test_another_setting_is_not_taken_for_a_mended_file(job: SmallJob, server: Server) -> None:
    """
    Whatever its value says.
    """
    job.source(ROWS, row_group_size=ROW_GROUP)
    assert Exit.DONE == job.run().exit_code
    job.change(provider={"model": "a/model changed: another"})
    ran = job.cli("run")

    assert 2 == ran.code
    assert "provider.model was" in ran.err
    assert "--accept FILE" not in ran.err
    assert GROUPS == server.admin()["billed_calls"]


def test_a_file_with_other_types_is_never_accepted(job: SmallJob, server: Server) -> None:
    """
    A part has one type a column; the file that fits is still taken afterwards.
    """
    before = [{**row, "stamp": n + 0.5} for n, row in enumerate(ROWS)]
    job.source(before).change(source={"carry": ["stamp"]})
    job.run(limit=10)
    job.source([{**row, "stamp": n} for n, row in enumerate(ROWS)])
    ran = job.cli("run", "--accept", "groups.parquet")
    job.source(before, compression="none")

    assert 2 == ran.code
    assert "stamp was double, now it is int64" in ran.err
    assert 10 == server.admin()["billed_calls"]
    assert 0 == job.cli("run", "--accept", "groups.parquet").code
    assert 0 == job.cli("verify").code


def test_an_accepted_file_is_named_as_the_shell_names_it(job: SmallJob, server: Server) -> None:
    """
    By its path from here, or its whole path, or its path in the source.
    """
    job.run(limit=5)
    written(job, ROWS, compression="zstd")

    assert 0 == job.cli("run", "--accept", job.base / "groups.parquet").code
    assert GROUPS == server.admin()["billed_calls"]


# --- mended, and not the same ---------------------------------------------------------------------


def renamed(row: Row) -> dict[str, Any]:
    """
    The group under another id, with one candidate less.
    """
    return {**row, "query_id": f"new-{row['query_id']}", "documents": row["documents"][1:]}


@pytest.mark.parametrize("scored", [1, 5, ROW_GROUP, 33])
def test_scores_stand_beside_the_ids_that_they_were_asked_with(
    job: SmallJob, server: Server, scored: int
) -> None:
    """
    A batch that was read from both files has the old ids where the old texts were scored, the new
    ones elsewhere; never a mixture.
    """
    job.run(limit=scored)
    written(job, [renamed(row) for row in ROWS])
    summary = job.run(accept=["groups.parquet"])

    assert Exit.DONE == summary.exit_code
    assert GROUPS == server.admin()["billed_calls"]
    assert expected([*ROWS[:scored], *(renamed(row) for row in ROWS[scored:])]) == job.rows()
    assert 0 == job.cli("verify").code


def test_a_reject_that_is_retried_has_the_ids_of_the_mended_file(
    job: SmallJob, server: Server
) -> None:
    """
    It was never scored, so nothing of the old file belongs to it.
    """
    server.turn(faults=["400=subject 2"])
    job.change(output={"rejected_max": GROUPS})
    job.run()
    rejected = {reject["position"] for reject in job.rejects()}
    new = [renamed(row) for row in ROWS]
    written(job, new)
    server.turn(faults=[])
    kept = job.run(accept=["groups.parquet"])
    before = job.rows()
    done = job.run(retry_rejects=True)

    assert {2, *range(20, 30)} == rejected
    assert (0, 0) == (kept.calls_now, kept.exit_code)
    assert expected([row for n, row in enumerate(ROWS) if n not in rejected]) == before
    assert (Exit.DONE, len(rejected)) == (done.exit_code, done.calls_now)
    assert expected([new[n] if n in rejected else row for n, row in enumerate(ROWS)]) == job.rows()
    assert 0 == job.cli("verify").code


def test_rejects_of_a_mended_file_may_be_retried_by_and_by(job: SmallJob, server: Server) -> None:
    """
    A run that retries some of them and one that retries none leave an output that is whole.
    """
    server.turn(faults=["400=subject"])
    job.change(output={"rejected_max": GROUPS}, limits={"concurrency_max": 1})
    job.run(limit=10)
    server.turn(faults=[])
    new = [renamed(row) for row in ROWS]
    written(job, new)
    job.run(accept=["groups.parquet"], retry_rejects=True, limit=4)
    summary = job.run()

    assert (Exit.DONE, 6) == (summary.exit_code, summary.rejected)
    assert expected([*new[:4], *new[10:]]) == job.rows()
    assert 0 == job.cli("verify").code


def test_halves_of_a_group_are_not_mixed_from_two_files(tmp_path: Path) -> None:
    """
    A group that was asked about in two requests, of which one was answered, is asked about anew.
    """
    rows = groups(1, candidates=4)
    answered: list[int] = []

    def answer(heard: Heard) -> bytes:
        texts = heard.asked["documents"]
        if len(texts) > 2:
            return http({"error": {"code": 413, "message": "too large"}}, 413)
        if answered and not texts[0].startswith("mended"):
            return http({"error": {"code": 402, "message": "no credit"}}, 402)
        answered.append(len(texts))
        return http(heard.reply())

    with Liar(answer) as liar:
        job = SmallJob(tmp_path, liar.port, limits={"concurrency_max": 1}).source(rows)
        stopped = job.run()
        mended = [{**rows[0], "documents": [{"id": "m", "text": "mended text"}]}]
        job.source(mended)
        done = job.run(accept=["groups.parquet"])

    assert (Exit.PERSON, Exit.DONE) == (stopped.exit_code, done.exit_code)
    assert [2, 1] == answered
    assert expected(mended) == job.rows()


def test_what_an_accepted_file_held_before_cannot_be_carried_anew(
    job: SmallJob, server: Server
) -> None:
    """
    The columns of groups that were scored from the old file are gone with it.
    """
    job.run(limit=5)
    written(job, [renamed(row) for row in ROWS])
    job.run(accept=["groups.parquet"])
    job.change(source={"carry": ["query"]})
    ran = job.cli("run")

    assert 2 == ran.code
    assert "source.carry: cannot change any more, because groups.parquet was mended" in ran.err
    assert 0 == job.change(source={"carry": None}).cli("run").code
    assert 0 == job.cli("verify").code


def test_a_mended_file_that_is_refused_for_something_else_is_not_taken(
    job: SmallJob, server: Server
) -> None:
    """
    Nothing is changed: with the old file back it is as if nobody had asked.
    """
    job.run(limit=5)
    written(job, [renamed(row) for row in ROWS])
    job.change(source={"carry": ["query"]})
    refused = job.cli("run", "--accept", "groups.parquet")
    written(job, ROWS)
    summary = job.run()

    assert 2 == refused.code
    assert "source.carry: cannot change any more, because groups.parquet was" in refused.err
    assert (0, ()) == (summary.exit_code, summary.accepted)
    assert ROWS[0]["query"] == job.rows()[0]["query"]
    assert GROUPS == server.admin()["billed_calls"]


# --- changed while it is read ---------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    """
    As a value: what is under way comes home, and what was read is kept.
    """
    rows = groups(600, candidates=1)

    def answer(heard: Heard) -> bytes:
        if heard.number == 5:
            other = [*rows[:300], *(renamed(row) for row in groups(300, candidates=2))]
            pq.write_table(pa.Table.from_pylist(other), tmp_path / "b.parquet")
        return http(heard.reply())

    with Liar(answer) as liar:
        job = SmallJob(tmp_path, liar.port, source={"path": "*.parquet"})
        job.source(rows[:300], "a.parquet").source(rows[300:], "b.parquet")
        ran = job.cli("run")

    assert 2 == ran.code
    assert "b.parquet was changed while this job was reading it" in ran.out
    assert len(liar.heard) == len(job.calls()) == ran.events[-1]["ranked"] == 300
