"""
Every mapped column is checked before anything is paid, and all mistakes are told at once.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.config.schema import SourceTable
from batchrank.domain import Group, Positions, RichDocument
from batchrank.errors import SourceError
from batchrank.source import open_source
from batchrank.source.columns import Columns
from batchrank.source.fitting import fit

DOCUMENT = pa.struct(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("price", pa.float32()),
        ("hash", pa.uint64()),
        ("raw", pa.binary()),
        ("tags", pa.list_(pa.string())),
        ("parts", pa.list_(pa.binary())),
        ("day", pa.date32()),
    ]
)
STRUCTS = pa.schema(
    [
        ("query_id", pa.int32()),
        ("query", pa.string()),
        ("documents", pa.list_(DOCUMENT)),
        ("market", pa.dictionary(pa.int8(), pa.string())),
        ("number", pa.float64()),
        ("hash", pa.uint64()),
        ("twice", pa.string()),
        ("twice", pa.string()),
    ]
)
STRINGS = pa.schema(
    [
        ("query", pa.large_string()),
        ("documents", pa.large_list(pa.string_view())),
        ("ids", pa.list_(pa.int64())),
        ("id", pa.int64()),
    ]
)
NAMELESS = pa.list_(pa.struct([("x", pa.string())]))

AN_ID = "a string or an integer of at most 64 bits with a sign"
A_YAML = "a string, a number, a date, or a list or struct of these"
IDS = "a list of strings or integers, one for each document"


@pytest.mark.parametrize(
    ("schema", "settings", "problems"),
    [
        pytest.param(
            STRUCTS,
            {"query": "qery"},
            ["source.query: no column is called qery; did you mean query?"],
            id="a column that is spelt otherwise",
        ),
        pytest.param(
            STRUCTS,
            {"query": "zzz", "text": "body", "query_id": "number", "carry": ("mark",)},
            [
                "source.query: no column is called zzz",
                f"source.query_id: number is double, not {AN_ID}",
                "source.carry: no column is called mark; did you mean market?",
                "source.text: no field of documents is called body",
            ],
            id="everything at once",
        ),
        pytest.param(
            STRUCTS,
            {"query": "twice"},
            ["source.query: more than one column is called twice"],
            id="two columns of one name",
        ),
        pytest.param(
            STRUCTS,
            {"query": "number"},
            ["source.query: number is double, not a string"],
            id="a query that is a number",
        ),
        pytest.param(
            STRUCTS,
            {"query_id": "hash", "doc_id": "hash"},
            [
                f"source.query_id: hash is uint64, not {AN_ID}",
                f"source.doc_id: hash is uint64, not {AN_ID}",
            ],
            id="ids beyond 64 bits with a sign",
        ),
        pytest.param(
            STRUCTS,
            {"documents": "query"},
            ["source.documents: query is string, not a list of strings or of structs"],
            id="documents that are no list",
        ),
        pytest.param(
            STRINGS,
            {"documents": "ids"},
            ["source.documents: ids is list<int64>, not a list of strings or of structs"],
            id="documents that are numbers",
        ),
        pytest.param(
            STRUCTS,
            {"text": "raw"},
            ["source.text: raw is binary, not a string"],
            id="a text that is binary",
        ),
        pytest.param(
            STRUCTS,
            {"image": "price"},
            ["source.image: price is float, not a string"],
            id="an image that is a number",
        ),
        pytest.param(
            STRUCTS,
            {"template": "{title}: {tags} {nix}"},
            [
                "source.template: tags is list<string>, not a string, a number, a date or a time",
                "source.template: no field of documents is called nix",
            ],
            id="fields that a template cannot hold",
        ),
        pytest.param(
            STRUCTS,
            {"yaml": ("title", "parts")},
            [f"source.yaml: parts is list<binary>, not {A_YAML}"],
            id="fields that YAML has no words for",
        ),
        pytest.param(
            STRUCTS,
            {"carry": ("documents", "documents.prize")},
            [
                "source.carry: carry fields of documents (documents.price), not all of it",
                "source.carry: no field of documents is called prize; did you mean price?",
            ],
            id="candidates carried whole, or by a wrong name",
        ),
        pytest.param(
            pa.schema([("query", pa.string()), ("candidates", pa.list_(DOCUMENT))]),
            {"documents": "candidates", "carry": ("documents.price", "title", "documents.prize")},
            [
                "source.carry: no column is called documents.price; did you mean candidates.price?",
                "source.carry: no column is called title; did you mean candidates.title?",
                "source.carry: no column is called documents.prize",
            ],
            id="fields of candidates under another column's name",
        ),
        pytest.param(
            STRINGS,
            {"text": "text", "carry": ("documents.price",)},
            [
                "source.text: documents is a list of strings and has no fields",
                "source.carry: documents is a list of strings and has no fields",
            ],
            id="fields of strings",
        ),
        pytest.param(
            STRINGS,
            {"doc_id": "id"},
            [f"source.doc_id: id is int64, not {IDS}"],
            id="ids beside strings that are no list",
        ),
        pytest.param(
            pa.schema([("query", pa.string()), ("documents", NAMELESS)]),
            {},
            ["source.text: say which field of documents is the text"],
            id="no field called text",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_is_there(
    schema: pa.Schema, settings: dict[str, Any], problems: list[str]
) -> None:
    """
    Each problem names its key; the hint lists the columns and their types.
    """
    with pytest.raises(SourceError) as raised:
        fit(schema, SourceTable(path="x", **settings), "d/a.parquet")

    head, *told = raised.value.message.splitlines()
    assert "d/a.parquet does not fit the job:" == head
    assert problems == [line.strip() for line in told]
    assert "query: string" in raised.value.hint


def fitted(schema: pa.Schema, **settings: Any) -> Columns:
    """
    Map a schema that fits.
    """
    return fit(schema, SourceTable(path="x", **settings), "x")


def test_the_hint_names_types_as_people_do() -> None:
    """
    Sizes of offsets, views and dictionaries are nobody's business.
    """
    with pytest.raises(SourceError) as raised:
        fitted(STRINGS, query="id")

    assert (
        "it holds query: string, documents: list<string>, ids: list<int64>, id: int64"
        == raised.value.hint
    )


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    """
    Write a small file.
    """
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def groups(base: Path, **settings: Any) -> list[Group]:
    """
    Every group of the source.
    """
    source = open_source(SourceTable(path=settings.pop("path", "a.parquet"), **settings), base)
    batches = source.batches(Positions(source.total), source.total)
    return [
        batch.group(position)
        for batch in batches
        for position in range(batch.position, batch.position + batch.rows)
    ]


@pytest.mark.parametrize(
    ("settings", "document"),
    [
        pytest.param({}, "A text", id="the field called text"),
        pytest.param({"text": "title"}, "A title", id="another field"),
        pytest.param(
            {"template": "{title} ({price}, {day}, {n}, {new}, {cost}, {at}) {none}"},
            "A title (19.99, 2026-11-20, 7, true, 1.50, 2026-11-20 06:30:00.000000) ",
            id="a template of anything that is a word or a number",
        ),
        pytest.param(
            {"yaml": ("title", "price", "day", "none", "n", "new", "cost", "tags", "nested")},
            "title: A title\nprice: 19.99\nday: '2026-11-20'\nn: 7\nnew: true\ncost: '1.50'\n"
            "tags:\n- x\n- y\nnested:\n  a: 1\n",
            id="YAML, in the order that was asked for",
        ),
        pytest.param({"text": "category"}, "shoes", id="a dictionary of strings"),
    ],
)
def test_texts_are_made_as_the_job_says(
    tmp_path: Path, settings: dict[str, Any], document: str
) -> None:
    """
    Types arrive in the text as a person would write them.
    """
    fields: dict[str, tuple[pa.DataType, Any]] = {
        "text": (pa.string(), "A text"),
        "title": (pa.large_string(), "A title"),
        "price": (pa.float32(), 19.99),
        "day": (pa.date32(), date(2026, 11, 20)),
        "n": (pa.uint8(), 7),
        "new": (pa.bool_(), True),
        "cost": (pa.decimal128(9, 2), Decimal("1.5")),
        "at": (pa.timestamp("us"), datetime(2026, 11, 20, 6, 30)),  # noqa: DTZ001 - a naive column
        "none": (pa.string(), None),
        "tags": (pa.list_(pa.string()), ["x", "y"]),
        "nested": (pa.struct([("a", pa.int64())]), {"a": 1}),
        "category": (pa.dictionary(pa.int8(), pa.string()), "shoes"),
    }
    struct = pa.struct([(name, kind) for name, (kind, _) in fields.items()])
    schema = pa.schema([("query", pa.string()), ("documents", pa.list_(struct))])
    row = {"query": "q", "documents": [{name: value for name, (_, value) in fields.items()}]}
    write(tmp_path / "a.parquet", [row], schema)

    assert (document,) == groups(tmp_path, **settings)[0].documents


@pytest.mark.parametrize(
    ("settings", "documents"),
    [
        pytest.param(
            {"image": "image"},
            (("a", "http://x/1"), "b", (None, "http://x/3"), None),
            id="text and image",
        ),
        pytest.param(
            {"image": "image", "text": "blank"},
            ((None, "http://x/1"), None, (None, "http://x/3"), None),
            id="images only",
        ),
    ],
)
def test_a_document_with_an_image_is_rich(
    tmp_path: Path, settings: dict[str, Any], documents: tuple[Any, ...]
) -> None:
    """
    Where there is no image the document is its text alone; without both it is not sent.
    """
    rows = [
        {"text": "a", "blank": " ", "image": "http://x/1"},
        {"text": "b", "blank": None, "image": None},
        {"text": "", "blank": "", "image": "http://x/3"},
        {"text": None, "blank": None, "image": " "},
    ]
    write(tmp_path / "a.parquet", [{"query": "q", "documents": rows}])
    wanted = tuple(RichDocument(*d) if isinstance(d, tuple) else d for d in documents)

    assert wanted == groups(tmp_path, **settings)[0].documents


def test_images_need_no_text(tmp_path: Path) -> None:
    """
    Structs without any text can be ranked by their images.
    """
    write(tmp_path / "a.parquet", [{"query": "q", "documents": [{"url": "http://x/1"}, None]}])

    first, second = groups(tmp_path, image="url")[0].documents

    assert "http://x/1" == getattr(first, "image", None)
    assert second is None


ONE = {"query_id": "q", "query": "a", "documents": [{"id": "x", "text": "t", "n": 1}]}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        pytest.param(
            ONE | {"query_id": 7},
            "a.parquet and b.parquet differ: query_id is string there and int64 here",
            id="ids",
        ),
        pytest.param(
            ONE | {"documents": [{"id": "x", "text": "t", "n": 1.5}]},
            "documents.n is int64 there and double here",
            id="a carried field",
        ),
        pytest.param(
            ONE | {"market": 3}, "market is string there and int64 here", id="a carried column"
        ),
        pytest.param(
            ONE | {"documents": ["t"]}, "b.parquet does not fit the job", id="strings for structs"
        ),
        pytest.param(
            {"query_id": "q", "query": "a", "market": "de"},
            "b.parquet does not fit the job",
            id="no documents",
        ),
    ],
)
def test_files_must_have_the_same_types(tmp_path: Path, other: dict[str, Any], words: str) -> None:
    """
    Two files that differ in a mapped column are both named.
    """
    write(tmp_path / "a.parquet", [ONE | {"market": "de"}])
    write(tmp_path / "b.parquet", [{"market": "de"} | other])

    with pytest.raises(SourceError) as raised:
        groups(
            tmp_path, path=".", query_id="query_id", doc_id="id", carry=("market", "documents.n")
        )

    assert words in str(raised.value)


def test_strings_in_one_file_and_structs_in_another_are_refused(tmp_path: Path) -> None:
    """
    Even where no setting names a field.
    """
    write(tmp_path / "a.parquet", [ONE])
    write(tmp_path / "b.parquet", [{"query": "a", "documents": ["t"]}])

    with pytest.raises(SourceError, match="documents holds structs there and strings here"):
        groups(tmp_path, path=".")


def test_files_may_differ_in_what_is_not_mapped_and_in_how_strings_are_held(
    tmp_path: Path,
) -> None:
    """
    A column more, large strings, large lists, another order of fields: the groups are the same.
    """
    write(tmp_path / "a.parquet", [ONE])
    document = pa.struct(
        [
            ("n", pa.float64()),
            ("text", pa.large_string()),
            ("id", pa.dictionary(pa.int8(), pa.string())),
        ]
    )
    schema = pa.schema(
        [("x", pa.int8()), ("documents", pa.large_list(document)), ("query", pa.large_string())]
    )
    write(tmp_path / "b.parquet", [ONE | {"x": 1}], schema)

    one, other = groups(tmp_path, path=".", doc_id="id")

    assert ("a", ("t",)) == (one.query, one.documents) == (other.query, other.documents)


def test_names_with_dots_are_names(tmp_path: Path) -> None:
    """
    A column called `a.b` is not the field b of a, in whichever order they stand.
    """
    row = {"a.b": "the query", "a": {"b": "not the query"}, "documents": [{"x.y": "t"}]}
    write(tmp_path / "a.parquet", [row, {**row, "a.b": None}])

    found = groups(tmp_path, query="a.b", text="x.y")

    assert [("the query", ("t",)), ("", ("t",))] == [(g.query, g.documents) for g in found]
