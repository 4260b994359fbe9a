"""
What other tools read of an export: by their own readers, in both layouts.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from batchrank.errors import BatchrankError, JobError, OutputError, StorageError
from batchrank.store.formats.choice import FORMATS, by_ending
from batchrank.store.formats.published import ROWS, Published
from batchrank.store.formats.terms import How, Tally
from batchrank.store.formats.trec import beside

Scores = Sequence[tuple[Any, float | None]]
"""A query's documents in output order: id and score."""

Groups = Sequence[tuple[Any, Scores]]

THREE: Groups = [
    ("q1", [("d2", 0.75), ("d9", 0.5), ("d1", 0.5), ("d3", 0.5), ("d4", None)]),
    ("q2", [("d1", None)]),
    ("ü", [("d1", 1e-300), ("Straße", -0.25)]),
]
"""Three ties that a sort by id would turn round, and a query without any score."""

LAYOUTS = ("candidates", "groups")


def rows_of(groups: Groups, carried: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """
    The rows of the layout of candidates, with these values of carried fields.
    """
    return [
        {
            "query_id": query_id,
            "doc_id": doc_id,
            "index": index,
            "rank": None if score is None else index + 1,
            "relevance_score": score,
            "model": "v/m",
            "provider": None,
            **(carried or {}),
        }
        for query_id, scores in groups
        for index, (doc_id, score) in enumerate(scores)
    ]


def written(
    folder: Path,
    groups: Groups,
    layout: str = "candidates",
    *,
    carried: Mapping[str, Any] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    part_groups: int = 2,
    unchanged: Callable[[], None] = lambda: None,
) -> Published:
    """
    Parts with these groups, as a job would publish them.
    """
    kinds = {
        "query_id": pa.string(),
        "doc_id": pa.string(),
        "index": pa.int32(),
        "rank": pa.int32(),
        "relevance_score": pa.float64(),
        "model": pa.string(),
        "provider": pa.string(),
        **(types or {}),
    }
    files = []
    for number, start in enumerate(range(0, len(groups), part_groups)):
        some = groups[start : start + part_groups]
        if layout == "candidates":
            table = pa.Table.from_pylist(
                rows_of(some, carried), schema=pa.schema(list(kinds.items()))
            )
        else:
            inner = [(name, kind) for name, kind in kinds.items() if name != "query_id"]
            nested = [("query_id", kinds["query_id"]), ("results", pa.list_(pa.struct(inner)))]
            rows = [{"query_id": group[0], "results": rows_of([group], carried)} for group in some]
            table = pa.Table.from_pylist(rows, schema=pa.schema(nested))
        files.append(folder / f"part-{number:05}.parquet")
        pq.write_table(table, files[-1], write_page_checksum=True)
    return Published(files, unchanged)


def exported(published: Published, path: Path, name: str = "", **how: Any) -> Tally:
    """
    Write *path* in the format that its ending means.
    """
    form = FORMATS[name or by_ending(path) or ""]
    return form.write(published, path, How(spill=path.parent, **how))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """
    A folder that holds nothing but what is exported.
    """
    folder = tmp_path / "exported"
    folder.mkdir()
    return folder


def names_in(folder: Path) -> list[str]:
    """
    Everything in a folder, hidden files too.
    """
    return sorted(path.name for path in folder.iterdir())


# --- TREC -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_keeps_order_and_scores(tmp_path: Path, out: Path, layout: str) -> None:
    """
    Six columns; what is not tied is written to the last digit, what has no score is not there.
    """
    tally = exported(written(tmp_path, THREE, layout), out / "a.run", run_name="mine")

    lines = [line.split(" ") for line in (out / "a.run").read_text().splitlines()]
    assert [
        ["q1", "Q0", "d2", "1", "0.75", "mine"],
        ["q1", "Q0", "d9", "2", "0.5", "mine"],
        ["q1", "Q0", "d1", "3", "0.49999994", "mine"],
        ["q1", "Q0", "d3", "4", "0.499999911", "mine"],
        ["ü", "Q0", "d1", "1", "1e-300", "mine"],
        ["ü", "Q0", "Straße", "2", "-0.25", "mine"],
    ] == lines
    assert Tally(rows=6, queries=2, unscored=2, lowered=2) == tally


def test_the_raw_scores_lie_beside_a_run(tmp_path: Path, out: Path) -> None:
    """
    In the same order, with a header.
    """
    exported(written(tmp_path, THREE), out / "a.run")

    with beside(out / "a.run").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    expected = [s for _, scores in THREE for _, s in scores if s is not None]
    assert expected == [float(row["relevance_score"]) for row in rows]
    run = [line.split() for line in (out / "a.run").read_text().splitlines()]
    assert [[r["query_id"], r["doc_id"], r["rank"], r["score"]] for r in rows] == [
        [query_id, doc_id, rank, score] for query_id, _, doc_id, rank, score, _ in run
    ]


def test_the_fields_readers_rank_as_the_output_does(tmp_path: Path, out: Path) -> None:
    """
    They look at the score alone, as float32, and break ties by the id: whichever document is the
    relevant one, it is found at its rank.
    """
    documents = [(f"d{n}", 0.5 + (n > 7) * 1e-9) for n in (8, 9, 1, 2, 3, 0, 4)]
    exported(written(tmp_path, [("q", documents)]), out / "a.trec")

    with (out / "a.trec").open(encoding="utf-8") as file:
        run = pytrec_eval.parse_run(file)
    for rank, (doc_id, _) in enumerate(documents, 1):
        judged = pytrec_eval.RelevanceEvaluator({"q": {doc_id: 1}}, {"recip_rank"})
        assert 1 / rank == pytest.approx(judged.evaluate(run)["q"]["recip_rank"])
    read = list(ir_measures.read_trec_run(str(out / "a.trec")))  # type: ignore[no-untyped-call] # as it ships
    assert [doc_id for doc_id, _ in documents] == [scored.doc_id for scored in read]


@pytest.mark.parametrize(
    ("groups", "why"),
    [
        pytest.param([("a b", [("d", 1.0)])], "query id 'a b'", id="a space"),
        pytest.param([("a\u00a0b", [("d", 1.0)])], "query id 'a\\xa0b'", id="as Python splits"),
        pytest.param([("", [("d", 1.0)])], "query id ''", id="nothing"),
        pytest.param([("#1", [("d", 1.0)])], "query id '#1'", id="a comment to trec_eval"),
        pytest.param(
            [("q", [("d", 1.0), ("x\ty", 0.5)])], "document id 'x\\ty' of query 'q'", id="tab"
        ),
        pytest.param([("q", [("d\0", 1.0)])], "document id 'd\\x00'", id="the end of a C string"),
    ],
)
def test_a_run_refuses_ids_that_are_not_one_word(
    tmp_path: Path, out: Path, groups: Groups, why: str
) -> None:
    """
    The id is named, other formats are, and nothing is written; BEIR takes them.
    """
    published = written(tmp_path, [("fine", [("d", 1.0)]), *groups])
    with pytest.raises(OutputError) as refused:
        exported(published, out / "a.run")

    assert why in refused.value.message
    assert "beir" in refused.value.hint
    assert [] == names_in(out)
    exported(published, out / "a.json")
    assert groups[0][0] in json.loads((out / "a.json").read_text())


def test_a_tag_of_two_words_is_refused(tmp_path: Path, out: Path) -> None:
    """
    It would be a seventh column.
    """
    with pytest.raises(JobError, match="--run-name: 'my run' is not one word"):
        exported(written(tmp_path, THREE), out / "a.run", run_name="my run")


# --- runs in general ------------------------------------------------------------------------------

RUNS = ("a.run", "a.json")


@pytest.mark.parametrize("name", RUNS)
def test_a_document_that_comes_twice_keeps_its_better_place(
    tmp_path: Path, out: Path, name: str
) -> None:
    """
    Readers refuse a second one, or take the last; in another query it is another candidate.
    """
    groups = [("q", [("a", 0.9), ("b", 0.5), ("a", 0.4)]), ("r", [("a", 0.1)])]
    tally = exported(written(tmp_path, groups), out / name)

    assert (3, 1) == (tally.rows, tally.repeated)
    text = (out / name).read_text()
    assert "0.9" in text
    assert "0.4" not in text


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", RUNS)
def test_a_query_id_of_two_groups_is_refused(
    tmp_path: Path, out: Path, name: str, layout: str
) -> None:
    """
    Also if they lie in different parts; one without any score does no harm.
    """
    first, last = ("q", [("a", 0.9)]), ("q", [("b", 0.8)])
    others = [(f"r{n}", [("a", 0.5)]) for n in range(5)]
    with pytest.raises(OutputError, match=r"'q' \(2 groups\)"):
        exported(written(tmp_path, [first, *others, last], layout), out / name)

    assert [] == names_in(out)
    exported(written(tmp_path, [first, *others, ("q", [("b", None)])], layout), out / name)


@pytest.mark.parametrize("name", RUNS)
def test_documents_without_ids_need_a_column(tmp_path: Path, out: Path, name: str) -> None:
    """
    A place in the source means another document in every query, so nobody takes it unasked.
    """
    groups = [("q", [(None, 0.9), (None, 0.5)])]
    published = written(tmp_path, groups, carried={"isbn": "x"}, types={"isbn": pa.string()})
    with pytest.raises(OutputError, match="has no doc_id") as refused:
        exported(published, out / name)
    assert "--doc-id index" in refused.value.hint

    exported(published, out / name, doc_id="index")
    assert "1" in (out / name).read_text()
    assert 1 == exported(published, out / name, doc_id="isbn").repeated


@pytest.mark.parametrize(
    ("column", "why"),
    [
        pytest.param("isbn", "the output has no column 'isbn', only query_id, doc_id", id="none"),
        pytest.param("relevance_score", "is double, expected text or whole numbers", id="no id"),
    ],
)
def test_a_column_of_ids_has_to_be_one(tmp_path: Path, out: Path, column: str, why: str) -> None:
    """
    The columns that there are are listed.
    """
    with pytest.raises(JobError) as refused:
        exported(written(tmp_path, THREE), out / "a.run", doc_id=column)

    assert why in refused.value.message


@pytest.mark.parametrize("layout", LAYOUTS)
def test_groups_longer_than_what_is_read_at_once_stay_whole(
    tmp_path: Path, out: Path, layout: str
) -> None:
    """
    Ranks go on, and a document is found to come twice.
    """
    count = 2 * ROWS["candidates"] + 5
    long = [(f"d{n}", 1 - n / count) for n in range(count)]
    groups = [("a", [("d", 1.0)]), ("long", [*long, ("d7", 0.0)]), ("z", [("d", 0.5)])]
    tally = exported(written(tmp_path, groups, layout), out / "a.json")

    read = json.loads((out / "a.json").read_text())
    assert {"a": {"d": 1.0}, "long": dict(long), "z": {"d": 0.5}} == read
    assert (count + 2, 3, 1) == (tally.rows, tally.queries, tally.repeated)


# --- BEIR -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_beir_results_hold_the_scores_as_they_are(tmp_path: Path, out: Path, layout: str) -> None:
    """
    By id; ids that are numbers are text in JSON.
    """
    whole = {"doc_id": pa.int64(), "query_id": pa.int64()}
    groups: Groups = [(7, [(70, 0.75), (3, 0.5), (71, 0.5)]), (8, [(3, None)]), (9, [(3, 0.1)])]
    tally = exported(written(tmp_path, groups, layout, types=whole), out / "a.json")

    read = json.loads((out / "a.json").read_text())
    assert {"7": {"70": 0.75, "3": 0.5, "71": 0.5}, "9": {"3": 0.1}} == read
    assert Tally(rows=4, queries=2, unscored=1) == tally


def test_beir_results_of_nothing_are_an_object(tmp_path: Path, out: Path) -> None:
    """
    Empty, and JSON.
    """
    exported(written(tmp_path, [("q", [("d", None)])]), out / "a.json")

    assert {} == json.loads((out / "a.json").read_text())


# --- CSV ------------------------------------------------------------------------------------------

NASTY = ['a,"b"\nc', "=1+1", "-x", "@x", "\tx", "＝x", "plain", "", " =x"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_csv_holds_a_row_per_candidate(tmp_path: Path, out: Path, layout: str) -> None:
    """
    As other readers see it: null and "" are two things, texts are as they were.
    """
    groups: Groups = [("q", [(text, 0.5) for text in NASTY]), ("r", [(None, None)])]
    tally = exported(written(tmp_path, groups, layout), out / "a.csv")

    with duckdb.connect() as connection:
        csv_file = f"read_csv('{out / 'a.csv'}', allow_quoted_nulls = false)"
        read = connection.sql(f"FROM {csv_file}").to_arrow_table()
    expected = rows_of(groups)
    assert list(expected[0]) == read.column_names
    assert [row["doc_id"] for row in expected] == read.column("doc_id").to_pylist()
    scores = read.column("relevance_score").to_pylist()
    assert [row["relevance_score"] for row in expected] == scores
    assert Tally(rows=len(NASTY) + 1, formulas=5) == tally


def test_csv_for_a_spreadsheet_has_no_formulas(tmp_path: Path, out: Path) -> None:
    """
    An apostrophe stands before them; numbers, and texts that merely hold such a sign, stay.
    """
    groups = [("q", [(text, -0.5) for text in NASTY])]
    tally = exported(written(tmp_path, groups), out / "a.csv", spreadsheet=True)

    with (out / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    formulas = {"=1+1", "-x", "@x", "\tx", "＝x"}
    expected = [f"'{text}" if text in formulas else text for text in NASTY]
    assert expected == [row["doc_id"] for row in rows]
    assert {"-0.5"} == {row["relevance_score"] for row in rows}
    assert (0, 5) == (tally.formulas, tally.defused)


CARRIED = {
    "day": date(2026, 11, 20),
    "nested": [{"n": float("nan"), "at": 1_577_840_461_000_005_001}],
    "raw": b"\xfb\xff",
    "map": [("k", 1)],
    "took": timedelta(seconds=2),
    "number": float("inf"),
}
KINDS = {
    "day": pa.date32(),
    "nested": pa.list_(pa.struct([("n", pa.float64()), ("at", pa.timestamp("ns"))])),
    "raw": pa.binary(),
    "map": pa.map_(pa.string(), pa.int32()),
    "took": pa.duration("ms"),
    "number": pa.float32(),
}
"""Carried columns of types that neither CSV nor JSON has."""

AS_JSON = {
    "day": "2026-11-20",
    "nested": [{"n": None, "at": "2020-01-01 01:01:01.000005001"}],
    "raw": "+/8=",
    "map": [["k", 1]],
    "took": 2000,
    "number": None,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_csv_says_what_it_has_no_type_for(tmp_path: Path, out: Path, layout: str) -> None:
    """
    Lists, structs and maps in JSON, bytes in Base64.
    """
    published = written(tmp_path, THREE, layout, carried=CARRIED, types=KINDS)
    exported(published, out / "a.csv")

    with (out / "a.csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert ("2026-11-20", "+/8=", "2000") == (row["day"], row["raw"], row["took"])
    assert AS_JSON["nested"] == json.loads(row["nested"])
    assert AS_JSON["map"] == json.loads(row["map"])


# --- JSON lines -----------------------------------------------------------------------------------


def strictly(text: str) -> Any:
    """
    JSON without the numbers that are none.
    """

    def refuse(word: str) -> None:
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_lines_are_the_rows_of_the_output(tmp_path: Path, out: Path, layout: str) -> None:
    """
    In its layout, in strict JSON, whatever is carried.
    """
    published = written(tmp_path, THREE, layout, carried=CARRIED, types=KINDS)
    tally = exported(published, out / "a.jsonl")

    read = [strictly(line) for line in (out / "a.jsonl").read_text().splitlines()]
    if layout == "groups":
        assert (3, [g for g, _ in THREE]) == (tally.rows, [row["query_id"] for row in read])
        read = [
            {"query_id": row["query_id"], **result} for row in read for result in row["results"]
        ]
    assert rows_of(THREE, AS_JSON) == read


# --- DuckDB ---------------------------------------------------------------------------------------


def rows_in(path: Path, table: str = "scores") -> list[tuple[Any, ...]]:
    """
    The rows of a table, in its order.
    """
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(f'SELECT * FROM "{table}" ORDER BY rowid').fetchall()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_table_holds_the_rows_with_their_types(tmp_path: Path, out: Path, layout: str) -> None:
    """
    In the output's order and layout; nothing else is left beside the file.
    """
    groups = [(f"q{n}", [("a", 0.5), ("b", None)]) for n in range(3 * ROWS["groups"])]
    published = written(tmp_path, groups, layout, part_groups=200)
    tally = exported(published, out / "a.duckdb", table='my "scores"')

    assert ["a.duckdb"] == names_in(out)
    with duckdb.connect(str(out / "a.duckdb"), read_only=True) as connection:
        read = connection.sql('SELECT * FROM "my ""scores""" ORDER BY rowid').to_arrow_table()
    expected = [row for path in published.files for row in pq.read_table(path).to_pylist()]
    assert expected == read.to_pylist()
    assert len(expected) == tally.rows
    if layout == "candidates":
        assert pa.int32() == read.schema.field("rank").type


def test_a_table_comes_into_a_database_that_is_there(tmp_path: Path, out: Path) -> None:
    """
    Nothing else in it is touched; a table of the name is replaced only by force.
    """
    path = out / "a.db"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS n").fetchall()
        connection.execute("CREATE VIEW seen AS SELECT 1 AS n").fetchall()
    exported(written(tmp_path, THREE), path)

    with pytest.raises(OutputError, match=r"a\.db has a table Scores already"):
        exported(written(tmp_path, THREE), path, table="Scores")
    with pytest.raises(OutputError, match="has a view seen"):
        exported(written(tmp_path, THREE), path, table="seen", force=True)
    exported(written(tmp_path, THREE[:1]), path, force=True)
    assert (5, [(42,)]) == (len(rows_in(path)), rows_in(path, "mine"))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, out: Path) -> None:
    """
    And stays.
    """
    path = out / "a.duckdb"
    path.write_text("mine")
    with pytest.raises(OutputError, match="cannot be opened as a DuckDB database"):
        exported(written(tmp_path, THREE), path, force=True)

    assert "mine" == path.read_text()


def test_a_file_of_sqlites_is_refused_and_nothing_is_fetched_for_it(
    tmp_path: Path, out: Path
) -> None:
    """
    DuckDB would download an extension unasked, and write the table there.
    """
    path = out / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (n)")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="cannot be opened as a DuckDB database") as refused:
        exported(written(tmp_path, THREE), path)

    assert "download" not in refused.value.message
    assert before == path.read_bytes()


def test_what_somebody_left_who_was_killed_is_in_nobodys_way(tmp_path: Path, out: Path) -> None:
    """
    Half a database, and its log.
    """
    for name in (".a.duckdb.new", ".a.duckdb.new.wal"):
        (out / name).write_text("half")
    exported(written(tmp_path, THREE), out / "a.duckdb")

    assert (["a.duckdb"], 8) == (names_in(out), len(rows_in(out / "a.duckdb")))


# --- whole or not at all --------------------------------------------------------------------------

EVERY = ("a.run", "a.json", "a.csv", "a.jsonl", "a.duckdb")


def test_every_format_is_here() -> None:
    """
    Once.
    """
    assert sorted(FORMATS) == sorted(by_ending(Path(name)) or "" for name in EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_a_damaged_part_leaves_what_was_there(tmp_path: Path, out: Path, name: str) -> None:
    """
    Nothing, or the file from before; the part is named.
    """
    published = written(tmp_path, THREE)
    last = published.files[-1]
    whole = last.read_bytes()
    at = whole.index("Straße".encode())
    last.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
    for before in ([], ["kept"]):
        if before:
            last.write_bytes(whole)
            exported(published, out / name)
            last.write_bytes(whole[:at] + b"X" + whole[at + 1 :])
        kept = {path: path.read_bytes() for path in out.iterdir() if path.suffix != ".duckdb"}
        with pytest.raises(StorageError, match=r"part-00001\.parquet cannot be read"):
            exported(published, out / name, force=True)
        assert kept == {p: p.read_bytes() for p in out.iterdir() if p.suffix != ".duckdb"}
    if name == "a.duckdb":
        assert 8 == len(rows_in(out / name))


class Moved(BatchrankError):
    """
    The parts are not those any more.
    """


@pytest.mark.parametrize("name", EVERY)
def test_parts_that_have_changed_meanwhile_are_not_published(
    tmp_path: Path, out: Path, name: str
) -> None:
    """
    It is looked at behind the last row, before the file has its name.
    """

    def moved() -> None:
        raise Moved("moved")

    with pytest.raises(Moved):
        exported(written(tmp_path, THREE, unchanged=moved), out / name)

    assert [] == names_in(out)
