"""
From ledger rows to Parquet: the same rows and the same bytes, whatever order things happened in.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import UNSCORED, Empty, Outcome, Ranked, Rejected, RejectKind, Served, Share
from batchrank.errors import StorageError
from batchrank.store.ledger import Ledger, Records
from batchrank.store.parts import (
    ROW_GROUP_ROWS,
    Layout,
    Rendered,
    prove,
    render,
    schema_of,
    sha256_of,
    tables,
    totals_of,
)
from tests.edges.ledgers import BY, Held, begun, filled, ranked
from tests.laws import law

OTHER, UNNAMED = Served("v/m-20260101", "Other"), Served("v/m", None)
CANDIDATES, GROUPS = Layout("candidates"), Layout("groups")


def rows_of(
    ledger: Ledger, held: Held, layout: Layout, start: int = 0, stop: int | None = None
) -> list[dict[str, Any]]:
    """
    The rows of a range, as a part of this layout has them.
    """
    schema = schema_of(held.packed(0, 0)[2], layout)
    pieces = list(tables(ledger, layout, start, len(held.counts) if stop is None else stop))
    whole = pa.concat_tables([schema.empty_table(), *(piece.cast(schema) for piece in pieces)])
    return whole.to_pylist()  # type: ignore[no-any-return] # pyarrow has no types


def unnested(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    The layout of groups as that of candidates.
    """
    return [
        {"query_id": row["query_id"]}
        | {key: value for key, value in row.items() if key not in ("query_id", "results")}
        | result
        for row in rows
        for result in row["results"]
    ]


def rendered(
    ledger: Ledger, held: Held, layout: Layout, path: Path, stop: int | None = None
) -> Rendered:
    """
    The whole source as one part.
    """
    schema = schema_of(held.packed(0, 0)[2], layout)
    return render(ledger, layout, 0, len(held.counts) if stop is None else stop, schema, path)


# --- ranks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "top_n", "expected"),
    [
        pytest.param([], None, [], id="nothing"),
        pytest.param([0.1, 0.9, 0.5], None, [(1, 1), (2, 2), (0, 3)], id="from the best"),
        pytest.param([0.5, 0.9, 0.5], None, [(1, 1), (0, 2), (2, 3)], id="ties keep source order"),
        pytest.param([0.0, -0.0], None, [(0, 1), (1, 2)], id="two zeros are a tie"),
        pytest.param([0.1, 0.9, 0.5], 2, [(1, 1), (2, 2)], id="the best two"),
        pytest.param([0.1, 0.9], 9, [(1, 1), (0, 2)], id="the best of fewer"),
        pytest.param([0.5, 0.5, 0.5], 1, [(0, 1)], id="the first of a tie"),
        pytest.param(
            [UNSCORED, 0.1, UNSCORED, 0.2],
            None,
            [(3, 1), (1, 2), (0, None), (2, None)],
            id="without a score at the end, in source order",
        ),
        pytest.param([UNSCORED, 0.1], 5, [(1, 1)], id="top n keeps nothing without a score"),
        pytest.param([UNSCORED], None, [(0, None)], id="nothing has a score"),
        pytest.param([-1e308, 1e308, 5e-324], None, [(1, 1), (2, 2), (0, 3)], id="extremes"),
    ],
)
def test_ranks(scores: list[float], top_n: int | None, expected: list[object]) -> None:
    """
    Pairs of index and rank, also between other groups.
    """
    held = Held([2, len(scores), 1])
    ledger = begun(None)
    filled(ledger, held, [ranked(0, [0.5, 0.5]), ranked(1, scores), ranked(2, [1.0])])

    rows = rows_of(ledger, held, Layout("candidates", top_n))

    found = [(row["index"], row["rank"]) for row in rows if row["query_id"] == "q1"]
    assert expected == found


@pytest.mark.parametrize("top_n", [None, 700])
def test_long_groups_full_of_ties_keep_source_order(top_n: int | None) -> None:
    """
    However pyarrow sorts what is long: two zeros are one score, and no score is the last.
    """
    chance, scores = random.Random(5), [0.0, -0.0, 0.5, -1.0, math.inf, -math.inf, UNSCORED]
    held = Held([3_000, 1, 5_000], doc_ids=False, carried=False)
    ended: list[Outcome] = [
        ranked(p, chance.choices(scores, k=n)) for p, n in enumerate(held.counts)
    ]
    ledger = begun(None)
    filled(ledger, held, ended)

    assert held.expected(ended, top_n) == rows_of(ledger, held, Layout("candidates", top_n))


# --- the law --------------------------------------------------------------------------------------


@st.composite
def sources(draw: st.DrawFn) -> tuple[Held, list[Outcome]]:
    """
    Some groups, each with an outcome of any kind.
    """
    held = Held(
        draw(st.lists(st.integers(0, 5), min_size=1, max_size=12)),
        integers=draw(st.booleans()),
        doc_ids=draw(st.booleans()),
        carried=draw(st.booleans()),
    )
    return held, [draw(outcomes(p, count)) for p, count in enumerate(held.counts)]


@st.composite
def outcomes(draw: st.DrawFn, position: int, count: int) -> Outcome:
    """
    An outcome of a group of so many candidates.
    """
    if count == 0:
        return Empty(position)
    if draw(st.integers(0, 4)) == 0:
        return Rejected(position, f"q{position}", RejectKind.BAD_GROUP, "no")
    numbers = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, -math.inf, UNSCORED])
    scores = draw(st.lists(numbers, min_size=count, max_size=count))
    if all(math.isnan(score) for score in scores):
        return Ranked(position, tuple(scores), ())
    stops = sorted({*draw(st.sets(st.integers(1, count), max_size=3)), count})
    who = [draw(st.sampled_from([BY, OTHER, UNNAMED])) for _ in stops]
    return ranked(position, scores, *zip(stops, who, strict=True))


@law(30)
@given(
    sources(),
    st.randoms(use_true_random=False),
    st.integers(1, 13),
    st.none() | st.integers(1, 6),
)
def test_a_part_is_the_same_table_whatever_the_order(
    source: tuple[Held, list[Outcome]], chance: random.Random, rows: int, top_n: int | None
) -> None:
    """
    Whatever was committed when, however blocks were cut and overlap, in both layouts.
    """
    held, ended = source
    ledger, total = begun(None), len(held.counts)
    shuffled = [*ended]
    chance.shuffle(shuffled)
    starts = [*range(0, total, rows), *(chance.randrange(total) for _ in range(3))]
    blocks = [held.packed(at, min(at + rows, total)) for at in starts]
    for outcome in shuffled:
        some = [block for block in blocks if chance.random() < 0.3]
        ledger.commit(Records(outcomes=[outcome], carried=some))
    chance.shuffle(blocks)
    ledger.commit(Records(carried=blocks))

    candidates = rows_of(ledger, held, Layout("candidates", top_n))
    nested = rows_of(ledger, held, Layout("groups", top_n))

    assert held.expected(ended, top_n) == candidates
    assert candidates == [{key: row[key] for key in candidates[0]} for row in unnested(nested)]
    assert [row["query_id"] for row in nested] == [
        held.query_id(o.position) for o in ended if isinstance(o, Ranked)
    ]


@law(15)
@given(sources(), st.randoms(use_true_random=False), st.sampled_from([CANDIDATES, GROUPS]))
def test_a_part_is_the_same_bytes_whatever_the_order(
    source: tuple[Held, list[Outcome]], chance: random.Random, layout: Layout
) -> None:
    """
    Two ledgers with the same outcomes, filled in different orders and blocks, render one file.
    """
    held, ended = source
    digests = set()
    for rows in (1, 5):
        ledger = begun(None)
        shuffled = [*ended]
        chance.shuffle(shuffled)
        for outcome in shuffled:
            ledger.commit(Records(outcomes=[outcome]))
        filled(ledger, held, [], rows)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "part.parquet"
            digests.add((found := rendered(ledger, held, layout, path)).sha256)
            prove(path, found)

    assert 1 == len(digests)


def test_a_range_is_rendered_as_if_there_were_no_other() -> None:
    """
    The parts of a source are its rows, cut; blocks that reach over a border are used on both sides.
    """
    held = Held([3, 0, 2, 1, 4, 2, 1, 5, 2])
    ended: list[Outcome] = [
        ranked(p, [n / 8 for n in range(count)]) if count else Empty(p)
        for p, count in enumerate(held.counts)
    ]
    ledger = begun(None)
    filled(ledger, held, ended, rows=4)

    cuts = [rows_of(ledger, held, CANDIDATES, *at) for at in pairwise([0, 3, 6, 9])]

    assert held.expected(ended) == [row for rows in cuts for row in rows]


# --- layouts --------------------------------------------------------------------------------------


def test_the_layout_of_candidates() -> None:
    """
    One row per candidate, from the best, with everything that was carried.
    """
    held = Held([3])
    ledger = begun(None)
    filled(ledger, held, [ranked(0, [0.5, UNSCORED, 0.75], (1, BY), (3, UNNAMED))])

    rows = rows_of(ledger, held, CANDIDATES)

    names = ("doc_id", "index", "rank", "relevance_score", "model", "provider", "price")
    assert [
        ("d0.2", 2, 1, 0.75, "v/m", None, 0.25),
        ("d0.0", 0, 2, 0.5, "v/m", "Acme", 0.0),
        ("d0.1", 1, None, None, "v/m", None, 0.125),
    ] == [tuple(row[name] for name in names) for row in rows]
    assert {("q0", "m0")} == {(row["query_id"], row["market"]) for row in rows}


def test_the_layout_of_groups() -> None:
    """
    One row per group, results nested; rejected and empty groups have none.
    """
    held = Held([2, 1, 0, 2], carried=False)
    ledger = begun(None)
    rejected = Rejected(1, "q1", RejectKind.FLAWED, "")
    filled(ledger, held, [ranked(0, [0.1, 0.2]), rejected, Empty(2), ranked(3, [0.5, 0.5])])

    rows = rows_of(ledger, held, GROUPS)

    assert ["q0", "q3"] == [row["query_id"] for row in rows]
    assert [["d0.1", "d0.0"], ["d3.0", "d3.1"]] == [
        [result["doc_id"] for result in row["results"]] for row in rows
    ]


@pytest.mark.parametrize("integers", [False, True], ids=["strings", "integers"])
@pytest.mark.parametrize("layout", [CANDIDATES, GROUPS], ids=["candidates", "groups"])
def test_columns_have_the_same_types_with_and_without_rows(integers: bool, layout: Layout) -> None:
    """
    A day without groups has parts of the same schema.
    """
    held = Held([2, 2], integers=integers)
    ledger = begun(None)
    filled(ledger, held, [ranked(0, [0.1, 0.2]), ranked(1, [0.1, 0.2])])

    schema = schema_of(held.packed(0, 0)[2], layout)

    kind = pa.int64() if integers else pa.string()
    assert kind == schema.field("query_id").type
    assert all(schema == piece.cast(schema).schema for piece in tables(ledger, layout, 0, 2))
    names = ["doc_id", "index", "rank", "relevance_score", "model", "provider", "price"]
    if layout is GROUPS:
        assert ["query_id", "digest", "market", "results"] == schema.names
        assert names == [field.name for field in schema.field("results").type.value_type]
    else:
        assert ["query_id", *names[:-1], "digest", "market", "price"] == schema.names


def test_groups_that_nobody_could_be_asked_about_have_no_model() -> None:
    """
    A group of empty documents is in the part, without scores and without anybody who scored it.
    """
    held = Held([2])
    ledger = begun(None)
    filled(ledger, held, [Ranked(0, (UNSCORED, UNSCORED), ())])

    rows = rows_of(ledger, held, CANDIDATES)

    assert [(0, None, None, None), (1, None, None, None)] == [
        (row["index"], row["rank"], row["relevance_score"], row["model"]) for row in rows
    ]


@pytest.mark.parametrize("layout", [CANDIDATES, GROUPS], ids=["candidates", "groups"])
def test_a_part_without_rows_is_a_file_like_any_other(tmp_path: Path, layout: Layout) -> None:
    """
    Where every group is empty or rejected there are columns and no rows.
    """
    held = Held([0, 2])
    ledger = begun(None)
    filled(ledger, held, [Empty(0), Rejected(1, "q1", RejectKind.FLAWED, "")])

    found = rendered(ledger, held, layout, tmp_path / "part.parquet")

    prove(tmp_path / "part.parquet", found)
    assert 0 == found.rows == pq.read_metadata(tmp_path / "part.parquet").num_rows


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "counts"),
    [
        pytest.param(CANDIDATES, [1_000] * 140, id="candidates"),
        pytest.param(GROUPS, [1] * 5_000, id="groups"),
    ],
)
def test_row_groups_have_one_size_but_for_the_last(
    tmp_path: Path, layout: Layout, counts: list[int]
) -> None:
    """
    However long groups are: 65,536 candidates, or 2,048 groups.
    """
    held = Held(counts, carried=False, doc_ids=False)
    ledger = begun(None)
    ended: list[Outcome] = [
        ranked(p, [i / 1024 for i in range(count)]) for p, count in enumerate(counts)
    ]
    filled(ledger, held, ended, rows=100)

    found = rendered(ledger, held, layout, path := tmp_path / "part.parquet")

    prove(path, found)
    size = ROW_GROUP_ROWS[layout.layout]
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    total = sum(counts) if layout is CANDIDATES else len(counts)
    assert [size] * (total // size) + [total % size] == sizes
    assert total == found.rows


@pytest.mark.parametrize("counts", [[5_000] * 27, [140_000, 0, 1, 60_000, 2]], ids=["even", "odd"])
def test_rows_are_cut_anew_and_none_is_lost(tmp_path: Path, counts: list[int]) -> None:
    """
    Whether a block is a small part of a row group, or several of them long.
    """
    held = Held(counts, carried=False, doc_ids=False)
    ledger = begun(None)
    filled(
        ledger, held, [ranked(p, [-float(i) for i in range(n)]) for p, n in enumerate(counts)], 1
    )

    rendered(ledger, held, CANDIDATES, path := tmp_path / "part.parquet")

    read = pq.read_table(path, columns=["query_id", "index"]).to_pydict()
    assert [f"q{p}" for p, n in enumerate(counts) for _ in range(n)] == read["query_id"]
    assert [i for n in counts for i in range(n)] == read["index"]


def test_nothing_in_a_file_tells_when_it_was_written(tmp_path: Path) -> None:
    """
    Two renderings of one ledger are the same bytes.
    """
    held = Held([3] * 50)
    ledger = begun(None)
    filled(ledger, held, [ranked(p, [0.5, 0.25, 0.75]) for p in range(50)])

    one = rendered(ledger, held, CANDIDATES, tmp_path / "one.parquet")
    two = rendered(ledger, held, CANDIDATES, tmp_path / "two.parquet")

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert one == two
    assert one.sha256 == sha256_of(tmp_path / "one.parquet")


# --- damage ---------------------------------------------------------------------------------------


def test_a_group_with_more_scores_than_candidates_is_never_written() -> None:
    """
    The ledger contradicts itself: no score is shifted to fit.
    """
    held = Held([3])
    ledger = begun(None)
    filled(ledger, held, [ranked(0, [0.5, 0.25])])

    with pytest.raises(StorageError, match="group 0 has 3 candidates and 2 scores") as found:
        rows_of(ledger, held, CANDIDATES)

    assert "--restart" in found.value.hint


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param("scores = x'00'", "group 2 has 3 candidates and 0.125 scores", id="half"),
        pytest.param("shares = x'01000000000000000100000000000000'",
                     "group 2 does not say who scored all of it", id="a share is missing"),
        pytest.param("served = 77", "not known any more who scored", id="nobody has that number"),
    ],
)  # fmt: skip
def test_a_damaged_row_of_the_ledger_is_never_written(damage: str, words: str) -> None:
    """
    Neither its group nor those beside it.
    """
    held = Held([3] * 5)
    ledger = begun(None)
    filled(ledger, held, [ranked(p, [0.5, 0.25, 0.75]) for p in range(5)])
    ledger.connection.execute(f"UPDATE ranked SET {damage} WHERE position = 2")

    with pytest.raises(StorageError, match=words) as found:
        rows_of(ledger, held, CANDIDATES)

    assert "--restart" in found.value.hint


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        pytest.param([], "groups 0 to 8", id="all"),
        pytest.param([(0, 3), (3, 6)], "groups 6 to 8", id="the last"),
        pytest.param([(3, 6), (6, 9)], "groups 0 to", id="the first"),
        pytest.param([(0, 3), (6, 9)], "groups 3 to", id="one in the middle"),
    ],
)
def test_groups_without_their_ids_are_never_written(
    kept: list[tuple[int, int]], missing: str
) -> None:
    """
    A missing block is damage, and is told by position.
    """
    held = Held([1] * 9)
    ledger = begun(None)
    ended = [ranked(p, [0.5]) for p in range(9)]
    ledger.commit(Records(outcomes=list(ended), carried=[held.packed(*at) for at in kept]))

    with pytest.raises(StorageError, match=missing):
        rows_of(ledger, held, CANDIDATES)


def test_ids_of_groups_without_scores_may_be_missing() -> None:
    """
    What is not written needs no ids, and the blocks on both sides are not taken for neighbours.
    """
    held = Held([2] * 9)
    ledger = begun(None)
    rejected = [Rejected(p, "q", RejectKind.FLAWED, "") for p in range(3, 6)]
    ended = [ranked(p, [0.25, p / 8]) for p in (0, 1, 2, 6, 7, 8)]
    kept = [held.packed(0, 3), held.packed(6, 9)]
    ledger.commit(Records(outcomes=[*ended, *rejected], carried=kept))

    assert held.expected(ended) == rows_of(ledger, held, CANDIDATES)


def test_a_block_that_cannot_be_read_is_damage() -> None:
    """
    Not a bug: the hint says what to do.
    """
    held = Held([1])
    ledger = begun(None)
    position, rows, body = held.packed(0, 1)
    broken = body[:40] + bytes(40) + body[80:]
    ledger.commit(Records(outcomes=[ranked(0, [0.5])], carried=[(position, rows, broken)]))

    with pytest.raises(StorageError, match="cannot be read") as found:
        rows_of(ledger, held, CANDIDATES)

    assert found.value.hint


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rendered]:
    """
    A part of 600 rows, in a folder for copies.
    """
    held = Held([3] * 200)
    ledger = begun(None)
    filled(ledger, held, [ranked(p, [0.5, p / 256, UNSCORED]) for p in range(200)], rows=50)
    path = tmp_path_factory.mktemp("parts") / "part.parquet"
    return path, rendered(ledger, held, CANDIDATES, path)


@pytest.mark.parametrize("seed", range(4))
def test_proof_finds_a_flipped_bit_wherever_it_is(
    published: tuple[Path, Rendered], tmp_path: Path, seed: int
) -> None:
    """
    In pages, in their headers, in the footer: no damage goes unnoticed.
    """
    path, found = published
    content, chance, copy = path.read_bytes(), random.Random(seed), tmp_path / "copy.parquet"
    prove(path, found)

    for place in chance.sample(range(len(content)), 100):
        broken = bytearray(content)
        broken[place] ^= 1 << chance.randrange(8)
        copy.write_bytes(broken)
        with pytest.raises(StorageError, match="was written and reads back"):
            prove(copy, found)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="cut by a byte"),
        pytest.param(lambda content: content[: len(content) // 2], id="cut in two"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content + b"\0", id="a byte more"),
    ],
)
def test_proof_finds_a_file_of_another_length(
    published: tuple[Path, Rendered], tmp_path: Path, damage: Any
) -> None:
    """
    Also a file that is whole, and goes on.
    """
    path, found = published
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(damage(path.read_bytes()))

    with pytest.raises(StorageError, match="reads back as other bytes"):
        prove(copy, found)


def test_proof_needs_the_file(published: tuple[Path, Rendered], tmp_path: Path) -> None:
    """
    What is not there was not written.
    """
    with pytest.raises(StorageError, match="cannot be read"):
        prove(tmp_path / "nowhere.parquet", published[1])


def test_proof_reads_the_rows_and_not_only_the_bytes(
    published: tuple[Path, Rendered], tmp_path: Path
) -> None:
    """
    Bytes that a reader understands otherwise than the writer meant them are no part, nor are bytes
    that no reader understands.
    """
    path, found = published
    rows, (first, *others) = found.totals[0]
    other = replace(found, totals=[(rows, ((first or 0) + 1, *others))])
    noise = tmp_path / "noise.parquet"
    noise.write_bytes(b"PAR1 is how it begins")

    with pytest.raises(StorageError, match="reads back as something else"):
        prove(path, other)
    with pytest.raises(StorageError, match="cannot be read"):
        prove(noise, replace(found, sha256=sha256_of(noise)))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(pa.array([1.5, None], pa.float16()), id="half floats"),
        pytest.param(pa.array([2**64 - 1, 2], pa.uint64()), id="integers that overflow a sum"),
        pytest.param(pa.array([math.nan, math.inf]), id="floats without a sum"),
        pytest.param(pa.array([True, None]), id="booleans"),
        pytest.param(pa.array([b"\xff", None]), id="bytes"),
        pytest.param(pa.array([[1, 2], None]), id="lists"),
        pytest.param(pa.array([[[1], []], None]), id="lists of lists"),
        pytest.param(pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), id="lists of one length"),
        pytest.param(pa.array([{"a": 1}, None]), id="structs"),
        pytest.param(pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())), id="maps"),
        pytest.param(pa.array([1, None], pa.timestamp("us", "UTC")), id="times"),
        pytest.param(pa.array([1, None], pa.decimal128(5, 2)), id="decimals"),
        pytest.param(pa.array([None, None], pa.null()), id="nothing but nulls"),
        pytest.param(pa.array(["é🙂", None]), id="strings"),
    ],
)
def test_columns_of_every_type_add_up_the_same_after_the_disk(
    tmp_path: Path, values: pa.Array
) -> None:
    """
    Whatever is carried: what was written is what a reader finds.
    """
    table = pa.table({"carried": pa.concat_arrays([values] * 50)}).slice(3, 61).combine_chunks()
    path = tmp_path / "part.parquet"
    with pq.ParquetWriter(path, table.schema, version="2.6") as writer:
        writer.write_table(table)

    prove(path, Rendered(sha256_of(path), [totals_of(table)]))


@law(25)
@given(st.lists(st.none() | st.floats(), min_size=1, max_size=700), st.integers(0, 70))
def test_sums_of_floats_do_not_depend_on_where_they_lie(
    values: list[float | None], at: int
) -> None:
    """
    A slice in the middle of a longer column adds up as it does by itself, to the last bit.
    """
    column = pa.array([0.1] * at + values + [0.3] * 9, pa.float64())
    middle = pa.table({"a": column}).slice(at, len(values))
    alone = pa.table({"a": pa.array(values, pa.float64())})

    assert repr(totals_of(alone)) == repr(totals_of(middle))
    assert repr(totals_of(alone)) == repr(totals_of(middle.combine_chunks()))


def test_shares_are_kept_as_they_were_served() -> None:
    """
    Each candidate has the model and provider that its own slice was answered by.
    """
    held = Held([6], carried=False)
    ledger = begun(None)
    outcome = Ranked(
        0, (0.6, 0.5, 0.4, 0.3, 0.2, 0.1), (Share(2, BY), Share(3, UNNAMED), Share(6, OTHER))
    )
    filled(ledger, held, [outcome])

    rows = rows_of(ledger, held, CANDIDATES)

    assert ["Acme", "Acme", None, "Other", "Other", "Other"] == [row["provider"] for row in rows]
    assert ["v/m"] * 3 + ["v/m-20260101"] * 3 == [row["model"] for row in rows]


def test_shares_of_one_group_leave_its_neighbours_alone() -> None:
    """
    Also those that nobody was asked about, and with only the best kept.
    """
    held = Held([2, 3, 1, 2], carried=False)
    ledger = begun(None)
    several = ranked(1, [0.1, 0.2, 0.3], (1, BY), (3, OTHER))
    nobody = Ranked(2, (UNSCORED,), ())
    ended = [ranked(0, [0.1, 0.2], (2, UNNAMED)), several, nobody, ranked(3, [0.5, 0.5])]
    filled(ledger, held, ended)

    assert held.expected(ended) == rows_of(ledger, held, CANDIDATES)
    assert held.expected(ended, 1) == rows_of(ledger, held, Layout("candidates", 1))
