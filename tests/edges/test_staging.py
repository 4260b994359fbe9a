"""
Staging, on DuckDB and pyarrow: whatever form candidates lie in, the same groups in the same order.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.config.schema import SourceTable
from batchrank.domain import Group, Positions
from batchrank.errors import AlreadyRunning, SourceError
from batchrank.source.parquet import ParquetSource
from batchrank.source.stage import staging
from batchrank.source.staged import StagedSource, open_groups

Row = Mapping[str, Any]


def source_of(folder: Path, **table: Any) -> ParquetSource:
    """
    The source that `[source]` tells of, staged in *folder*.
    """
    return open_groups(SourceTable.model_validate(table), folder, folder / "staging")


def groups_of(source: ParquetSource) -> list[Group]:
    """
    Every group, in order.
    """
    done = Positions(source.total)
    return [
        batch.group(position)
        for batch in source.batches(done, source.total)
        for position in range(batch.position, batch.position + batch.rows)
    ]


def written(folder: Path, rows: Sequence[Row], name: str = "pairs.parquet") -> str:
    """
    Write rows of candidates, and return the file's name.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.table({n: [row.get(n) for row in rows] for n in names}), folder / name)
    return name


PAIRS: Sequence[Row] = (
    {"query_id": "b", "query": "two", "doc_id": "3", "text": "z", "score": 1.0},
    {"query_id": "a", "query": "one", "doc_id": "1", "text": "x", "score": 0.5},
    {"query_id": "b", "query": "two", "doc_id": "1", "text": "x", "score": 2.0},
    {"query_id": "a", "query": "one", "doc_id": "2", "text": "y", "score": 0.7},
)


def shown(source: ParquetSource) -> list[tuple[object, str, tuple[object, ...]]]:
    """
    Groups as plain tuples.
    """
    return [(group.query_id, group.query, group.documents) for group in groups_of(source)]


BY_SCORE = [("a", "one", ("y", "x")), ("b", "two", ("x", "z"))]


# --- rows of candidates ---------------------------------------------------------------------------


def test_rows_of_candidates_become_groups_best_first(tmp_path: Path) -> None:
    """
    Groups by their id as a string, candidates by the score of the first stage.
    """
    source = source_of(tmp_path, path=written(tmp_path, PAIRS), score="score")

    assert BY_SCORE == shown(source)
    assert isinstance(source, StagedSource)
    assert ["pairs.parquet"] == [file.path for file in source.files]


def test_a_rank_orders_the_other_way_and_without_either_ids_do(tmp_path: Path) -> None:
    """
    The lowest rank first; rows without one last.
    """
    ranked = [{**row, "rank": rank} for row, rank in zip(PAIRS, (2, None, 1, 1), strict=True)]
    path = written(tmp_path, ranked)

    by_rank = shown(source_of(tmp_path, path=path, rank="rank"))
    by_id = shown(source_of(tmp_path, path=path))

    assert by_rank == [("a", "one", ("y", "x")), ("b", "two", ("x", "z"))]
    assert by_id == [("a", "one", ("x", "y")), ("b", "two", ("x", "z"))]


def test_a_depth_keeps_the_first_of_each_group(tmp_path: Path) -> None:
    """
    As many as there are, where there are fewer.
    """
    source = source_of(tmp_path, path=written(tmp_path, PAIRS), score="score", depth=1)

    assert [("a", "one", ("y",)), ("b", "two", ("x",))] == shown(source)


def test_group_order_goes_before_the_id(tmp_path: Path) -> None:
    """
    Columns that order the groups; ids of integers are ordered as strings where nothing else is.
    """
    rows = [
        {"query_id": number, "query": f"q{number}", "text": "t", "day": day}
        for number, day in ((9, 1), (10, 1), (2, 0))
    ]
    path = written(tmp_path, rows)

    plain = [group.query_id for group in groups_of(source_of(tmp_path, path=path))]
    by_day = source_of(tmp_path, path=path, group_order=["day", "query_id"])

    assert [10, 2, 9] == plain
    assert [2, 9, 10] == [group.query_id for group in groups_of(by_day)]


def test_groups_may_be_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    """
    A group that spans batches is one group.
    """
    sizes = {"a": 3, "b": 5_000, "c": 1, "d": 2_048, "e": 2_047}
    rows = [
        {"query_id": q, "query": q, "doc_id": f"{n:05}", "text": f"{q}{n}"}
        for q, size in sizes.items()
        for n in range(size)
    ]

    found = groups_of(source_of(tmp_path, path=written(tmp_path, rows)))

    assert sizes == {group.query_id: len(group.documents) for group in found}
    assert all(
        group.documents == tuple(f"{group.query_id}{n}" for n in range(len(group.documents)))
        for group in found
    )


def test_what_is_carried_travels_with_the_candidates(tmp_path: Path) -> None:
    """
    In the order of the candidates, under its own name.
    """
    rows = [{**row, "price": n} for n, row in enumerate(PAIRS)]
    path = written(tmp_path, rows)
    source = source_of(tmp_path, path=path, score="score", carry=["price"])

    held = pq.read_table(next((tmp_path / "staging").glob("*/groups.parquet")))

    assert held["documents"].to_pylist()[0] == [
        {"doc_id": "2", "text": "y", "price": 3},
        {"doc_id": "1", "text": "x", "price": 1},
    ]
    assert BY_SCORE == shown(source)


# --- forms of files -------------------------------------------------------------------------------


def _csv(folder: Path, rows: Sequence[Row]) -> str:
    duckdb.from_arrow(pa.Table.from_pylist(list(map(dict, rows)))).write_csv(str(folder / "p.csv"))
    return "p.csv"


def _tsv_gz(folder: Path, rows: Sequence[Row]) -> str:
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    (folder / "p.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return "p.tsv.gz"


def _json_lines(folder: Path, rows: Sequence[Row]) -> str:
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "p.jsonl"


@pytest.mark.parametrize("write", [written, _csv, _tsv_gz, _json_lines])
def test_the_format_is_known_by_the_ending(
    tmp_path: Path, write: Callable[[Path, Sequence[Row]], str]
) -> None:
    """
    Parquet, CSV, packed TSV and JSON lines: the same groups.
    """
    assert BY_SCORE == shown(source_of(tmp_path, path=write(tmp_path, PAIRS), score="score"))


@pytest.mark.parametrize("write", [_csv, _tsv_gz, _json_lines])
def test_ids_and_texts_stay_as_they_are_written(
    tmp_path: Path, write: Callable[[Path, Sequence[Row]], str]
) -> None:
    """
    007 is no number and a day is no date.
    """
    rows = [
        {"query_id": "007", "query": "2026-11-21", "doc_id": "0001", "text": "1e5"},
        {"query_id": "010", "query": "12:30:00", "doc_id": "2026-01-02", "text": "true"},
    ]

    source = source_of(tmp_path, path=write(tmp_path, rows))

    assert [("007", "2026-11-21", ("1e5",)), ("010", "12:30:00", ("true",))] == shown(source)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_scores_are_numbers_however_they_are_written(tmp_path: Path, ending: str) -> None:
    """
    9 comes after 10, and a fraction after many integers is one.
    """
    scores = [9, 10, 1.5, 0.5, -2]
    rows = [
        {"query_id": "a", "query": "q", "doc_id": str(score), "text": str(score), "score": score}
        for score in scores
    ]
    if ending == "parquet":
        written(tmp_path, [{**row, "score": str(row["score"])} for row in rows], "p.parquet")
    elif ending == "jsonl":
        _json_lines(tmp_path, rows)
    else:
        mark = {"csv": ",", "tsv": "\t"}[ending]
        lines = [mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]
        (tmp_path / f"p.{ending}").write_text("\n".join(lines))

    source = source_of(tmp_path, path=f"p.{ending}", score="score")

    assert [("a", "q", ("10", "9", "1.5", "0.5", "-2"))] == shown(source)


def test_an_id_is_the_same_as_a_number_and_as_text(tmp_path: Path) -> None:
    """
    JSON lines of several writers: one group, and no quotes in any id.
    """
    rows = [
        {"query_id": query_id, "query": "q", "doc_id": doc_id, "text": str(doc_id)}
        for query_id, doc_id in ((1, "a"), ("1", 2), (1, -3))
    ]

    source = source_of(tmp_path, path=_json_lines(tmp_path, rows))

    assert [("1", "q", ("-3", "2", "a"))] == shown(source)


def test_folders_are_columns_unless_the_files_have_them(tmp_path: Path) -> None:
    """
    A value of theirs is text; what a file says of itself is not overruled by where it lies.
    """
    for day, row in (("01", PAIRS[0]), ("2", PAIRS[1])):
        (tmp_path / f"in/day={day}").mkdir(parents=True)
        written(tmp_path, [row], f"in/day={day}/p.parquet")
        (tmp_path / f"own/text={day}").mkdir(parents=True)
        written(tmp_path, [row], f"own/text={day}/p.parquet")

    def carried(source: ParquetSource) -> object:
        path = next((tmp_path / "staging").glob("*/groups.parquet"))
        assert 2 == source.total
        return [row["documents"][0] for row in pq.read_table(path).to_pylist()]

    assert [
        {"doc_id": "1", "text": "x", "day": "2"},
        {"doc_id": "3", "text": "z", "day": "01"},
    ] == carried(source_of(tmp_path, path="in", carry=["day"], group_order=["query_id"]))
    assert [{"doc_id": "1", "text": "x"}, {"doc_id": "3", "text": "z"}] == carried(
        source_of(tmp_path, path="own")
    )


def test_an_empty_file_may_have_any_columns(tmp_path: Path) -> None:
    """
    Also where it is the first one.
    """
    pq.write_table(pa.table({"other": [1]}).slice(0, 0), tmp_path / "a.parquet")
    written(tmp_path, PAIRS, "b.parquet")

    source = source_of(tmp_path, path="*.parquet", score="score")

    assert BY_SCORE == shown(source)
    assert ["a.parquet", "b.parquet"] == [file.path for file in source.files]


def test_json_lines_may_hold_whole_groups(tmp_path: Path) -> None:
    """
    In the file's order where nothing names a query.
    """
    lines = [{"query": "b", "documents": ["x", "y"]}, {"query": "a", "documents": ["z"]}]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    found = groups_of(source_of(tmp_path, path="g.jsonl"))

    assert [("b", ("x", "y")), ("a", ("z",))] == [(g.query, g.documents) for g in found]


def test_groups_in_lists_have_a_total_order_and_a_depth(tmp_path: Path) -> None:
    """
    Whatever the files' order; ids beside the documents are cut as they are.
    """
    rows = [
        {"day": 1, "query": "q", "documents": ["x", "y"], "ids": ids, "note": note}
        for ids in (["1", "2"], ["0", "2"])
        for note in range(300)
    ]
    table = {"doc_id": "ids", "group_order": ["day"], "carry": ["note"], "depth": 1}
    found = []
    for order in (rows, rows[::-1]):
        pq.write_table(pa.Table.from_pylist(order), tmp_path / "g.parquet", row_group_size=100)
        source = source_of(tmp_path, path="g.parquet", **table)
        found.append([body for _, _, body in source.carried_batches(source.total)])
        assert {("x",)} == {group.documents for group in groups_of(source)}

    assert found[0] == found[1]


def test_positives_and_negatives_are_candidates(tmp_path: Path) -> None:
    """
    MTEB's reranking data.
    """
    table = pa.table({"query": ["q"], "positive": [["p"]], "negative": [["n", "m"]]})
    pq.write_table(table, tmp_path / "mteb.parquet")

    assert [("p", "n", "m")] == [
        group.documents for group in groups_of(source_of(tmp_path, path="mteb.parquet"))
    ]


# --- three tables ---------------------------------------------------------------------------------

RUN = [{key: row[key] for key in ("query_id", "doc_id", "score")} for row in PAIRS]
QUERIES = [{"query_id": "a", "query": "one"}, {"query_id": "b", "query": "two"}]
CORPUS = [{"doc_id": d, "text": t, "title": t.upper()} for d, t in zip("123", "xyz", strict=True)]


def three(folder: Path, run: Sequence[Row] = RUN, **more: Any) -> ParquetSource:
    """
    A run joined with queries and corpus.
    """
    return source_of(
        folder,
        run=written(folder, run, "run.parquet"),
        queries=written(folder, QUERIES, "queries.parquet"),
        corpus=written(folder, CORPUS, "corpus.parquet"),
        score="score",
        **more,
    )


def test_a_run_is_joined_with_its_queries_and_its_corpus(tmp_path: Path) -> None:
    """
    The same groups as rows that hold everything.
    """
    assert BY_SCORE == shown(three(tmp_path))


def test_a_template_takes_columns_of_the_corpus(tmp_path: Path) -> None:
    """
    As the fields of a struct.
    """
    assert ("Y: y", "X: x") == shown(three(tmp_path, template="{title}: {text}"))[0][2]


def test_the_files_of_trec_and_beir_need_no_mapping(tmp_path: Path) -> None:
    """
    A run with six columns, `_id` and `text` for queries, `_id` for documents; tables without heads.
    """
    (tmp_path / "run.trec").write_text(
        "a Q0 2 1 0.7 t\na Q0 1 2 0.5 t\nb Q0 1 1 2 t\nb Q0 3 2 1 t\n"
    )
    queries = [{"_id": q["query_id"], "text": q["query"]} for q in QUERIES]
    corpus = [{"_id": c["doc_id"], "text": c["text"], "title": ""} for c in CORPUS]
    for name, rows in (("queries.jsonl", queries), ("corpus.jsonl", corpus)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "topics.tsv").write_text("a\tone\nb\ttwo\n")
    (tmp_path / "collection.tsv").write_text("1\tx\n2\ty\n3\tz\n")
    beir = {"run": "run.trec", "queries": "queries.jsonl", "corpus": "corpus.jsonl"}
    trec = {"run": "run.trec", "queries": "topics.tsv", "corpus": "collection.tsv"}

    for table in (beir, trec):
        assert BY_SCORE == shown(source_of(tmp_path, **table, score="score"))
        assert BY_SCORE == shown(source_of(tmp_path, **table, rank="rank"))


def test_qrels_of_beir_may_be_the_run(tmp_path: Path) -> None:
    """
    With their own names for ids, beside those of queries and corpus.
    """
    queries = [{"_id": q["query_id"], "text": q["query"]} for q in QUERIES]
    corpus = [{"_id": c["doc_id"], "text": c["text"]} for c in CORPUS]
    for name, rows in (("queries.jsonl", queries), ("corpus.jsonl", corpus)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore", "a\t2\t10", "a\t1\t9", "b\t1\t2", "b\t3\t1"]
    (tmp_path / "qrels.tsv").write_text("\n".join(lines))
    table = {"run": "qrels.tsv", "queries": "queries.jsonl", "corpus": "corpus.jsonl"}

    assert BY_SCORE == shown(source_of(tmp_path, **table, score="score"))
    named = {"query_id": "query-id", "doc_id": "corpus-id"}
    assert BY_SCORE == shown(source_of(tmp_path, **table, **named, score="score"))


def test_ranks_of_a_run_without_a_head_are_numbers(tmp_path: Path) -> None:
    """
    MS MARCO's: query, document and rank; the second is not after the tenth.
    """
    written(tmp_path, QUERIES, "queries.parquet")
    written(tmp_path, CORPUS, "corpus.parquet")
    (tmp_path / "run.tsv").write_text("a\t1\t10\na\t2\t2\nb\t3\t11\nb\t1\t1\n")
    table = {"run": "run.tsv", "queries": "queries.parquet", "corpus": "corpus.parquet"}

    assert BY_SCORE == shown(source_of(tmp_path, **table, rank="rank"))


def test_texts_are_those_of_the_corpus(tmp_path: Path) -> None:
    """
    Whatever else has a column of that name; what is carried is the run's first.
    """
    run = [{**row, "text": "of the run"} for row in RUN]

    assert BY_SCORE == shown(three(tmp_path, run))


def test_ids_without_a_match_are_refused_with_their_number_and_examples(tmp_path: Path) -> None:
    """
    Of queries and of documents, at once.
    """
    run = [*RUN, {"query_id": "z", "doc_id": "1", "score": 0.0}]
    run += [{"query_id": "a", "doc_id": str(n), "score": 0.0} for n in (7, 8)]

    with pytest.raises(SourceError) as refused:
        three(tmp_path, run)

    assert [
        "1 id of run.parquet is not in queries.parquet, such as 'z'",
        "2 ids of run.parquet are not in corpus.parquet, such as '7', '8'",
    ] == [problem.message for problem in refused.value.problems]
    assert all("unmatched" in problem.remedy for problem in refused.value.problems)


def test_or_their_groups_are_rejected_and_say_why(tmp_path: Path) -> None:
    """
    The others go on as they are.
    """
    run = [*RUN, {"query_id": "z", "doc_id": "1", "score": 0.0}]
    run += [{"query_id": "a", "doc_id": "7", "score": 0.0}]

    first, second, third = groups_of(three(tmp_path, run, unmatched="reject"))

    assert (first.flaw, first.documents) == ("the corpus has no document 7", (None,) * 3)
    assert all(
        group.flaw is None
        for group in groups_of(three(tmp_path, run[:-2] + run[-1:], unmatched="reject", depth=2))
    )  # of a group only what is taken
    assert (second.query, second.documents, second.flaw) == ("two", ("x", "z"), None)
    assert (third.query_id, third.flaw) == ("z", "no query has this id")


def test_an_id_that_comes_twice_in_the_corpus_is_refused(tmp_path: Path) -> None:
    """
    Which of its texts was meant nobody can know.
    """
    written(tmp_path, [*CORPUS, CORPUS[0]], "corpus.parquet")
    written(tmp_path, RUN, "run.parquet")
    written(tmp_path, QUERIES, "queries.parquet")

    with pytest.raises(SourceError, match=r"1 id comes more than once in corpus\.parquet"):
        source_of(tmp_path, run="run.parquet", queries="queries.parquet", corpus="corpus.parquet")


# --- DuckDB ---------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> str:
    """
    A DuckDB file with a table of candidates and a view of groups.
    """
    rows = pa.Table.from_pylist(list(map(dict, PAIRS)))
    with duckdb.connect(str(tmp_path / "night.duckdb")) as connection:
        connection.register("rows", rows)
        connection.execute("CREATE TABLE pairs AS SELECT * FROM rows")
        connection.execute(
            "CREATE VIEW groups AS SELECT query_id, query,"
            " list(text ORDER BY score DESC) AS documents FROM pairs GROUP BY ALL"
        )
    return "night.duckdb"


@pytest.mark.parametrize(
    "asked",
    [
        {"table": "pairs", "score": "score"},
        {"table": "main.pairs", "score": "score"},
        {"table": "groups", "query_id": "query_id"},
        {"sql": "SELECT * FROM pairs WHERE score > $least", "score": "score",
         "parameters": {"least": 0.1}},
        {"sql": "SELECT * FROM groups -- all of them", "query_id": "query_id"},
    ],
    ids=["a table", "with its schema", "a view of groups", "a SELECT", "that ends in a comment"],
)  # fmt: skip
def test_a_database_is_read_in_either_shape(
    tmp_path: Path, database: str, asked: dict[str, Any]
) -> None:
    """
    The shape is known from the columns.
    """
    assert BY_SCORE == shown(source_of(tmp_path, database=database, **asked))


def test_a_select_may_read_the_files_that_the_job_names(tmp_path: Path) -> None:
    """
    And DuckDB's own words for them.
    """
    written(tmp_path, PAIRS)
    path = tmp_path / "pairs.parquet"

    source = source_of(
        tmp_path, sql=f"SELECT * FROM '{path}'", reads=["pairs.parquet"], score="score"
    )

    assert BY_SCORE == shown(source)
    assert ["pairs.parquet"] == [file.path for file in source.files]


@pytest.mark.parametrize(
    "sql",
    ["SELECT * FROM 'd/*.csv'", "SELECT * FROM read_csv('d/*.csv', all_varchar = true)"],
    ids=["named", "read by a function"],
)
def test_a_select_may_read_a_glob_that_the_job_names(tmp_path: Path, sql: str) -> None:
    """
    Of CSV, too; each file of it is known by its bytes.
    """
    (tmp_path / "d").mkdir()
    for number, row in enumerate(PAIRS):
        text = ",".join(map(str, row.values()))
        (tmp_path / f"d/{number}.csv").write_text(",".join(row) + f"\n{text}\n")

    source = source_of(tmp_path, sql=sql, reads=["d/*.csv"], score="score")

    assert BY_SCORE == shown(source)
    assert [f"d/{number}.csv" for number in range(4)] == [file.path for file in source.files]


# --- what cannot be staged ------------------------------------------------------------------------

BAD: Mapping[str, tuple[Sequence[Row], str]] = {
    "an id that is missing": ([{**PAIRS[0], "query_id": None}, *PAIRS], "pairs.parquet, row 0"),
    "two texts of one query": ([{**PAIRS[0], "query": "other"}, *PAIRS], "'b' has two queries"),
    "no query at all": ([{"query_id": "a", "text": "x"}], "query: there is no column query"),
    "no text": ([{"query_id": "a", "query": "x", "txt": "y"}], "there is no column text"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_group_is_refused(tmp_path: Path, name: str) -> None:
    """
    With what it is about and how to mend it, before anything is paid.
    """
    rows, words = BAD[name]

    with pytest.raises(SourceError) as refused:
        source_of(tmp_path, path=written(tmp_path, rows), group_order=["query_id"])

    assert words in str(refused.value)


def test_far_too_many_candidates_are_a_column_that_is_no_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Memory is for one group at most.
    """
    monkeypatch.setattr("batchrank.source.stage.folding.CANDIDATES_MAX", 1_000)
    rows = [{"query_id": "a", "query": "q", "text": str(n)} for n in range(5_000)]

    with pytest.raises(SourceError, match="'a' has more than 1,000 candidates"):
        source_of(tmp_path, path=written(tmp_path, rows))


def test_an_unknown_ending_is_told(tmp_path: Path) -> None:
    """
    With those that are known.
    """
    (tmp_path / "run.xlsx").write_bytes(b"PK")

    with pytest.raises(SourceError, match=r"run.xlsx is of no format .*\.parquet"):
        source_of(tmp_path, run="run.xlsx", queries="q.parquet", corpus="c.parquet")


# --- once -----------------------------------------------------------------------------------------


def test_a_source_is_staged_once(tmp_path: Path) -> None:
    """
    The second time nothing is sorted; another file is staged anew, and the old one goes as soon as
    nobody reads it.
    """
    path = written(tmp_path, PAIRS)
    first = source_of(tmp_path, path=path, score="score")
    staged = next((tmp_path / "staging").glob("*/groups.parquet"))
    before = staged.stat().st_mtime_ns

    second = source_of(tmp_path, path=path, score="score")
    assert (staged.stat().st_mtime_ns, first.files) == (before, second.files)

    written(tmp_path, PAIRS[:2])
    assert 2 == source_of(tmp_path, path=path, score="score").total
    assert BY_SCORE == shown(first)

    del first, second
    written(tmp_path, PAIRS[:3])
    assert 2 == source_of(tmp_path, path=path, score="score").total
    assert [1] == [len(list((tmp_path / "staging").glob("*/groups.parquet")))]
    assert not staged.exists()


def test_what_was_interrupted_is_staged_anew(tmp_path: Path) -> None:
    """
    Without its last file it is not there; what was spilled goes, too.
    """
    path = written(tmp_path, PAIRS)
    source_of(tmp_path, path=path, score="score")
    staged = next((tmp_path / "staging").glob("*/staged.json"))
    staged.unlink()
    (staged.parent / staging.GROUPS).write_bytes(b"half of it")
    spill = tmp_path / "staging" / staging.SPILL
    spill.mkdir()
    (spill / "old").write_bytes(b"x")

    assert BY_SCORE == shown(source_of(tmp_path, path=path, score="score"))
    assert not spill.exists()


def test_two_do_not_stage_at_once(tmp_path: Path) -> None:
    """
    The second one leaves, and may try again.
    """
    path = written(tmp_path, PAIRS)

    with staging.alone(tmp_path / "staging"), pytest.raises(AlreadyRunning, match="stages this"):
        source_of(tmp_path, path=path, score="score")


def test_groups_that_lie_nested_are_read_where_they_are(tmp_path: Path) -> None:
    """
    Nothing is staged, unless they are to be cut or put in another order.
    """
    table = pa.table(
        {"query_id": ["b", "a"], "query": ["2", "1"], "documents": [["x", "y"], ["z"]]}
    )
    pq.write_table(table, tmp_path / "g.parquet")

    plain = source_of(tmp_path, path="g.parquet", query_id="query_id")
    assert not isinstance(plain, StagedSource)
    assert not (tmp_path / "staging").exists()

    cut = source_of(tmp_path, path="g.parquet", query_id="query_id", depth=1)
    assert [("a", "1", ("z",)), ("b", "2", ("x",))] == shown(cut)
