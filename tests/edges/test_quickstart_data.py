"""
The quick start's data: what its texts promise, and what the script makes of them.
"""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import ir_measures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.local.lexical import scores
from jobs.make_data import (
    GROUPS,
    HERE,
    NIGHTS,
    QRELS,
    TEXTS,
    HelpDesk,
    Query,
    first_stage,
    read_help_desk,
    tables,
    write,
)

FILES = [
    "corpus/part-0.parquet",
    "corpus/part-1.parquet",
    "helpdesk.parquet",
    "nightly/dt=2026-11-19/_SUCCESS",
    "nightly/dt=2026-11-19/groups.parquet",
    "nightly/dt=2026-11-20/_SUCCESS",
    "nightly/dt=2026-11-20/groups.parquet",
    "qrels.parquet",
]

REAL_NAMES = """
    adidas airtag amazon android apple arcteryx bialetti blackdiamond bluetooth camelbak campingaz
    coleman cordura decathlon deuter dhl duracell dyneema edelrid energizer fedex fjallraven
    garmin google gore goretex grangers hilleberg iphone jetboil kevlar klarna klean leatherman
    lowa lundhags mammut mastercard meindl merrell microsoft msr nalgene nikwax olight opinel
    ortlieb osprey patagonia paypal petzl platypus polartec primaloft primus rei salewa salomon
    samsung sawyer scarpa stanley steripen suunto teflon thermarest thermos trangia trustpilot ups
    usps vango vaude velcro vibram victorinox visa whatsapp ykk
"""
"""Makers, carriers and banks that a text about such goods might slip into."""


@pytest.fixture(scope="module")
def desk() -> HelpDesk:
    """
    The texts as they lie in the repository.
    """
    return read_help_desk()


@pytest.fixture(scope="module")
def made(desk: HelpDesk) -> dict[str, pa.Table]:
    """
    Every table that the script makes of them.
    """
    return tables(desk)


def doc_ids(groups: pa.Table) -> list[list[str]]:
    """
    The candidates' ids of each row.
    """
    return [[d["doc_id"] for d in row] for row in groups["documents"].to_pylist()]


def test_forty_queries_have_twenty_five_candidates_each(made: dict[str, pa.Table]) -> None:
    """
    Every query comes once, with 25 candidates, none of them twice.
    """
    groups = made["helpdesk.parquet"]
    candidates = doc_ids(groups)
    expected_ids = [f"Q{n:02}" for n in range(1, 41)]
    expected_counts = [25] * 40

    assert groups.schema.equals(GROUPS)
    assert expected_ids == groups["query_id"].to_pylist()
    assert groups.num_rows == len(set(groups["query"].to_pylist()))
    assert {"en-GB", "en-IE", "en-US"} == set(groups["market"].to_pylist())
    assert expected_counts == [len(ids) for ids in candidates]
    assert expected_counts == [len(set(ids)) for ids in candidates]


def test_qrels_judge_every_candidate(desk: HelpDesk, made: dict[str, pa.Table]) -> None:
    """
    There is one grade for each candidate, in the candidates' order, and none for anything else.
    """
    groups, qrels = made["helpdesk.parquet"], made["qrels.parquet"]
    candidates = [
        (query_id, doc_id)
        for query_id, ids in zip(groups["query_id"].to_pylist(), doc_ids(groups), strict=True)
        for doc_id in ids
    ]
    judged = {
        (q.query_id, doc_id): grade for q in desk.judged for doc_id, grade in q.grades.items()
    }
    rows = qrels.to_pylist()

    assert qrels.schema.equals(QRELS)
    assert candidates == [(row["query_id"], row["doc_id"]) for row in rows]
    assert judged.keys() <= set(candidates)
    assert [judged.get(pair, 0) for pair in candidates] == [row["relevance"] for row in rows]


def test_each_query_has_an_answer_and_something_related(desk: HelpDesk) -> None:
    """
    Grades are 1 to 3; each query has one to three that help, one of them an answer, and a grade 1.
    """
    for query in desk.judged:
        count = Counter(query.grades.values())

        assert count.keys() <= {1, 2, 3}, query.query_id
        assert count[3] > 0, query.query_id
        assert count[2] + count[3] <= 3, query.query_id
        assert count[1] > 0, query.query_id


def test_no_grade_stands_twice_in_the_text(desk: HelpDesk) -> None:
    """
    YAML takes the last of two equal keys without a word; so the keys are counted in the text.
    """
    text = (TEXTS / "queries.yaml").read_text(encoding="utf-8")

    assert sum(len(q.grades) for q in desk.judged) == len(re.findall(r"\bA\d{3}: [0-9]", text))


def test_articles_keep_to_their_form(desk: HelpDesk) -> None:
    """
    160 articles, A001 to A160, with a title of their own and 200 to 450 characters.
    """
    articles = list(desk.articles.values())
    expected_ids = [f"A{n:03}" for n in range(1, 161)]
    eight_a_topic = dict.fromkeys(desk.neighbours, 8)

    assert expected_ids == [a.doc_id for a in articles]
    assert len(articles) == len({a.title for a in articles}) == len({a.body for a in articles})
    assert not [a.doc_id for a in articles if not 200 <= len(a.body) <= 450]
    assert not [a.doc_id for a in articles if not 0 < a.views < 100_000]
    assert eight_a_topic == Counter(a.topic for a in articles)


def test_topics_have_neighbours_that_exist(desk: HelpDesk) -> None:
    """
    Each topic names three others.
    """
    for topic, neighbours in desk.neighbours.items():
        others = {*neighbours} - {topic}

        assert len(others) == 3, topic
        assert others <= desk.neighbours.keys(), topic


def texts(desk: HelpDesk) -> list[str]:
    """
    Everything that a person can read in the tables.
    """
    queries = [q.query for q in (*desk.judged, *desk.broad)]
    return [*queries, *(t for a in desk.articles.values() for t in (a.title, a.body))]


@pytest.mark.parametrize(
    "flaw",
    [
        pytest.param(r"[^ -~]", id="anything but printable ASCII"),
        pytest.param(r"  |^ | $", id="a blank too many"),
        pytest.param(r" [,.;:?!)]|\( ", id="a blank on the wrong side of a mark"),
        pytest.param(r"[,;:?!][A-Za-z]|[a-z]\.[A-Za-z]", id="no blank after a mark"),
        pytest.param(r"--|``|''|\.\.|,,", id="a mark twice, or typewriter quotes"),
    ],
)
def test_punctuation_is_sound(desk: HelpDesk, flaw: str) -> None:
    """
    Texts hold none of the usual slips.
    """
    assert not [text for text in texts(desk) if re.search(flaw, text)]


def test_bodies_are_whole_sentences(desk: HelpDesk) -> None:
    """
    A body begins like a sentence, ends with a full stop or question mark, and pairs its quotes.
    """
    bodies = [a.body for a in desk.articles.values()]

    assert not [b for b in bodies if not re.fullmatch(r"[A-Z0-9].*[.?]", b)]
    assert not [b for b in bodies if b.count('"') % 2 or b.count("(") != b.count(")")]


def test_no_real_brand_is_named(desk: HelpDesk) -> None:
    """
    The shop is invented, and so is all that it sells.
    """
    words = {word for text in texts(desk) for word in re.findall(r"[a-z]+", text.lower())}

    assert not words & set(REAL_NAMES.split())


def test_first_stage_reads_neither_words_nor_grades(desk: HelpDesk) -> None:
    """
    With other words, and with the grades turned round, the order is the same.
    """
    for query in desk.judged:
        turned = {doc_id: 4 - grade for doc_id, grade in reversed(query.grades.items())}
        other = Query(query.query_id, "something else", "en-GB", query.topic, turned)

        assert first_stage(desk, query) == first_stage(desk, other)


def test_nights_share_out_the_queries(made: dict[str, pa.Table]) -> None:
    """
    Two nights of 20 rows, none in both, all of them rows of the whole.
    """
    nights = [made[f"nightly/dt={night}/groups.parquet"] for night in NIGHTS]
    together = pa.concat_tables(nights).sort_by("query_id")

    assert {20} == {night.num_rows for night in nights}
    assert made["helpdesk.parquet"].combine_chunks().equals(together.combine_chunks())


def test_corpus_has_every_article_for_each_broad_query(
    desk: HelpDesk, made: dict[str, pa.Table]
) -> None:
    """
    Two files of six queries; each has all 160 articles as candidates.
    """
    parts = [made[f"corpus/part-{part}.parquet"] for part in range(2)]
    asked = [query_id for part in parts for query_id in part["query_id"].to_pylist()]

    assert {6} == {part.num_rows for part in parts}
    assert sorted(q.query_id for q in desk.broad) == sorted(asked)
    assert all(list(desk.articles) == ids for part in parts for ids in doc_ids(part))


def test_script_writes_the_same_files_twice(tmp_path: Path) -> None:
    """
    One run as a script and one as a call give the same names, tables and bytes, and little of them.
    """
    script, call = tmp_path / "script", tmp_path / "call"
    subprocess.run([sys.executable, HERE / "make_data.py", script], check=True, capture_output=True)
    write(tables(read_help_desk()), call)
    found = sorted(p.relative_to(script).as_posix() for p in script.rglob("*") if p.is_file())

    assert sorted(FILES) == found
    assert [(script / f).read_bytes() for f in FILES] == [(call / f).read_bytes() for f in FILES]
    assert sum((script / f).stat().st_size for f in FILES) < 300_000
    assert tables(read_help_desk())["qrels.parquet"].equals(pq.read_table(call / "qrels.parquet"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(
            "{A002: 3", "{A999: 3", "Q01 grades .*A999", id="an article that is not there"
        ),
        pytest.param(
            "topic: shipping", "topic: shiping", "Q01 names no topic", id="a topic misspelt"
        ),
    ],
)
def test_dangling_references_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    """
    A slip in the texts is told with the query that has it.
    """
    for name in ("articles.yaml", "queries.yaml"):
        text = (TEXTS / name).read_text(encoding="utf-8")
        mended = text.replace(old, new, 1) if name == "queries.yaml" else text
        (tmp_path / name).write_text(mended, encoding="utf-8")

    with pytest.raises(ValueError, match=message):
        read_help_desk(tmp_path)


def test_an_article_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """
    A doc_id means one article.
    """
    text = (TEXTS / "articles.yaml").read_text(encoding="utf-8")
    (tmp_path / "articles.yaml").write_text(text.replace("A002", "A001", 1), encoding="utf-8")
    (tmp_path / "queries.yaml").write_bytes((TEXTS / "queries.yaml").read_bytes())

    with pytest.raises(ValueError, match="A001 stands there twice"):
        read_help_desk(tmp_path)


def by_words(desk: HelpDesk, query: Query) -> list[str]:
    """
    The query's candidates in BM25's order, ties in the first stage's.
    """
    found = first_stage(desk, query)
    scored = scores(query.query, [f"{a.title}\n{a.body}" for a in found])
    best_first = sorted(zip(found, scored, strict=True), key=lambda pair: -pair[1])
    return [article.doc_id for article, _ in best_first]


def ndcg(desk: HelpDesk, ranked: dict[str, list[str]]) -> float:
    """
    The mean nDCG@10 of lists of doc_ids by query_id.
    """
    measure = ir_measures.nDCG @ 10
    qrels = {query.query_id: query.grades for query in desk.judged}
    run = {q: {d: -float(place) for place, d in enumerate(ids)} for q, ids in ranked.items()}
    return float(ir_measures.calc_aggregate([measure], qrels, run)[measure])


def test_there_is_something_to_gain(desk: HelpDesk) -> None:
    """
    The first stage is mediocre, BM25 clearly better, and neither is perfect.
    """
    before = {q.query_id: [a.doc_id for a in first_stage(desk, q)] for q in desk.judged}
    after = {q.query_id: by_words(desk, q) for q in desk.judged}

    assert 0.35 < ndcg(desk, before) < 0.55
    assert ndcg(desk, before) + 0.15 < ndcg(desk, after) < 0.95
