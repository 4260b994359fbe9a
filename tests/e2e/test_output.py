"""
The output as others read it, and as it stays: parts, `_SUCCESS`, calls and rejects.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchrank
from batchrank.config.schema import SourceTable
from batchrank.domain import UNSCORED, Empty, Outcome, Ranked, Rejected, RejectKind, Served, Share
from batchrank.errors import Exit, JobError
from batchrank.events import PartPublished
from batchrank.policy.amounts import Amount
from batchrank.policy.digest import content_of, digest_of
from batchrank.source import open_source
from batchrank.store.exports import CALLS, REJECTS
from batchrank.store.ledger import Ledger, Records
from batchrank.store.parts import Layout, render, schema_of
from batchrank.testing import RecordingReporter
from tests.e2e.small_jobs import MODEL, PROVIDER, Heard, Liar, Row, SmallJob, expected, groups, http
from tests.edges.ledgers import for_now
from tests.laws import law
from tests.rehearsing import Server


@pytest.fixture
def job(server: Server, tmp_path: Path) -> SmallJob:
    """
    A job of 30 groups in three parts.
    """
    return SmallJob(tmp_path, server.port, output={"part_groups": 12}).source(groups(30))


# --- what readers see -----------------------------------------------------------------------------


def nested(rows: Sequence[Row], carried: Sequence[str] = ()) -> list[dict[str, Any]]:
    """
    Rows of the layout `candidates` in the layout `groups`; groups are those of neighbours.
    """
    found: list[dict[str, Any]] = []
    for row in rows:
        outer = {name: row[name] for name in ("query_id", *carried)}
        if not found or found[-1]["query_id"] != row["query_id"]:
            found.append({**outer, "results": []})
        inner = {name: value for name, value in row.items() if name not in outer}
        found[-1]["results"].append(inner)
    return found


def by_pyarrow(folder: Path) -> list[dict[str, Any]]:
    """
    The folder as a dataset.
    """
    return ds.dataset(folder).to_table().to_pylist()  # type: ignore[no-any-return] # pyarrow has no types


def by_duckdb(folder: Path) -> list[dict[str, Any]]:
    """
    Its Parquet files by SQL.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        read = connection.sql(f"SELECT * FROM read_parquet('{folder}/*.parquet')")
        return read.to_arrow_table().to_pylist()  # type: ignore[no-any-return] # as above


def by_polars(folder: Path) -> list[dict[str, Any]]:
    """
    The folder as it is, `_SUCCESS` and all.
    """
    return pl.scan_parquet(folder).collect().to_dicts()


def as_spark_does(folder: Path) -> list[dict[str, Any]]:
    """
    By Spark's rule: every file is data but those whose names begin with `_` or a dot.
    """
    names = sorted(p.name for p in folder.rglob("*") if not p.name.startswith(("_", ".")))
    return [row for name in names for row in pq.read_table(folder / name).to_pylist()]


READERS = (by_pyarrow, by_duckdb, by_polars, as_spark_does)


def digests_in(rows: Sequence[Row]) -> list[bytes | None]:
    """
    The digest of each row; `test_reuse` is about what they are.
    """
    return [row["digest"] for row in rows]


def without_digests(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """
    All else.
    """
    return [{name: row[name] for name in row if name != "digest"} for row in rows]


def spotty(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """
    Groups with documents that are null or blank, a group of nothing else, and one without any.
    """
    blank = [{"id": "n", "text": None}, {"id": "e", "text": ""}, {"id": "s", "text": " \n"}]
    some, none, empty, *others = (dict(row) for row in rows)
    some["documents"] = [blank[0], *some["documents"], *blank[1:]]
    none["documents"] = blank
    empty["documents"] = []
    return [some, none, empty, *others]


def tied(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """
    Groups in which the same text stands several times, and so has the same score.
    """
    return [{**row, "documents": [*row["documents"], *row["documents"]]} for row in rows]


SHAPES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "structs": (groups(30), {}),
    "integer ids": (
        [{**row, "query_id": 2**40 - n} for n, row in enumerate(groups(30))],
        {},
    ),
    "no query ids": (
        [{**row, "query_id": n} for n, row in enumerate(groups(30))],
        {"query_id": None},
    ),
    "texts without ids": (
        [{**row, "documents": [d["text"] for d in row["documents"]]} for row in groups(30)],
        {"doc_id": None},
    ),
    "nulls and blanks": (spotty(groups(30)), {}),
    "ties": (tied(groups(30)), {}),
    "letters of the world": (
        [
            {**row, "query": f"{row['query']} \u00fc\u4e2d\U0001f980\u0000\u2028"}
            for row in groups(30)
        ],
        {},
    ),
}


WAYS = [
    pytest.param("candidates", None, id="candidates-all"),
    pytest.param("groups", 2, id="groups-top_n"),
    pytest.param("candidates", 2, id="candidates-top_n", marks=pytest.mark.campaign),
    pytest.param("groups", None, id="groups-all", marks=pytest.mark.campaign),
]
"""Each layout and each cut meets each shape in the fast tests; all three meet in the campaigns."""


@pytest.mark.parametrize(("layout", "top_n"), WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_reader_sees_the_same_rows(
    job: SmallJob, shape: str, layout: str, top_n: int | None
) -> None:
    """
    The server's scores, beside the ids they belong to, ranked; from the folder as it lies there.
    """
    rows, source = SHAPES[shape]
    job.source(rows).change(source=source, output={"layout": layout, "top_n": top_n})
    summary = job.run()
    candidates = expected(rows, top_n)
    wanted = candidates if layout == "candidates" else nested(candidates)
    if layout == "groups" and top_n and shape == "nulls and blanks":
        wanted.insert(1, {"query_id": rows[1]["query_id"], "results": []})

    assert (Exit.DONE, 3) == (summary.exit_code, summary.parts)
    assert ["_SUCCESS", *(f"part-{n:05}.parquet" for n in range(3))] == sorted(
        path.name for path in job.output.rglob("*")
    )
    assert b"" == (job.output / "_SUCCESS").read_bytes()
    first = digests_in(by_pyarrow(job.output))
    for reader in READERS:
        found = reader(job.output)
        assert first == digests_in(found), reader.__name__
        assert wanted == without_digests(found), reader.__name__
    assert 0 == job.cli("verify").code


def carried_table(count: int) -> pa.Table:
    """
    Groups with columns and fields of many types, many of them null.
    """
    many = [n % 3 == 0 for n in range(count)]
    at = [datetime(2026, 1, 1, n % 24, tzinfo=UTC) for n in range(count)]
    documents = [
        [
            {
                "id": f"d{n}-{i}",
                "text": f"text {i} of {n}",
                "price": Decimal(n) / 4,
                "tags": ["x"] * i,
            }
            for i in range(3)
        ]
        for n in range(count)
    ]
    rare = [n if many[n] else None for n in range(count)]
    columns: dict[str, pa.Array] = {
        "query_id": pa.array([f"q{n}" for n in range(count)]),
        "query": pa.array([f"query {n}" for n in range(count)]),
        "documents": pa.array(
            documents,
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("text", pa.string()),
                        ("price", pa.decimal128(12, 2)),
                        ("tags", pa.list_(pa.string())),
                    ]
                )
            ),
        ),
        "at": pa.array(at, pa.timestamp("us", tz="UTC")),
        "day": pa.array([date(2026, 11, 1 + n % 28) for n in range(count)]),
        "amount": pa.array([Decimal(n) / 100 for n in range(count)], pa.decimal128(20, 4)),
        "words": pa.array([["a"] * (n % 4) if many[n] else None for n in range(count)]),
        "place": pa.array([{"x": n, "y": None} if many[n] else None for n in range(count)]),
        "market": pa.array([["de", "fr", None][n % 3] for n in range(count)]).dictionary_encode(),
        "rare": pa.array(rare, pa.int8()),
        "ratio": pa.array([n / 3 for n in range(count)], pa.float32()),
        "flag": pa.array([None if many[n] else True for n in range(count)]),
        "raw": pa.array([bytes([n]) for n in range(count)]),
        "never": pa.nulls(count, pa.string()),
    }
    return pa.table(columns)


OUTER = ("at", "day", "amount", "words", "place", "market", "rare", "ratio", "flag", "raw", "never")
INNER = ("price", "tags")


@pytest.mark.parametrize("layout", ["candidates", "groups"])
def test_columns_of_many_types_are_carried(job: SmallJob, layout: str) -> None:
    """
    Values arrive as they were, in every reader.
    """
    table = carried_table(30)
    carry = [*OUTER, *(f"documents.{name}" for name in INNER)]
    job.source(table).change(source={"carry": carry}, output={"layout": layout})
    rows = table.to_pylist()
    wanted = []
    for line in expected(rows):
        row = rows[int(line["query_id"].removeprefix("q"))]
        document = row["documents"][line["index"]]
        carried = {name: row[name] for name in OUTER} | {name: document[name] for name in INNER}
        wanted.append({**line, **carried})

    assert Exit.DONE == job.run().exit_code
    for reader in READERS:
        found = without_digests(reader(job.output))
        if layout == "candidates":
            assert wanted == found, reader.__name__
        else:
            assert nested(wanted, OUTER) == found, reader.__name__
    assert 0 == job.cli("verify").code


# --- a law ----------------------------------------------------------------------------------------

SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 0.5, 1.0]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.none(),
)
Scores = Sequence[float | None]
"""Of one group; None is a document without a score."""


@st.composite
def outcomes(draw: st.DrawFn) -> list[Scores | None]:
    """
    The scores of some groups, or None for one that was rejected.
    """
    group = st.one_of(st.none(), st.lists(SCORES, max_size=6))
    return draw(st.lists(group, min_size=1, max_size=12))


def naive(groups_of_scores: Sequence[Scores | None], top_n: int | None) -> list[dict[str, Any]]:
    """
    The rows, one after the other, without any cleverness.
    """
    rows = []
    for n, scores in enumerate(groups_of_scores):
        left = list(enumerate(scores or ()))
        ranked = []
        while any(score is not None for _, score in left):
            best = max(score for _, score in left if score is not None)
            first = next(pair for pair in left if pair[1] == best)
            left.remove(first)
            ranked.append(first)
        places: list[tuple[int, float | None, int | None]] = [
            (index, score, rank) for rank, (index, score) in enumerate(ranked, 1)
        ]
        places = places[:top_n] if top_n else [*places, *((i, None, None) for i, _ in left)]
        for index, score, rank in places:
            upper = index < 2
            rows.append(
                {
                    "query_id": f"q{n}",
                    "doc_id": f"d{n}-{index}",
                    "index": index,
                    "rank": rank,
                    "relevance_score": score,
                    "model": MODEL if ranked else None,
                    "provider": ("A" if upper else None) if ranked else None,
                    "digest": digest_of(b"", content_of("q", ["t"] * len(scores or ()))),
                    "market": f"m{n % 2}",
                    "price": index * 10 + n,
                }
            )
    return rows


def outcome(position: int, scores: Scores | None) -> Outcome:
    """
    The outcome of a group, its first two candidates served by another than the rest.
    """
    if scores is None:
        return Rejected(position, f"q{position}", RejectKind.BAD_GROUP, "no")
    if not scores:
        return Empty(position)
    who = [Share(2, Served(MODEL, "A")), Share(len(scores), Served(MODEL, None))]
    shares = tuple(who if len(scores) > 2 else [Share(len(scores), who[0].served)])
    asked = any(score is not None for score in scores)
    numbers = tuple(UNSCORED if score is None else score for score in scores)
    return Ranked(position, numbers, shares if asked else ())


@law(30)
@given(
    outcomes(),
    st.sampled_from(["candidates", "groups"]),
    st.sampled_from([None, 1, 3]),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_parts_are_what_a_plain_loop_would_write(
    held: list[Scores | None],
    layout: str,
    top_n: int | None,
    part_groups: int,
    chance: Any,
) -> None:
    """
    Whatever the scores are, in whichever order they became durable, however parts are cut.
    """
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        documents = [
            [
                {"id": f"d{n}-{i}", "text": "t", "price": i * 10 + n}
                for i in range(len(scores or ()))
            ]
            for n, scores in enumerate(held)
        ]
        table = pa.table(
            {
                "query_id": [f"q{n}" for n in range(len(held))],
                "query": ["q"] * len(held),
                "market": [f"m{n % 2}" for n in range(len(held))],
                "documents": pa.array(documents, DOCUMENTS),
            }
        )
        pq.write_table(table, base / "a.parquet", row_group_size=4)
        source = open_source(
            SourceTable(
                path="a.parquet",
                query_id="query_id",
                doc_id="id",
                carry=("market", "documents.price"),
            ),
            base,
        )
        ledger = for_now()
        ledger.set_meta({"part_groups": part_groups})
        found = [outcome(n, scores) for n, scores in enumerate(held)]
        chance.shuffle(found)
        carried = list(source.carried_batches(len(held)))
        chance.shuffle(carried)
        ledger.commit(Records(carried=carried))
        for one in found:
            ledger.commit(Records(outcomes=[one]))
        shape = Layout("groups" if layout == "groups" else "candidates", top_n, part_groups)
        schema = schema_of(source.no_rows(), shape)
        rows: list[dict[str, Any]] = []
        for start in range(0, len(held), part_groups):
            path = base / f"part-{start}"
            render(ledger, shape, start, min(start + part_groups, len(held)), schema, path)
            rows += pq.read_table(path).to_pylist()
        ledger.close()
    if layout == "groups":
        rows = [
            {**{name: row[name] for name in ("query_id", "digest", "market")}, **result}
            for row in rows
            for result in row["results"]
        ]

    assert list(map(exactly, naive(held, top_n))) == list(map(exactly, rows))


DOCUMENTS = pa.list_(pa.struct([("id", pa.string()), ("text", pa.string()), ("price", pa.int64())]))


def exactly(row: Mapping[str, Any]) -> dict[str, Any]:
    """
    A row in which zero and minus zero are two.
    """
    score = row["relevance_score"]
    return {**row, "sign": None if score is None else math.copysign(1, score)}


# --- rendering again ------------------------------------------------------------------------------


def changed(job: SmallJob, change: Mapping[str, Mapping[str, Any]]) -> list[PartPublished]:
    """
    Run *job* with other settings; returns the parts that were published.
    """
    heard = RecordingReporter()
    job.change(**change)
    job.run(listeners=[heard])
    return heard.of(PartPublished)


CHANGES = [
    pytest.param({"output": {"layout": "groups"}}, 3, id="layout"),
    pytest.param({"output": {"top_n": 1}}, 3, id="top_n"),
    pytest.param({"output": {"part_groups": 7}}, 5, id="smaller parts"),
    pytest.param({"output": {"part_groups": 100}}, 1, id="one part"),
    pytest.param({"source": {"carry": ["query"]}}, 3, id="carry"),
    pytest.param(
        {"output": {"layout": "groups", "part_groups": 9}, "source": {"carry": ["documents.text"]}},
        4,
        id="all at once",
    ),
]


Change = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def begun_so(
    rehearsal: Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Change], list[bytes]]:
    """
    The parts of a run that began with a change; it is run when it is first asked for.
    """
    found: dict[str, list[bytes]] = {}

    def parts(change: Change) -> list[bytes]:
        if repr(change) not in found:
            folder = tmp_path_factory.mktemp("fresh")
            fresh = SmallJob(folder, rehearsal.port, output={"part_groups": 12})
            fresh.source(groups(30)).change(**change).run()
            found[repr(change)] = [part.read_bytes() for part in fresh.parts()]
            rehearsal.reset()
        return found[repr(change)]

    return parts


MOMENTS = [
    pytest.param(17, id="in mid-run"),  # some parts are there, some half done, some not begun
    pytest.param(30, id="finished", marks=pytest.mark.campaign),
    pytest.param(1, id="at the beginning", marks=pytest.mark.campaign),
]


@pytest.mark.parametrize("done", MOMENTS)
@pytest.mark.parametrize(("change", "parts"), CHANGES)
def test_another_shape_costs_nothing(
    job: SmallJob,
    server: Server,
    begun_so: Callable[[Change], list[bytes]],
    change: dict[str, dict[str, Any]],
    parts: int,
    done: int,
) -> None:
    """
    Every group is asked about once, and the parts are those of a run that began so.
    """
    fresh = begun_so(change)
    job.run(limit=done)
    changed(job, change)

    assert 30 == server.admin()["billed_calls"]
    assert parts == len(job.parts())
    assert fresh == [part.read_bytes() for part in job.parts()]
    assert (job.output / "_SUCCESS").exists()
    assert 0 == job.cli("verify").code


def test_a_shape_that_is_changed_back_gives_the_same_bytes(job: SmallJob, server: Server) -> None:
    """
    Parts are a function of scores and settings, and of nothing that passed in between.
    """
    job.run()
    before = [part.read_bytes() for part in job.parts()]
    changed(job, {"output": {"layout": "groups", "part_groups": 5}})
    changed(job, {"output": {"layout": "candidates", "part_groups": 12}})

    assert before == [part.read_bytes() for part in job.parts()]
    assert 30 == server.admin()["billed_calls"]


def test_retried_rejects_render_their_parts_alone(job: SmallJob, server: Server) -> None:
    """
    The other parts keep their bytes and their files.
    """
    server.turn(faults=["400=subject 20", "400=subject 22"])
    rows = groups(30)
    missing = job.run()
    before = {part.name: (part.read_bytes(), part.stat().st_ino) for part in job.parts()}
    server.turn(faults=[])
    heard = RecordingReporter()
    done = job.run(retry_rejects=True, listeners=[heard])
    after = {part.name: (part.read_bytes(), part.stat().st_ino) for part in job.parts()}

    assert (Exit.REJECTS, 2, False) == (missing.exit_code, missing.rejected, missing.success)
    assert (Exit.DONE, 0, 2) == (done.exit_code, done.rejected, done.calls_now)
    assert [(1, True)] == [(part.part, part.again) for part in heard.of(PartPublished)]
    assert ["part-00001.parquet"] == [name for name in before if before[name] != after[name]]
    assert expected(rows) == job.rows()
    assert [] == job.rejects()
    assert 0 == job.cli("verify").code


# --- damage ---------------------------------------------------------------------------------------


def delete(part: Path) -> None:
    """
    Somebody tidied up.
    """
    part.unlink()


def truncate(part: Path) -> None:
    """
    A copy that was broken off.
    """
    part.write_bytes(part.read_bytes()[:-20])


def flip(part: Path) -> None:
    """
    One bit of one byte.
    """
    body = bytearray(part.read_bytes())
    body[len(body) // 2] ^= 1
    part.write_bytes(body)


def replace_with_another(part: Path) -> None:
    """
    A sound part, of other groups.
    """
    part.write_bytes((part.parent / "part-00000.parquet").read_bytes())


DAMAGES = [delete, truncate, flip, replace_with_another]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_found_and_mended(
    job: SmallJob, server: Server, damage: Callable[[Path], None]
) -> None:
    """
    From the ledger, without a call, to the same bytes.
    """
    job.run()
    part = job.parts()[1]
    before = part.read_bytes()
    damage(part)
    found = job.cli("verify")
    mended = job.cli("run")

    assert 1 == found.code
    wrong = "files: missing" if damage is delete else "checksums"
    assert f"BAD {wrong}: part-00001.parquet" in found.out
    assert (0, before) == (mended.code, part.read_bytes())
    assert "parts damaged or missing, rendered again: 1" in mended.err
    assert 30 == server.admin()["billed_calls"]
    assert 0 == job.cli("verify").code


def test_a_missing_success_comes_back(job: SmallJob, server: Server) -> None:
    """
    Without a call, and without touching a part.
    """
    job.run()
    inodes = [part.stat().st_ino for part in job.parts()]
    (job.output / "_SUCCESS").unlink()

    assert 1 == job.cli("verify").code
    assert (0, 0) == (job.cli("run").code, job.cli("verify").code)
    assert inodes == [part.stat().st_ino for part in job.parts()]
    assert 30 == server.admin()["billed_calls"]


@pytest.mark.parametrize("name", ["notes.csv", "part-00099.parquet", "sub/part-00000.parquet"])
def test_a_foreign_file_is_told(job: SmallJob, name: str) -> None:
    """
    By `verify`; by `run` too, unless it has the name of a part. It is not ours to delete.
    """
    job.run()
    foreign = job.output / name
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(b"not ours")
    found = job.cli("verify")
    ran = job.cli("run")

    assert 1 == found.code
    assert f"BAD files: not ours: {name.partition('/')[0]}" in found.out
    assert 0 == ran.code
    assert foreign.exists()
    if not name.startswith("part"):
        assert f"for scores: {name.partition('/')[0]}" in ran.out


# --- prune ----------------------------------------------------------------------------------------


def test_a_pruned_output_stays_as_it_is(job: SmallJob, server: Server) -> None:
    """
    It verifies, and running it again does nothing.
    """
    job.run()
    before = [part.read_bytes() for part in job.parts()]
    pruned = job.cli("prune")

    assert 0 == pruned.code
    assert "pruned 30 groups" in pruned.out
    assert [0, 0, 0] == [job.cli(name).code for name in ("verify", "run", "status")]
    assert before == [part.read_bytes() for part in job.parts()]
    assert 30 == len(job.calls()) == server.admin()["billed_calls"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"output": {"layout": "groups"}}, "output.layout", id="layout"),
        pytest.param({"output": {"top_n": 3}}, "output.top_n", id="top_n"),
        pytest.param({"source": {"carry": ["query"]}}, "source.carry", id="carry"),
    ],
)
def test_a_pruned_output_keeps_its_shape(
    job: SmallJob, change: dict[str, dict[str, Any]], words: str
) -> None:
    """
    Nothing is left to render from: it is refused, and nothing is touched.
    """
    job.run()
    job.cli("prune")
    ran = job.change(**change).cli("run")

    assert 2 == ran.code
    assert f"{words}: cannot change any more, because the ledger was pruned" in ran.err
    assert "--restart" in ran.err
    assert 4 == len(list(job.output.iterdir()))


def test_a_pruned_output_that_is_damaged_needs_a_copy(job: SmallJob, server: Server) -> None:
    """
    It is said so, nothing is changed, and with the copy all is well.
    """
    job.run()
    job.cli("prune")
    part = job.parts()[1]
    before = part.read_bytes()
    flip(part)
    found, ran = job.cli("verify"), job.cli("run")

    assert (1, 4) == (found.code, ran.code)
    assert "part-00001.parquet: damaged; restore it from a copy" in found.out
    assert "part-00001.parquet: damaged or missing, and the ledger was pruned" in ran.err
    assert "restore them from a copy and run again" in ran.err
    part.write_bytes(before)
    assert [0, 0] == [job.cli("run").code, job.cli("verify").code]
    assert 30 == server.admin()["billed_calls"]


def test_rejects_of_a_pruned_output_are_not_paid_for_in_vain(job: SmallJob, server: Server) -> None:
    """
    Their scores could go into no part.
    """
    server.turn(faults=["400=subject 20"])
    job.change(output={"rejected_max": 1}).run()
    job.cli("prune")
    server.turn(faults=[])
    ran = job.cli("run", "--retry-rejects")

    assert 2 == ran.code
    assert "--retry-rejects: not possible any more, because the ledger was pruned" in ran.err
    assert 29 == server.admin()["billed_calls"]
    assert 0 == job.cli("verify").code


@pytest.mark.parametrize("limit", [None, 7], ids=["never run", "not finished"])
def test_only_what_is_finished_is_pruned(job: SmallJob, limit: int | None) -> None:
    """
    Else what was paid for would be lost.
    """
    if limit:
        job.run(limit=limit)
    ran = job.cli("prune")

    assert 2 == ran.code
    assert "run" in ran.err
    assert 30 - (limit or 0) == job.run().calls_now


def test_a_part_that_is_to_be_rendered_again_is_not_pruned(job: SmallJob, server: Server) -> None:
    """
    A run was killed when it had found it damaged, and somebody has put it back since.
    """
    job.run()
    ledger = Ledger.create_or_open(job.state / "ledger.sqlite")
    ledger.mark_stale([1])
    ledger.close()

    assert 2 == job.cli("prune").code
    assert [0, 0, 0] == [job.cli(name).code for name in ("run", "prune", "verify")]
    assert 30 == server.admin()["billed_calls"]


def test_what_an_old_ledger_does_not_know_to_be_published_is_not_pruned(
    job: SmallJob, server: Server
) -> None:
    """
    It was restored from a copy, and the `_SUCCESS` is that of a later run.
    """
    job.run(limit=12)
    shutil.copytree(job.state, copy := job.base / "copy")
    job.run()
    parts = [part.read_bytes() for part in job.parts()]
    shutil.rmtree(job.state)
    copy.rename(job.state)
    ran = job.cli("prune")

    assert 2 == ran.code
    assert "knows only 12 of 30 groups in parts that are whole" in ran.err
    assert (0, 18) == ((summary := job.run()).exit_code, summary.calls_now)
    assert parts == [part.read_bytes() for part in job.parts()]
    assert [0, 0] == [job.cli("prune").code, job.cli("verify").code]


def test_an_old_ledger_owns_up_to_calls_that_a_later_success_knows_of(job: SmallJob) -> None:
    """
    It was copied beside a run: what was in flight then may have been paid, and stands nowhere.
    """
    job.change(budget={"cost_usd_max": 1.0}).run(limit=17)
    ledger = Ledger.create_or_open(job.state / "ledger.sqlite")
    ledger.start_run(0.0, 42, "host", done_before=17, target=30)
    ledger.commit(Records(authorised=Amount(500_000_000, 40, 40)))
    ledger.close()
    (job.output / "_SUCCESS").touch()
    summary = job.run()

    assert 0 == summary.exit_code
    assert summary.cost_usd_lost == pytest.approx(0.5 - 17 * summary.cost_usd / 30)


@pytest.mark.parametrize("name", ["calls.parquet", "rejects.parquet"])
def test_what_a_finished_run_could_not_export_is_exported_by_the_next(
    job: SmallJob, name: str
) -> None:
    """
    It was killed behind `_SUCCESS`, or the disk was full: nobody is called for it.
    """
    job.run()
    file = job.state / name
    before = file.read_bytes()
    file.write_bytes(b"of a run before")
    (job.state / "report.json").unlink()
    summary = job.run()

    assert (0, 0, 30) == (summary.exit_code, summary.calls_now, summary.calls)
    assert before == file.read_bytes()
    assert json.loads(json.dumps(summary.as_data())) == json.loads(
        (job.state / "report.json").read_bytes()
    )


# --- restart, limit, again ------------------------------------------------------------------------


def test_a_layout_that_cannot_be_made_leaves_the_old_one(job: SmallJob) -> None:
    """
    What is refused changes nothing: here a column that is carried from now on cannot be read.
    """
    rows = [{**row, "market": f"m{n:03}"} for n, row in enumerate(groups(30))]
    job.source(rows, compression="none", write_page_checksum=True)
    job.run()
    there = sorted(path.name for path in job.output.iterdir())
    source = job.base / "groups.parquet"
    source.write_bytes(source.read_bytes().replace(b"m017", b"m0!7"))
    job.change(source={"carry": ["market"]}, output={"part_groups": 10})

    assert 2 == job.cli("run").code
    assert there == sorted(path.name for path in job.output.iterdir())


def test_a_job_without_its_key_is_not_scored_by_somebody_else(job: SmallJob) -> None:
    """
    It was loaded for those who call nobody.
    """
    with pytest.raises(JobError, match="without its key"):
        batchrank.run(job.job)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_of_nothing_is_a_mistake(job: SmallJob, limit: int) -> None:
    """
    From Python as from the command line.
    """
    with pytest.raises(JobError, match="no group would be done"):
        job.run(limit=limit)


def test_restart_sets_the_old_output_aside(job: SmallJob, server: Server) -> None:
    """
    With its state: nothing that was paid for is deleted, however often and fast one restarts.
    """
    job.run()
    rows = job.rows()
    job.source(groups(3))
    ends = [job.cli("run", "--restart").code for _ in range(3)]
    aside = sorted((job.base / ".batchrank").glob("out-*.aside-*"))

    assert [0, 0, 0] == ends
    assert expected(groups(3)) == job.rows()
    assert 30 + 3 * 3 == server.admin()["billed_calls"]
    assert {"out", ".batchrank"} <= {path.name for path in job.base.iterdir()}
    assert [] == [path.name for path in job.base.glob("*aside*")]  # readers look everywhere here
    assert [len(rows), 9, 9] == sorted(
        (ds.dataset(folder / "output-1").count_rows() for folder in aside), reverse=True
    )
    assert 3 == len([folder for folder in aside if (folder / "ledger.sqlite").exists()])
    assert 0 == job.cli("verify").code


def test_restart_of_what_never_began_is_a_run(job: SmallJob) -> None:
    """
    There is no output to set aside.
    """
    assert 0 == job.cli("run", "--restart").code
    assert [] == list(job.base.rglob("*aside*"))


def test_the_first_groups_and_then_the_rest(job: SmallJob, server: Server) -> None:
    """
    `--limit` publishes as far as it goes, in parts that are completed later.
    """
    rows = groups(30)
    for limit in (1, 5, 12, 20, 20, 3):
        summary = job.run(limit=limit)
        reached = max(limit, 20 if server.admin()["billed_calls"] == 20 else 0)

        assert (Exit.DONE, False) == (summary.exit_code, summary.success)
        assert expected(rows[:reached]) == job.rows()
        assert reached == server.admin()["billed_calls"]
        assert "no _SUCCESS" in summary.as_text()
    done = job.run()

    assert (Exit.DONE, 10, True) == (done.exit_code, done.calls_now, done.success)
    assert expected(rows) == job.rows()
    assert 0 == job.cli("verify").code


def footprint(*folders: Path) -> dict[Path, tuple[bytes, int, int]]:
    """
    Bytes, inode and time of change of every file, but for the lock.
    """
    return {
        path: (path.read_bytes(), path.stat().st_ino, path.stat().st_mtime_ns)
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


@pytest.mark.parametrize("rejected_max", [0, 2], ids=["too many rejects", "success"])
def test_a_finished_job_is_left_alone(job: SmallJob, server: Server, rejected_max: int) -> None:
    """
    0 calls, 0 bytes, the same exit code.
    """
    server.turn(faults=["400=subject 20"])
    job.change(output={"rejected_max": rejected_max})
    first = job.run()
    before = footprint(job.output, job.state)
    calls = server.admin()["calls"]
    again = [job.run().exit_code, job.run(limit=4).exit_code, job.cli("run").code]

    assert [first.exit_code] * 3 == again
    assert (Exit.DONE if rejected_max else Exit.REJECTS) == first.exit_code
    assert before == footprint(job.output, job.state)
    assert calls == server.admin()["calls"]


def test_questions_change_nothing(job: SmallJob) -> None:
    """
    But for the two files that SQLite lays beside a ledger that is being read.
    """
    job.run(limit=4)
    before = footprint(job.output, job.state)
    codes = [job.cli(name).code for name in ("plan", "status", "verify")]
    after = footprint(job.output, job.state)
    beside = {path.name for path in after.keys() - before.keys()}

    assert [0, 0, 1] == codes
    assert beside <= {"ledger.sqlite-shm", "ledger.sqlite-wal"}
    assert before == {path: found for path, found in after.items() if path.name not in beside}


# --- calls and rejects ----------------------------------------------------------------------------


def test_calls_and_rejects_add_up_to_the_summary(job: SmallJob, server: Server) -> None:
    """
    Every attempt has a row, every rejected group has one, and the sums are those that were told.
    """
    server.turn(
        faults=["400=subject 20", "403-moderation=subject 21", "500@3", "garbage@5", "429@7"]
    )
    summary = job.change(output={"rejected_max": 9}, limits={"concurrency_max": 30}).run()
    calls, rejects = job.calls(), job.rejects()
    failures = [call["failure"] for call in calls if call["failure"]]

    assert CALLS.equals(pq.read_schema(job.state / "calls.parquet"))
    assert REJECTS.equals(pq.read_schema(job.state / "rejects.parquet"))
    assert summary.calls == len(calls) == server.admin()["calls"]
    assert summary.calls_failed == {kind: failures.count(kind) for kind in set(failures)}
    assert summary.calls_repeated == sum(call["attempt"] > 1 for call in calls)
    assert summary.cost_usd == pytest.approx(sum(call["cost_usd"] for call in calls))
    assert summary.search_units == sum(call["search_units"] or 0 for call in calls)
    assert summary.total_tokens == sum(call["total_tokens"] or 0 for call in calls)
    assert sum(summary.cost_usd_by_source.values()) == pytest.approx(summary.cost_usd)
    assert summary.rejected == len(rejects) == 2
    assert {"bad_group": 2} == summary.rejects_by_kind
    assert [("q1020", 400, 20), ("q1021", 403, 21)] == [
        (reject["query_id"], reject["status"], reject["position"]) for reject in rejects
    ]
    assert all(reject["rejected_at"].tzinfo is not None for reject in rejects)
    assert {(MODEL, PROVIDER)} == {(c["model"], c["provider"]) for c in calls if not c["failure"]}


def test_calls_are_kept_over_all_runs(tmp_path: Path) -> None:
    """
    Attempts go on counting where the last run stopped.
    """
    refusing = True

    def answer(heard: Heard) -> bytes:
        if refusing and "subject 3" in heard.asked["query"]:
            return http({"error": {"code": 402, "message": "no credit"}}, 402)
        return http(heard.reply())

    with Liar(answer) as liar:
        job = SmallJob(tmp_path, liar.port, limits={"concurrency_max": 1}).source(groups(6))
        codes = [job.run().exit_code, job.run().exit_code]
        refusing = False
        codes.append(job.run().exit_code)

    assert [Exit.PERSON, Exit.PERSON, Exit.DONE] == codes
    assert [("fatal", 1), ("fatal", 2), (None, 3)] == [
        (call["failure"], call["attempt"]) for call in job.calls() if call["position"] == 3
    ]
    assert 8 == len(job.calls()) == len(liar.heard)
