"""
`batchrank export`: what it takes, what it refuses, and what it says.
"""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.errors import OutputError
from batchrank.job.loading import Job
from batchrank.operate import export as exporting
from batchrank.operate.export import Options
from batchrank.store.formats.choice import FORMATS
from batchrank.store.output import OutputFolder
from tests.e2e.small_jobs import Ran, SmallJob, groups


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The folder of a job that is done.
    """
    rows = groups(5)
    rows[2]["documents"] = [{"id": "d2-0", "text": " "}, {"id": "d2-1", "text": None}]
    made = SmallJob(tmp_path_factory.mktemp("done")).source(rows)
    assert 0 == made.run().exit_code
    return made.base


@pytest.fixture
def job(tmp_path: Path, done: Path) -> SmallJob:
    """
    A job of five groups that is done; the third has nothing to send in it. It was moved here.
    """
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    return SmallJob(tmp_path)


def exported(job: SmallJob, file: str, *options: object) -> Ran:
    """
    Export to a file beside the job.
    """
    return job.cli("export", "--to", job.base / file, *options)


def files_in(job: SmallJob) -> dict[Path, bytes]:
    """
    Everything beside the job file, but for its state: whoever reads a ledger leaves a log there.
    """
    files = (path for path in job.base.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if ".batchrank" not in path.parts}


def in_json(row: dict[str, Any]) -> dict[str, Any]:
    """
    A row as JSON has it: bytes are Base64.
    """
    return {k: b64encode(v).decode() if isinstance(v, bytes) else v for k, v in row.items()}


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", [{"layout": "candidates"}, {"layout": "groups"}, {"top_n": 2}])
def test_every_form_holds_what_the_output_holds(job: SmallJob, output: dict[str, Any]) -> None:
    """
    In either layout, and as many of a group as the job keeps.
    """
    assert 0 == job.change(output=output).run().exit_code
    for file in ("a.run", "a.json", "a.csv", "a.jsonl", "a.db"):
        ran = exported(job, file)
        assert (0, "") == (ran.code, ran.err)

    rows = job.rows()
    if output.get("layout") == "groups":
        rows = [
            {"query_id": row["query_id"], **result} for row in rows for result in row["results"]
        ]
    scores = {(r["query_id"], r["doc_id"]): r["relevance_score"] for r in rows if r["rank"]}
    results = json.loads((job.base / "a.json").read_text())
    assert scores == {(q, d): score for q, found in results.items() for d, score in found.items()}
    run = [line.split() for line in (job.base / "a.run").read_text().splitlines()]
    assert [*scores] == [(query, document) for query, _, document, *_ in run]
    assert {"job"} == {line[-1] for line in run}
    with duckdb.connect() as connection:
        csv = connection.read_csv(str(job.base / "a.csv")).fetchall()
    assert [(r["query_id"], r["doc_id"], r["relevance_score"]) for r in rows] == [
        (row[0], row[1], row[4]) for row in csv
    ]
    held = [row for part in job.parts() for row in pq.read_table(part).to_pylist()]
    lines = [json.loads(line) for line in (job.base / "a.jsonl").read_text().splitlines()]
    assert [in_json(row) for row in held] == lines
    with duckdb.connect(str(job.base / "a.db"), read_only=True) as connection:
        assert held == connection.table("scores").to_arrow_table().to_pylist()


def test_it_says_what_it_wrote_and_what_it_left_out(job: SmallJob) -> None:
    """
    A line, and one for each thing to know; the same in JSON.
    """
    to = job.base / "new" / "a.run"
    said = job.cli("export", "--to", to).out.splitlines()
    told = job.cli("export", "--to", to, "--force", "--json").json

    files = [str(to), f"{to}.scores.tsv"]
    size = to.stat().st_size
    scored = [(row["query_id"], row["relevance_score"]) for row in job.rows() if row["rank"]]
    tied = len(scored) - len(set(scored))
    assert tied
    assert f"exported 12 rows of 4 queries from 1 part to {to} (trec, {size} bytes)" == said[0]
    assert "2 candidates left out: without a score" in said
    assert (
        f"{tied} scores lowered a little, because they were tied; as they were: {files[1]}" in said
    )
    assert {
        "job": "job",
        "format": "trec",
        "files": files,
        "file_bytes": size,
        "rows": 12,
        "queries": 4,
        "unscored": 2,
        "repeated": 0,
        "lowered": tied,
        "formulas": 0,
        "defused": 0,
        "parts": 1,
        "finished": True,
        "rejected": 0,
    } == told


def test_options_reach_their_format(job: SmallJob) -> None:
    """
    Names, columns and tables; a format may be said where the ending says none.
    """
    job.change(source={"carry": ["documents.text"]}).run()
    ran = [
        exported(job, "a.txt", "--format", "trec", "--run-name", "mine", "--doc-id", "index"),
        exported(job, "b.db", "--table", "night"),
        exported(job, "c.csv", "--spreadsheet"),
    ]

    assert [0, 0, 0] == [one.code for one in ran]
    assert (job.base / "a.txt").read_text().startswith("q1000 Q0 0 1 ")
    assert " mine\n" in (job.base / "a.txt").read_text()
    with duckdb.connect(str(job.base / "b.db"), read_only=True) as connection:
        assert [("night",)] == connection.execute("SHOW TABLES").fetchall()
    assert "text" in (job.base / "c.csv").read_text().splitlines()[0]


# --- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "options", "why"),
    [
        pytest.param("a.txt", (), "a.txt means no format (--format is one of trec", id="ending"),
        pytest.param("a.run", ("--format", "xml"), "--format: xml is none", id="no such format"),
        pytest.param("a.csv", ("--table", "t"), "--table: means nothing to csv", id="in vain"),
        pytest.param("a.run", ("--spreadsheet",), "(it is for csv)", id="in vain, and for whom"),
        pytest.param("out/a.csv", (), "which holds what batchrank itself has", id="output"),
        pytest.param(".batchrank/x/../a.csv", (), "", id="beside the state is allowed"),
        pytest.param(".", ("--format", "csv", "--force"), "is there and no file", id="a folder"),
        pytest.param("job.toml/a.csv", (), "cannot write", id="below a file"),
        pytest.param(f"{'a' * 251}.csv", (), "cannot be written", id="a name too long"),
        pytest.param(f"{'a' * 240}.run", (), "cannot be written", id="too long beside the run"),
        pytest.param(f"{'a' * 248}.csv", (), "cannot be written", id="too long aside"),
        pytest.param("a.db", ("--table", ""), "--table: is empty", id="a table without a name"),
    ],
)
def test_what_cannot_be_written_is_refused(
    job: SmallJob, file: str, options: tuple[str, ...], why: str
) -> None:
    """
    With the remedy, before anything is read.
    """
    before = files_in(job)
    ran = exported(job, file, *options)

    assert (bool(why), why in ran.err) == (ran.code != 0, True), ran.err
    assert not why or before == files_in(job)


@pytest.mark.parametrize(
    ("to", "why"), [("-", "→ name a file"), ("~nobody-of-that-name/a", "names no file")]
)
def test_what_is_no_file_is_refused(job: SmallJob, to: str, why: str) -> None:
    """
    Standard output, for which no file is made that is called "-"; and what leads nowhere.
    """
    ran = job.cli("export", "--to", to, "--format", "csv")

    assert (2, True) == (ran.code, why in ran.err), ran.err
    assert not Path(to).exists()


@pytest.mark.parametrize("through", ["as it is", "a link"])
def test_a_file_of_the_source_is_not_for_exports(job: SmallJob, through: str) -> None:
    """
    Not even by force: the texts are somebody's, and there may be no others.
    """
    source = job.base / "groups.parquet"
    before = source.read_bytes()
    to = source
    if through == "a link":
        to = job.base / "link"
        to.symlink_to(source)

    ran = job.cli("export", "--to", to, "--format", "csv", "--force")

    assert 2 == ran.code
    assert f"{source} is a file of the job's source" in ran.err
    assert before == source.read_bytes()


def test_the_state_is_not_for_exports(job: SmallJob) -> None:
    """
    The ledger least of all.
    """
    ledger = job.job.state.ledger
    ran = job.cli("export", "--to", ledger, "--format", "duckdb", "--force")

    assert 2 == ran.code
    assert "holds what batchrank itself has written" in ran.err


@pytest.mark.parametrize("file", ["a.run", "a.csv", "a.run.scores.tsv"])
def test_a_file_is_replaced_only_by_force(job: SmallJob, file: str) -> None:
    """
    So is the one that lies beside a run.
    """
    (job.base / file).write_text("mine")
    to = "a.run" if "run" in file else file
    refused = exported(job, to)

    assert (2, "mine") == (refused.code, (job.base / file).read_text())
    assert f"{file} is there already\n  → name another file, or replace it with --force" in (
        refused.err
    )
    assert 0 == exported(job, to, "--force").code
    assert "mine" != (job.base / file).read_text()


def test_what_is_not_finished_is_exported_only_if_asked(tmp_path: Path) -> None:
    """
    Its published parts, and it says so.
    """
    job = SmallJob(tmp_path, output={"part_groups": 2}).source(groups(5))
    never = exported(job, "a.csv")
    job.run(limit=4)
    refused, taken = exported(job, "a.csv"), exported(job, "a.csv", "--partial")

    assert (2, 2, 0) == (never.code, refused.code, taken.code)
    assert "run the job first" in never.err
    assert "no _SUCCESS: it is not finished" in refused.err
    assert "--partial" in refused.err
    assert taken.out.startswith("exported 12 rows from 2 parts")
    assert "the output is not finished: only its published parts are in it" in taken.out


@pytest.mark.parametrize("damage", ["bytes", "missing"])
def test_a_damaged_output_is_not_exported(job: SmallJob, damage: str) -> None:
    """
    The run mends it without a call.
    """
    part = job.parts()[0]
    if damage == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes() + b"x")
    ran = exported(job, "a.csv")

    assert 2 == ran.code
    assert "part-00000.parquet: damaged, missing or to be rendered again" in ran.err
    assert not (job.base / "a.csv").exists()
    assert (0, 0) == (job.run().exit_code, exported(job, "a.csv").code)


def test_an_output_that_changes_meanwhile_is_not_exported(
    job: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Here a run renders other parts between the look at them and the reading.
    """
    looked = exporting._check_whole

    def then_changed(output: OutputFolder, parts: Any) -> None:
        looked(output, parts)
        job.change(output={"top_n": 1}).run()

    monkeypatch.setattr(exporting, "_check_whole", then_changed)
    loaded: Job = job.job
    with pytest.raises(OutputError, match="was changed by a run while it was exported"):
        exporting.export(loaded, job.base / "a.csv", Options())
    assert not (job.base / "a.csv").exists()


def test_a_night_without_groups_is_exported_too(tmp_path: Path) -> None:
    """
    As empty as it was.
    """
    job = SmallJob(tmp_path).source(pa.Table.from_pylist(groups(1)).slice(0, 0))
    job.run()
    codes = [exported(job, file).code for file in ("a.run", "a.json", "a.csv", "a.jsonl", "a.db")]

    assert [0] * len(FORMATS) == codes
    assert ("", "{}\n", "") == tuple(
        (job.base / file).read_text() for file in ("a.run", "a.json", "a.jsonl")
    )
    assert 1 == len((job.base / "a.csv").read_text().splitlines())
