"""
Turn the help desk's texts into the Parquet files that the quick start and the sample jobs read.

Owns the files below `jobs/data/` that end in `.parquet` or are called `_SUCCESS`. The texts in
`helpdesk/*.yaml` are the original: YAML, because a paragraph stands there without quotes or
escapes, wraps at a hundred columns, takes comments, and a changed sentence is a changed line.

Never draws a number, asks the clock or the network, or grades: the same texts and pyarrow give the
same bytes. The shop does not exist; its texts were written for this project.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

HERE = Path(__file__).resolve().parent
TEXTS = HERE / "data" / "helpdesk"
CANDIDATES_PER_QUERY = 25
NIGHTS = ("2026-11-19", "2026-11-20")
CORPUS_PARTS = 2

DOCUMENT = pa.struct([("doc_id", pa.string()), ("title", pa.string()), ("body", pa.string())])
GROUPS = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("documents", pa.list_(DOCUMENT)),
        ("market", pa.string()),
    ]
)
QRELS = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("relevance", pa.int32())])


@dataclass(frozen=True, slots=True)
class Article:
    """
    A text of the help desk; *views* is how often it was read last year.
    """

    doc_id: str
    title: str
    body: str
    topic: str
    views: int


@dataclass(frozen=True, slots=True)
class Query:
    """
    What a customer typed; *grades* holds 1 to 3 by doc_id and is empty for a broad query.
    """

    query_id: str
    query: str
    market: str
    topic: str
    grades: dict[str, int]


@dataclass(frozen=True, slots=True)
class HelpDesk:
    """
    All texts, in the order of the files; *neighbours* are topics by topic, the nearest first.
    """

    articles: dict[str, Article]
    neighbours: dict[str, tuple[str, ...]]
    judged: tuple[Query, ...]
    broad: tuple[Query, ...]


def read_help_desk(folder: Path = TEXTS) -> HelpDesk:
    """
    Read `articles.yaml` and `queries.yaml` of *folder*.

    Raises:
        ValueError: a doc_id stands twice, or a query names an article or topic that is not there.
    """
    sections = _load(folder / "articles.yaml")
    queries = _load(folder / "queries.yaml")
    desk = HelpDesk(
        articles=_by_id(
            Article(topic=section["topic"], **fields)
            for section in sections
            for fields in section["articles"]
        ),
        neighbours={section["topic"]: tuple(section["neighbours"]) for section in sections},
        judged=tuple(Query(**fields) for fields in queries["judged"]),
        broad=tuple(Query(topic="", grades={}, **fields) for fields in queries["broad"]),
    )
    _refuse_dangling(desk)
    return desk


def first_stage(desk: HelpDesk, query: Query) -> list[Article]:
    """
    Give the query's candidates in the order in which a plain "most read" list would show them.

    The graded articles are always among them. The others come from the query's topic, then from its
    neighbours, the nearest first, the most read first, until there are 25. All are then put in one
    order by `views`, those of the query's own topic counted half as much again, ties by doc_id.
    Neither the words of the query nor the grades play a part in that order.
    """
    graded = [desk.articles[doc_id] for doc_id in query.grades]
    topics = (query.topic, *desk.neighbours[query.topic])
    others = [
        article
        for topic in topics
        for article in sorted(desk.articles.values(), key=_most_read)
        if article.topic == topic and article.doc_id not in query.grades
    ]
    candidates = (graded + others)[:CANDIDATES_PER_QUERY]
    return sorted(candidates, key=lambda article: _most_read(article, query.topic))


def groups_table(desk: HelpDesk) -> pa.Table:
    """
    Make one row for each judged query with its candidates.
    """
    return _groups((query, first_stage(desk, query)) for query in desk.judged)


def qrels_table(desk: HelpDesk) -> pa.Table:
    """
    Make one row for each candidate of each judged query, the grade 0 written out.
    """
    rows = [
        {
            "query_id": query.query_id,
            "doc_id": article.doc_id,
            "relevance": query.grades.get(article.doc_id, 0),
        }
        for query in desk.judged
        for article in first_stage(desk, query)
    ]
    return pa.Table.from_pylist(rows, schema=QRELS)


def corpus_table(desk: HelpDesk, part: int) -> pa.Table:
    """
    Make the rows of one corpus file: a share of the broad queries, each with every article.
    """
    everything = list(desk.articles.values())
    return _groups((query, everything) for query in desk.broad[part::CORPUS_PARTS])


def tables(desk: HelpDesk) -> dict[str, pa.Table]:
    """
    Make every table, by its path below `jobs/data/`.

    The nights take turns: the first has every other query, so that both have topics of all kinds.
    """
    groups = groups_table(desk)
    nightly = {
        f"nightly/dt={night}/groups.parquet": groups.take(
            pa.array(range(turn, groups.num_rows, len(NIGHTS)))
        )
        for turn, night in enumerate(NIGHTS)
    }
    corpus = {
        f"corpus/part-{part}.parquet": corpus_table(desk, part) for part in range(CORPUS_PARTS)
    }
    return {
        "helpdesk.parquet": groups,
        "qrels.parquet": qrels_table(desk),
        **nightly,
        **corpus,
    }


def write(made: dict[str, pa.Table], folder: Path) -> None:
    """
    Write each table to its path below *folder*, and an empty `_SUCCESS` beside each night's file.
    """
    for path, table in made.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="zstd")
    for night in NIGHTS:
        (folder / "nightly" / f"dt={night}" / "_SUCCESS").touch()


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _by_id(articles: Iterable[Article]) -> dict[str, Article]:
    found: dict[str, Article] = {}
    for article in articles:
        if article.doc_id in found:
            raise ValueError(f"articles.yaml: {article.doc_id} stands there twice")
        found[article.doc_id] = article
    return found


def _refuse_dangling(desk: HelpDesk) -> None:
    for query in desk.judged:
        unknown = sorted(query.grades.keys() - desk.articles.keys())
        if unknown:
            raise ValueError(f"queries.yaml: {query.query_id} grades {unknown}, not in articles")
        if query.topic not in desk.neighbours:
            raise ValueError(f"queries.yaml: {query.query_id} names no topic: {query.topic!r}")


def _most_read(article: Article, favoured: str = "") -> tuple[int, str]:
    return -article.views * (3 if article.topic == favoured else 2), article.doc_id


def _groups(found: Iterable[tuple[Query, Sequence[Article]]]) -> pa.Table:
    rows = [
        {
            "query_id": query.query_id,
            "query": query.query,
            "documents": [
                {"doc_id": article.doc_id, "title": article.title, "body": article.body}
                for article in articles
            ],
            "market": query.market,
        }
        for query, articles in found
    ]
    return pa.Table.from_pylist(rows, schema=GROUPS)


def main() -> None:
    """
    Write all files and say which.
    """
    parser = argparse.ArgumentParser(description="Write the sample data.")
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "data")
    folder: Path = parser.parse_args().folder
    made = tables(read_help_desk())
    write(made, folder)
    for path, table in made.items():
        print(f"{folder / path}: {table.num_rows} rows, {(folder / path).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
