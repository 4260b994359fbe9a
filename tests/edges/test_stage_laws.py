"""
Laws of staging: whatever rows there are, in whatever order, files and format, the groups are those
that a few lines of Python make of them in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrank.errors import SourceError
from tests.edges.test_staging import groups_of, source_of, written
from tests.laws import law

pytestmark = pytest.mark.campaign

Row = dict[str, Any]
Settings = dict[str, Any]
Groups = list[tuple[object, str | None, list[Row]]]
"""Query ids, queries, and the candidates as they lie in the staged file."""

NUMBERS = [0, 1, 2, 9, 10, -1, 2**40]
NAMES = ["a", "A", "ä", "9", "10", "007", "7", "\ufeffa", "a'b", 'a"b', "a,b", "é", "e\u0301", "😀"]
TEXTS = st.text(st.sampled_from("ab é\ufeff\u200d'\",\t\n"), max_size=3)
MEASURES = [None, 0.0, 1.0, 1.5, 2.0, 10.0, -3.0, 1e-7]
NOT_FINITE = [math.nan, math.inf, -math.inf]
"""JSON has no words for these."""


# --- in memory ------------------------------------------------------------------------------------


def last_if_none(value: Any) -> tuple[bool, Any]:
    """
    A key to sort by as DuckDB does: what is not there comes last, text by its bytes.
    """
    if isinstance(value, str):
        value = value.encode()
    return (value is None, 0 if value is None else value)


def place_of(row: Row, settings: Settings) -> tuple[Any, ...]:
    """
    Where a row stands among all.
    """
    measure = row["score"]
    if measure is not None and math.isnan(measure):
        measure = None
    if measure is not None and "score" in settings:
        measure = -measure
    if not {"score", "rank"} & settings.keys():
        measure = None
    by_group = [last_if_none(row[name]) for name in settings.get("group_order", [])]
    rest = [last_if_none(row[name]) for name in ("doc_id", "text", "price")]
    return (*by_group, str(row["query_id"]).encode(), last_if_none(measure), *rest)


def naive(rows: Sequence[Row], settings: Settings) -> Groups:
    """
    The groups, as anyone would make them of few rows.
    """
    groups: dict[object, list[Row]] = {}
    for row in sorted(rows, key=lambda each: place_of(each, settings)):
        groups.setdefault(row["query_id"], []).append(row)
    kept = ("doc_id", "text", "price")
    return [
        (
            query_id,
            held[0]["query"],
            [{name: row[name] for name in kept} for row in held[: settings.get("depth")]],
        )
        for query_id, held in groups.items()
    ]


# --- on disk --------------------------------------------------------------------------------------


def as_parquet(path: Path, rows: Sequence[Row], kinds: Mapping[str, pa.DataType]) -> None:
    """
    In row groups of a few rows.
    """
    columns = {name: pa.array([row[name] for row in rows], kinds[name]) for name in kinds}
    pq.write_table(pa.table(columns), path, row_group_size=3)


def as_json(path: Path, rows: Sequence[Row], _: object) -> None:
    """
    Without the keys that have no value.
    """
    held = ({k: v for k, v in row.items() if v is not None} for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in held))


def as_csv(path: Path, rows: Sequence[Row], kinds: Mapping[str, Any]) -> None:
    """
    Text in quotes, what is not there as nothing; the columns of each file in an order of its own.
    """
    turn = int(path.stem) + 1
    names = [*kinds][turn:] + [*kinds][:turn]
    lines = [",".join(names), *(",".join(field(row[name]) for name in names) for row in rows)]
    path.write_text("\n".join(lines) + "\n", newline="")


def field(value: object) -> str:
    """
    One of CSV.
    """
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return "" if value is None else repr(value)


WRITERS = {"parquet": as_parquet, "jsonl": as_json, "csv": as_csv}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[list[Row]], Settings, Mapping[str, pa.DataType]]:
    """
    A format, rows of candidates in some files, and a `[source]`; some rows come twice.
    """
    form = draw(st.sampled_from(sorted(WRITERS)))
    texts = TEXTS if form != "csv" else TEXTS.map(lambda text: text or None)
    measures = MEASURES + (NOT_FINITE if form != "jsonl" else [])
    ids = NUMBERS if form != "csv" and draw(st.booleans()) else NAMES
    days = {query_id: draw(st.sampled_from([None, 1, 2, 10])) for query_id in ids}
    row = st.builds(
        lambda q, d, t, s, p: {
            "query_id": q,
            "query": f"text of {q}",
            "doc_id": d,
            "text": t,
            "score": s,
            "price": p,
            "day": days[q],
        },
        st.sampled_from(ids),
        st.sampled_from([None, *ids]),
        st.none() | texts,
        st.sampled_from(measures),
        st.sampled_from([None, 1, 2]),
    )
    rows = draw(st.lists(row, min_size=1, max_size=25))
    rows += draw(st.lists(st.sampled_from(rows), max_size=10))
    rows = draw(st.permutations(rows))
    cut = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=2)))
    files = [rows[a:b] for a, b in zip([0, *cut], [*cut, len(rows)], strict=True) if a < b]
    settings: Settings = {"carry": ["price"]}
    if by := draw(st.sampled_from(["score", "rank", None])):
        settings[by] = "score"
        if depth := draw(st.none() | st.integers(1, 4)):
            settings["depth"] = depth
    if form != "csv" and draw(st.booleans()):
        settings["group_order"] = ["day"]
    an_id = pa.int64() if ids is NUMBERS else pa.string()
    kinds = {
        "query_id": an_id,
        "query": pa.string(),
        "doc_id": an_id,
        "text": pa.string(),
        "score": pa.float64(),
        "price": pa.int64(),
        "day": pa.int64(),
    }
    return form, files, settings, kinds


def staged(folder: Path) -> Groups:
    """
    What was staged.
    """
    (path,) = folder.glob("staging/*/groups.parquet")
    return [
        (row["query_id"], row["query"], row["documents"]) for row in pq.read_table(path).to_pylist()
    ]


@law(12)
@given(tables())
def test_any_rows_give_the_groups_of_a_naive_grouping(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any
) -> None:
    """
    Duplicates are kept, ties are broken by all that a row has, NULL and NaN come last; ids are
    ordered as text by its bytes, and none becomes another.
    """
    form, files, settings, kinds = drawn
    folder = tmp_path_factory.mktemp("law")
    rows = [row for file in files for row in file]
    # What no line of JSON has is of no type.
    assume(form != "jsonl" or all(any(row[name] is not None for row in rows) for name in kinds))
    for number, file in enumerate(files):
        WRITERS[form](folder / f"{number}.{form}", file, kinds)

    source = source_of(folder, path=f"*.{form}", **settings)

    expected = naive(rows, settings)
    if form == "csv":  # whose columns are text
        for *_, candidates in expected:
            for each in candidates:
                each["price"] = None if each["price"] is None else str(each["price"])
    assert expected == staged(folder)
    found = groups_of(source)
    assert [query_id for query_id, *_ in expected] == [group.query_id for group in found]
    assert [texts_of(candidates) for *_, candidates in expected] == [
        None if group.flaw else group.documents for group in found
    ]


def texts_of(candidates: Sequence[Row]) -> tuple[str | None, ...] | None:
    """
    What is sent of candidates: no blank one; nothing at all if one to be sent has no id.
    """
    texts = tuple(each["text"] if (each["text"] or "").strip() else None for each in candidates)
    unnamed = any(
        text and each["doc_id"] is None for text, each in zip(texts, candidates, strict=True)
    )
    return None if unnamed else texts


@law(10)
@given(
    run=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("12345"), st.sampled_from([0.5, 1.0])),
        min_size=1,
        max_size=20,
    ),
    queries=st.sets(st.sampled_from("abcd")),
    corpus=st.sets(st.sampled_from("123456")),
    depth=st.none() | st.integers(1, 3),
)
def test_any_three_tables_give_the_groups_of_a_naive_join(
    tmp_path_factory: pytest.TempPathFactory,
    run: list[tuple[str, str, float]],
    queries: set[str],
    corpus: set[str],
    depth: int | None,
) -> None:
    """
    What is not there rejects the groups that it is in, or the job, and nothing else; what no
    candidate names is as if it were not there.
    """
    folder = tmp_path_factory.mktemp("law")
    names = ("query_id", "doc_id", "score")
    written(folder, [dict(zip(names, row, strict=True)) for row in run], "run.parquet")
    for name, field_name, held in (("queries", "query", queries), ("corpus", "text", corpus)):
        an_id = "query_id" if name == "queries" else "doc_id"
        there = pa.table({an_id: sorted(held), field_name: [f"text of {id_}" for id_ in held]})
        pq.write_table(there.cast(pa.schema([(an_id, "string"), (field_name, "string")])),
                       folder / f"{name}.parquet")  # fmt: skip
    table: Settings = {name: f"{name}.parquet" for name in ("run", "queries", "corpus")}
    table |= {"score": "score"} | ({"depth": depth} if depth else {})
    whole = {q for q, *_ in run} <= queries and {d for _, d, _ in run} <= corpus

    if whole:
        source_of(folder, **table)
    else:
        with pytest.raises(SourceError, match="not in"):
            source_of(folder, **table)

    expected = {}
    for q in sorted({q for q, *_ in run}):
        best = sorted((-s, d) for other, d, s in run if other == q)[:depth]
        sound = q in queries and all(d in corpus for _, d in best)
        expected[q] = [d for _, d in best] if sound else None
    found = groups_of(source_of(folder, **table, unmatched="reject"))
    texts = dict(zip(sorted(corpus), (f"text of {id_}" for id_ in corpus), strict=True))
    assert expected == {
        str(group.query_id): None if group.flaw else [
            next(d for d, text in texts.items() if text == document)
            for document in group.documents
        ]
        for group in found
    }  # fmt: skip
