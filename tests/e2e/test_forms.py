"""
The same queries and candidates in every form that people keep them in: the same bytes come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import duckdb
import pytest

import batchrank
from tests.shared import data

PAIRS = """
    SELECT r.query_id, q.query, r.doc_id, c.title || chr(10) || c.text AS text, r.rank,
        r.score - r.rank * 1e-9 AS score -- of equal ones the run has an order that no score tells
    FROM r JOIN q USING (query_id) JOIN c USING (doc_id) ORDER BY hash(r.doc_id || r.query_id)
"""
THREE = 'rank = "rank"\ntemplate = "{title}\\n{text}"'
FORMS: Mapping[str, str] = {
    "nested": 'path = "nested.parquet"\nquery_id = "query_id"\ndoc_id = "id"\ntext = "text"',
    "pairs": 'path = "pairs.parquet"\nrank = "rank"',
    "by score": 'path = "pairs.parquet"\nscore = "score"',
    "csv": 'path = "pairs.csv"\nrank = "rank"',
    "json lines": 'path = "pairs.jsonl"\nrank = "rank"',
    "tables": f'run = "run.parquet"\nqueries = "queries.parquet"\ncorpus = "docs.parquet"\n{THREE}',
    "beir": f'run = "run.trec"\nqueries = "queries.jsonl"\ncorpus = "corpus.jsonl"\n{THREE}',
    "trec": f'run = "run.trec"\nqueries = "topics.tsv"\ncorpus = "docs.parquet"\n{THREE}',
    "view": 'database = "night.duckdb"\ntable = "candidates"\nrank = "rank"',
    "sql": (
        'database = "night.duckdb"\nsql = "SELECT * FROM candidates WHERE rank <= $most"\n'
        'parameters = { most = 100 }\nrank = "rank"'
    ),
}


def write_forms(folder: Path, queries: int, depth: int) -> None:
    """
    Write some of the queries with the first of their candidates in all forms.
    """
    with duckdb.connect() as con:
        for name, held in (("queries", "queries"), ("docs", "docs"), ("run_test", "ranked")):
            path = data("scifact") / f"{name}.parquet"
            con.execute(f"CREATE VIEW {held} AS SELECT * FROM '{path}'")
        con.execute(
            "CREATE TABLE q AS SELECT query_id, query FROM queries WHERE split = 'test'"
            f" ORDER BY query_id LIMIT {queries}"
        )
        con.execute(
            f"CREATE TABLE r AS FROM ranked SEMI JOIN q USING (query_id) WHERE rank <= {depth}"
        )
        con.execute("CREATE TABLE c AS FROM docs SEMI JOIN r USING (doc_id)")
        con.execute(f"CREATE TABLE p AS {PAIRS}")
        for sql, name, options in _FILES:
            con.execute(f"COPY ({sql}) TO '{folder / name}' ({options})")
        con.execute(f"ATTACH '{folder / 'night.duckdb'}' AS night")
        con.execute("CREATE TABLE night.held AS FROM p")
        con.execute("CREATE VIEW night.candidates AS FROM night.held")


_FILES = (
    (
        (
            "SELECT query_id, any_value(query) AS query,"
            " list({id: doc_id, text: text} ORDER BY rank) AS documents"
            " FROM p GROUP BY query_id ORDER BY query_id"
        ),
        *("nested.parquet", "format parquet"),
    ),
    ("FROM p", "pairs.parquet", "format parquet"),
    ("FROM p", "pairs.csv", "format csv"),
    ("FROM p", "pairs.jsonl", "format json"),
    ("FROM q", "queries.parquet", "format parquet"),
    ("FROM c", "docs.parquet", "format parquet"),
    ("FROM r", "run.parquet", "format parquet"),
    ("SELECT query_id AS _id, query AS text FROM q", "queries.jsonl", "format json"),
    ("SELECT doc_id AS _id, title, text FROM c", "corpus.jsonl", "format json"),
    ("FROM q", "topics.tsv", "format csv, delimiter '\t', header false, quote ''"),
    (
        "SELECT query_id, 'Q0' AS q0, doc_id, rank, score, 'bm25' AS tag FROM r",
        *("run.trec", "format csv, delimiter ' ', header false, quote ''"),
    ),
)


def parts_of(folder: Path) -> dict[str, set[str]]:
    """
    Run every form, scored in process; the digests of its parts.
    """
    found = {}
    for name, source in FORMS.items():
        output = folder / "out" / name
        job = folder / f"{name}.toml"
        job.write_text(
            f'[source]\n{source}\n[provider]\nname = "lexical"\n[output]\npath = "{output}"\n'
        )
        assert batchrank.run(job).exit_code == 0
        found[name] = {sha256(p.read_bytes()).hexdigest() for p in output.glob("*.parquet")}
    return found


@pytest.mark.campaign
def test_every_form_gives_the_same_bytes(tmp_path: Path) -> None:
    """
    Ten forms of ten of SciFact's queries.
    """
    write_forms(tmp_path, 10, 5)

    found = parts_of(tmp_path)

    assert all(parts == found["nested"] for parts in found.values()), found
    assert len(found["nested"]) == 1


@pytest.mark.long
def test_every_form_of_all_queries_gives_the_same_bytes(tmp_path: Path) -> None:
    """
    All three hundred, with a hundred candidates each.
    """
    write_forms(tmp_path, 300, 100)

    found = parts_of(tmp_path)

    assert all(parts == found["nested"] for parts in found.values()), found
