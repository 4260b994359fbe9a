"""
Inputs that are malformed, each in one way: what is said names the file, the place in it, and a
remedy, and nothing is staged.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.errors import SourceError
from tests.edges.test_staging import source_of

Files = Mapping[str, Any]
"""By name: text, bytes, or a table for Parquet."""


def zstd(text: str) -> bytes:
    """
    *text*, packed.
    """
    packed: bytes = pa.compress(text.encode(), codec="zstd", asbytes=True)
    return packed


def pairs(**columns: Any) -> pa.Table:
    """
    Two rows of candidates, with other *columns* in place of theirs; None leaves one out.
    """
    plain: dict[str, Any] = {
        "query_id": ["a", "a"],
        "query": ["one", "one"],
        "doc_id": ["1", "2"],
        "text": ["x", "y"],
        "score": [1.0, 2.0],
    }
    held = {**plain, **columns}
    return pa.table({name: column for name, column in held.items() if column is not None})


HEAD = "query_id,query,doc_id,text,score\n"
LINES = "b,two,3,z,9\na,one,1,x,10\n"
CSV = HEAD + LINES
OBJECTS = "".join(
    json.dumps({"query_id": "a", "query": "one", "doc_id": str(n), "text": "x"}) + "\n"
    for n in range(2)
)
LONG_LINE = f'a,one,1,"{"x" * 3_000_000}",1\n'
RUN = "a Q0 2 1 0.7 t\na Q0 1 2 0.5 t\n"
THREE = {"run": "run.trec", "queries": "q.tsv", "corpus": "c.tsv", "score": "score"}
TOPICS = {"q.tsv": "a\tone\n", "c.tsv": "1\tx\n2\ty\n"}
NOT_UTF8 = pa.array([b"x", b"\xff"]).view(pa.string())


def in_two(ending: str, good: Any, bad: Any) -> tuple[Files, dict[str, Any]]:
    """
    A folder of two files, the second of which is malformed.
    """
    return {f"d/a.{ending}": good, f"d/b.{ending}": bad}, {"path": f"d/*.{ending}"}


def of_three(**files: Any) -> tuple[Files, dict[str, Any]]:
    """
    A run with its queries and its corpus; *files* are others, by the beginnings of their names.
    """
    names = {"run": "run.trec", "q": "q.tsv", "c": "c.tsv"}
    return {"run.trec": RUN, **TOPICS, **{names[n]: body for n, body in files.items()}}, THREE


BAD: Mapping[str, tuple[tuple[Files, dict[str, Any]], str, str, str]] = {
    # --- CSV --------------------------------------------------------------------------------------
    "a line with too few fields": (
        in_two("csv", CSV, CSV + "a,one,4\n" + LINES),
        "d/b.csv", "line 4: Expected Number of Columns: 5 Found: 3 ('a,one,4')", "mend that line",
    ),
    "a line with too many fields": (
        in_two("csv", CSV, CSV + "a,one,4,x,1,more\n"),
        "d/b.csv", "line 4: Expected Number of Columns: 5 Found: 6", "mend that line",
    ),
    "a quote that is not closed": (
        in_two("csv", CSV, CSV + 'a,one,4,"x,1\n' + LINES),
        "d/b.csv", "line 4: Value with unterminated quote", "close that quote",
    ),
    "CSV in Latin-1": (
        in_two("csv", CSV, (CSV + "c,drei,1,Straße,1\n").encode("latin-1")),
        "d/b.csv", "line 4: Invalid unicode", "save the file as UTF-8",
    ),
    "a score that is no number": (
        ({"p.csv": HEAD + LINES * 2_000 + "a,one,9,x,high\n"}, {"path": "p.csv", "score": "score"}),
        "p.csv", 'line 4002: Error when converting column "score"', "mend that line",
    ),
    "a line that is far too long": (
        in_two("csv", CSV, CSV + LONG_LINE),
        "d/b.csv", "line", "leave that line out",
    ),
    "two kinds of line ends": (
        in_two("csv", CSV, CSV.replace("\n", "\r\n") + LINES),
        "d/b.csv", "", "end all lines alike",
    ),
    "no head": (
        ({"p.csv": LINES}, {"path": "p.csv"}),
        "p.csv", "there is no column query_id", "p.csv holds b: varchar, two: varchar",
    ),
    "no head in another file": (
        in_two("csv", CSV, LINES),
        "b.csv", "the first line", "their names in the first line",
    ),
    "a column that another file lacks": (
        in_two("csv", CSV, "query_id,query,doc_id,text\nc,three,1,x\n"),
        "b.csv", "the first line of a.csv names score", "need the same columns",
    ),
    "a column that is named twice": (
        ({"p.csv": "query_id,query,doc_id,text,Text\na,one,1,x,y\n"}, {"path": "p.csv"}),
        "p.csv", "the first line of p.csv names text twice", "a name of its own",
    ),
    "UTF-16, as spreadsheets write it": (
        ({"p.tsv": CSV.replace(",", "\t").encode("utf-16")}, {"path": "p.tsv"}),
        "p.tsv", "is UTF-16", "save the file as UTF-8",
    ),
    "a packed file of a SELECT that was cut off": (
        ({"p.csv.gz": gzip.compress(CSV.encode() * 99)[:-20]},
         {"sql": "SELECT * FROM 'p.csv.gz'", "reads": ["p.csv.gz"]}),
        "p.csv.gz", "cannot be unpacked", "it was cut off",
    ),
    "an empty file": (
        ({"p.csv": ""}, {"path": "p.csv"}),
        "p.csv", "without even a first line", "give it a first line",
    ),
    "TSV with too few fields": (
        in_two("tsv", CSV.replace(",", "\t"), CSV.replace(",", "\t") + "a\tone\t1\n"),
        "d/b.tsv", "line 4: Expected Number of Columns: 5 Found: 3", "mend that line",
    ),
    "TSV in another order, its score no number": (
        ({"p.tsv": "score\tquery_id\tquery\ttext\n1\ta\tone\tx\n?\ta\tone\ty\n"},
         {"path": "p.tsv", "score": "score"}),
        "p.tsv", 'line 3: Error when converting column "score"', "mend that line",
    ),
    # --- packed -----------------------------------------------------------------------------------
    "gzip that was cut off": (
        in_two("csv.gz", gzip.compress(CSV.encode()), gzip.compress(CSV.encode() * 99)[:-20]),
        "d/b.csv.gz", "cannot be unpacked", "it was cut off",
    ),
    "gzip with a wrong check sum": (
        in_two("csv.gz", gzip.compress(CSV.encode()), gzip.compress(CSV.encode())[:-8] + b"\0" * 8),
        "d/b.csv.gz", "cannot be unpacked", "is damaged",
    ),
    "zstd that was cut off": (
        in_two("jsonl.zst", zstd(OBJECTS), zstd(OBJECTS * 99)[:-20]),
        "d/b.jsonl.zst", "cannot be unpacked", "it was cut off",
    ),
    "what is not packed at all": (
        ({"p.csv.gz": CSV}, {"path": "p.csv.gz"}),
        "p.csv.gz", "cannot be unpacked", "write it anew",
    ),
    "a packed line that is malformed": (
        in_two("csv.gz", gzip.compress(CSV.encode()), gzip.compress((CSV + "a,b\n").encode())),
        "d/b.csv.gz", "line 4", "mend that line",
    ),
    # --- JSON lines -------------------------------------------------------------------------------
    "garbage after an object": (
        in_two("jsonl", OBJECTS, OBJECTS + '{"query_id": "a"} xx\n'),
        "d/b.jsonl", "line 3: unexpected content", "one JSON object",
    ),
    "the same, packed": (
        in_two("jsonl.gz", gzip.compress(OBJECTS.encode()),
               gzip.compress((OBJECTS * 30_000 + "{]\n" + OBJECTS).encode())),
        "d/b.jsonl.gz", "line 60001: ", "one JSON object",
    ),
    "a last line that was cut off": (
        in_two("jsonl.zst", zstd(OBJECTS), zstd(OBJECTS + '{"query_id": "a", "que')),
        "d/b.jsonl.zst", "line 3: unexpected end", "one JSON object",
    ),
    "JSON in Latin-1": (
        ({"p.jsonl": (OBJECTS + '{"text": "Straße"}\n').encode("latin-1")}, {"path": "p.jsonl"}),
        "p.jsonl", "line 3: invalid UTF-8", "save the file as UTF-8",
    ),
    "a byte order mark": (
        ({"p.jsonl": "\ufeff" + OBJECTS}, {"path": "p.jsonl"}),
        "p.jsonl", "line 1: byte order mark", "without a byte order mark",
    ),
    "half a surrogate": (
        ({"p.jsonl": OBJECTS + '{"text": "\\ud800"}\n'}, {"path": "p.jsonl"}),
        "p.jsonl", "line 3: no low surrogate", "half a character",
    ),
    "an array": (
        ({"p.json": f"[{OBJECTS.strip().replace(chr(10), ',')}]"}, {"path": "p.json"}),
        "p.json", "not hold one JSON object in each line", "an object in a line of its own",
    ),
    "an array over many lines": (
        ({"p.json": f"[\n{OBJECTS.strip().replace(chr(10), ',' + chr(10))}\n]"},
         {"path": "p.json"}),
        "p.json", "line 1: unexpected end of data", "one JSON object",
    ),
    "a key that comes twice": (
        ({"p.jsonl": OBJECTS + '{"query_id": "a", "query_id": "b"}\n'}, {"path": "p.jsonl"}),
        "p.jsonl", "line 3: Object", "as the others are",
    ),
    "a score that is text in a late line": (
        ({"p.jsonl": OBJECTS.replace("}", ', "score": 1}') + '{"score": "high"}\n'},
         {"path": "p.jsonl", "score": "score"}),
        "p.jsonl", "line 3: Failed to cast", "as the others are",
    ),
    "text beside objects": (
        ({"g.jsonl": '{"query": "q", "documents": ["x", {"text": "y"}]}\n'}, {"path": "g.jsonl"}),
        "g.jsonl", "documents in g.jsonl is text in some lines", "write it alike",
    ),
    "ids that are fractions": (
        ({"p.jsonl": OBJECTS.replace('"a"', "1.5")}, {"path": "p.jsonl"}),
        "p.jsonl", "query_id is double, not a string or an integer", "write ids as text",
    ),
    # --- Parquet ----------------------------------------------------------------------------------
    "text that is not UTF-8": (
        in_two("parquet", pairs(), pairs(text=NOT_UTF8)),
        "d/b.parquet", "row group 0 (counted from 0): text holds", "write it as UTF-8",
    ),
    "no footer": (
        in_two("parquet", pairs(), b"PAR1, and then nothing"),
        "d/b.parquet", "do not end in a footer", "it was cut off",
    ),
    "ids of other types": (
        in_two("parquet", pairs(query_id=[7, 7]), pairs(query_id=["007", "007"])),
        "d/b.parquet", "query_id is int64 in d/a.parquet and string", "need the same types",
    ),
    "scores that would be rounded": (
        ({"d/a.parquet": pairs(score=[1, 2]), "d/b.parquet": pairs(score=[0.4, 0.3])},
         {"path": "d/*.parquet", "score": "score"}),
        "d/b.parquet", "score is int64 in d/a.parquet and double", "need the same types",
    ),
    "a column that a file lacks": (
        ({"d/a.parquet": pairs(), "d/b.parquet": pairs(score=None)},
         {"path": "d/*.parquet", "score": "score"}),
        "d/b.parquet", 'column "score" was read from', "need the same columns",
    ),
    "ids with fractions": (
        ({"p.parquet": pairs(query_id=[1.0, 1.0])}, {"path": "p.parquet"}),
        "p.parquet", "query_id is double", "write ids as text",
    ),
    "a score of lists": (
        ({"p.parquet": pairs(score=[[1.0], [2.0]])}, {"path": "p.parquet", "score": "score"}),
        "p.parquet", "score is double[], not a number", "p.parquet holds",
    ),
    "text of numbers": (
        ({"p.parquet": pairs(text=[1, 2])}, {"path": "p.parquet"}),
        "p.parquet", "text is int64, not a string", "its rows hold",
    ),
    "a query that is a number": (
        ({"p.parquet": pairs(query=[1, 1])}, {"path": "p.parquet"}),
        "p.parquet", "query is int64, not a string", "its rows hold",
    ),
    # --- groups -----------------------------------------------------------------------------------
    "a row without a query id": (
        in_two("parquet", pairs(), pairs(query_id=["a", None])),
        "d/b.parquet", "row 1 (counted from 0)", "leave them out",
    ),
    "a line without a query id": (
        in_two("csv", CSV, CSV + ",one,4,x,1\n"),
        "d/b.csv", "without a query_id", "leave them out",
    ),
    "a query with two texts": (
        ({"d/a.parquet": pairs(), "d/b.parquet": pairs(query=["one", "uno"])},
         {"path": "d/*.parquet"}),
        "d/b.parquet", "'a' has two queries, 'one' and 'uno'", "an id of its own",
    ),
    "groups torn apart by their order": (
        ({"d/a.parquet": pairs(), "d/b.parquet": pairs(query_id=["b", "b"])},
         {"path": "d/*.parquet", "group_order": ["score"]}),
        "group_order", "differ in score, so that 2 would be in several", "have alike",
    ),
    "a depth of rows without an order": (
        ({"p.parquet": pairs()}, {"path": "p.parquet", "depth": 1}),
        "p.parquet", "nothing says which come first", "source.score or source.rank",
    ),
    "a depth of a joined run without an order": (
        ({"run.trec": RUN, **TOPICS}, {**THREE, "score": None, "depth": 1}),
        "run.trec", "nothing says which come first", "source.score or source.rank",
    ),
    # --- three tables -----------------------------------------------------------------------------
    "a run with five fields": (
        of_three(run=RUN + "a Q0 2 3 0.1\n"),
        "run.trec", "line 3: Expected Number of Columns: 6 Found: 5", "its six fields",
    ),
    "a run with seven fields": (
        of_three(run=RUN + "a Q0 2 3 0.1 t more\n"),
        "run.trec", "line 3: Expected Number of Columns: 6 Found: 7", "its six fields",
    ),
    "a run with two blanks": (
        of_three(run=RUN + "a  Q0 2 3 0.1 t\n"),
        "run.trec", "line 3: ", "a single blank or a single tab",
    ),
    "a run with a score that is no number": (
        of_three(run=RUN + "a Q0 2 3 high t\n"),
        "run.trec", 'line 3: Error when converting column "score"', "mend that line",
    ),
    "a topic that is missing": (
        of_three(run=RUN + "z Q0 2 1 0.7 t\n"),
        "run.trec", "1 id of run.trec is not in q.tsv, such as 'z'", "unmatched",
    ),
    "documents that are missing": (
        of_three(c="1\tx\n"),
        "run.trec", "1 id of run.trec is not in c.tsv, such as '2'", "unmatched",
    ),
    "a topic that comes twice": (
        of_three(q="a\tone\na\tuno\n"),
        "q.tsv", "1 id comes more than once in q.tsv, such as 'a'", "leave all but one out",
    ),
    "topics of three fields": (
        of_three(q="a\tone\tmore\n"),
        "q.tsv", "the first line of q.tsv names none", "give it a first line",
    ),
    "a document without an id in a run": (
        ({"run.parquet": pairs(query=None, text=None, doc_id=["1", None]), **TOPICS},
         {**THREE, "run": "run.parquet"}),
        "run.parquet", "is not in c.tsv, such as '(no id)'", "unmatched",
    ),
}  # fmt: skip


def laid_out(folder: Path, files: Files) -> None:
    """
    Write *files* below *folder*.
    """
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(body, pa.Table):
            pq.write_table(body, path)
        else:
            path.write_bytes(body.encode() if isinstance(body, str) else body)


@pytest.mark.parametrize("name", BAD)
def test_what_is_malformed_is_refused(tmp_path: Path, name: str) -> None:
    """
    With the file, where in it, and what mends it, in few words; nothing is left that would count.
    """
    (files, table), file, place, remedy = BAD[name]
    laid_out(tmp_path, files)

    with pytest.raises(SourceError) as refused:
        source_of(tmp_path, **table)

    told = str(refused.value)
    assert all(word in told for word in (file, place, remedy)), told
    assert len(told) < 1_000
    assert not list((tmp_path / "staging").glob("*/staged.json"))
    assert not (tmp_path / "staging" / "spill").exists()


def test_a_damaged_page_is_told_by_its_row_group(tmp_path: Path) -> None:
    """
    Also where only its check sum tells, which DuckDB does not look at.
    """
    texts = [f"text {number * 7919}" for number in range(9_000)]
    rows = {"query_id": texts, "query": texts, "text": texts}
    path = tmp_path / "p.parquet"
    pq.write_table(
        pa.table(rows), path, row_group_size=3_000, use_dictionary=False, compression="none",
        write_page_checksum=True, write_statistics=False,
    )  # fmt: skip
    body = path.read_bytes()
    path.write_bytes(body.replace(texts[5_000].encode(), texts[5_000].upper().encode()))

    with pytest.raises(SourceError, match=r"p\.parquet: row group 1 .*CRC.*\n.*a sound copy"):
        source_of(tmp_path, path="p.parquet")


def test_what_was_staged_and_is_damaged_can_be_made_again(tmp_path: Path) -> None:
    """
    It is not the user's file that has to be mended.
    """
    laid_out(tmp_path, {"p.parquet": pairs()})
    source = source_of(tmp_path, path="p.parquet")
    staged = next((tmp_path / "staging").glob("*/groups.parquet"))
    body = staged.read_bytes()
    staged.write_bytes(body[:4] + bytes(80) + body[84:])

    with pytest.raises(SourceError, match=rf"(?s)staged is damaged.*remove {staged.parent}"):
        list(source.carried_batches(source.total))
