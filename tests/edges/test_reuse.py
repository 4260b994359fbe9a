"""
What outputs have the scores of: read back whole or refused, compared by digest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import UNSCORED, Outcome, Ranked, Served, Share
from batchrank.errors import BatchrankError, NotReady, OutputError
from batchrank.policy.digest import digest_of
from batchrank.store.finished import Finished, as_it_is, finished
from batchrank.store.parts import Layout, render, schema_of
from batchrank.store.reuse import Comparison, Wanted, comparing
from tests.edges.ledgers import BY, Held, begun, filled, ranked
from tests.laws import law

OTHER = Served("v/m", None)
MEMORY = 100_000_000


def everybody(model: str) -> bool:
    """
    Accept the models of these tests.
    """
    return model == "v/m"


def written(
    folder: Path,
    held: Held,
    outcomes: Sequence[Outcome],
    layout: Literal["candidates", "groups"] = "candidates",
    top_n: int | None = None,
) -> Path:
    """
    A finished output of one part.
    """
    folder.mkdir(parents=True)
    ledger = begun(None)
    filled(ledger, held, outcomes)
    shape, total = Layout(layout, top_n), len(held.counts)
    schema = schema_of(held.packed(0, 0)[2], shape)
    render(ledger, shape, 0, total, schema, folder / "part-00000.parquet")
    (folder / "_SUCCESS").touch()
    return folder


def digest(position: int) -> bytes:
    """
    The digest that `Held` has at a position.
    """
    content = Held([]).content(position)
    assert content is not None
    return digest_of(b"", content)


def wanted(*groups: tuple[int, int, int, int]) -> Wanted:
    """
    Groups as (position, position in the old output, documents, sent).
    """
    held = Wanted()
    for position, old, documents, sent in groups:
        held.add(position, digest(old), documents, sent, 0)
    return held


@contextmanager
def compared(groups: Wanted, *outputs: Finished) -> Iterator[Comparison]:
    """
    A comparison that has both.
    """
    with tempfile.TemporaryDirectory() as folder, comparing(Path(folder) / "x", MEMORY) as it:
        it.want(groups)
        for output in outputs:
            it.have(output, everybody)
        yield it


def found(comparison: Comparison) -> list[Ranked]:
    """
    All that was found.
    """
    return [outcome for some in comparison.ranked(2) for outcome in some]


# --- what is found --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["candidates", "groups"])
def test_scores_are_found_as_they_were(
    tmp_path: Path, layout: Literal["candidates", "groups"]
) -> None:
    """
    To the last bit, each at its index and with whoever gave it, where they now stand.
    """
    held = Held([3, 2, 4])
    scores = [0.1, 1e-300, -0.0], [0.5, 0.5], [UNSCORED, 0.25, UNSCORED, 0.75]
    shares = (2, BY), (4, OTHER)
    old = written(
        tmp_path / "old",
        held,
        [ranked(0, scores[0]), ranked(1, scores[1]), ranked(2, scores[2], *shares)],
        layout,
    )

    with compared(wanted((9, 0, 3, 3), (4, 2, 4, 2)), finished(old)) as comparison:
        assert (2, 0) == comparison.match()
        assert {4, 9} == set(comparison.positions())
        first, second = found(comparison)

    assert (4, 9) == (first.position, second.position)
    assert [n.hex() for n in scores[0]] == [n.hex() for n in second.scores]
    assert (Share(3, BY),) == second.shares
    assert repr(tuple(scores[2])) == repr(first.scores)
    assert (Share(2, BY), Share(4, OTHER)) == first.shares


@st.composite
def nights(draw: st.DrawFn) -> tuple[Held, list[Ranked]]:
    """
    An output of any groups that were asked about.
    """
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=10))
    outcomes = []
    for position, count in enumerate(counts):
        if position % 5 != 3:
            score = st.sampled_from([UNSCORED, 0.5, 0.25, -1.0])
            scores = draw(st.lists(score, min_size=count, max_size=count))
            scores[draw(st.integers(0, count - 1))] = 1.0
            outcomes.append(ranked(position, scores))
    return Held(counts), outcomes


@law(15)
@given(nights(), st.sampled_from(["candidates", "groups"]), st.none() | st.integers(1, 6))
def test_all_that_is_complete_is_found_and_nothing_else(
    night: tuple[Held, list[Ranked]],
    layout: Literal["candidates", "groups"],
    top_n: int | None,
) -> None:
    """
    What `top_n` has cut lacks scores, unless it cut none.
    """
    held, outcomes = night
    sent = {o.position: sum(score == score for score in o.scores) for o in outcomes}
    groups = [(p, p, held.counts[p], count) for p, count in sent.items()]
    with tempfile.TemporaryDirectory() as folder:
        old = written(Path(folder) / "old", held, outcomes, layout, top_n)
        with compared(wanted(*groups), finished(old)) as comparison:
            counts = comparison.match()
            taken = found(comparison)

    whole = [o for o in outcomes if top_n is None or sent[o.position] <= top_n]
    assert (len(whole), len(outcomes) - len(whole)) == counts
    assert [(o.position, repr(o.scores)) for o in whole] == [
        (o.position, repr(o.scores)) for o in taken
    ]


def test_groups_longer_than_what_is_read_at_once_are_found_whole(tmp_path: Path) -> None:
    """
    A row group of a part ends amid a group.
    """
    held = Held([30_000, 1, 50_000, 7], carried=False)
    outcomes = [ranked(p, [i / n for i in range(n)]) for p, n in enumerate(held.counts) if p != 3]
    old = written(tmp_path / "old", held, outcomes)

    with compared(wanted((0, 2, 50_000, 50_000), (1, 1, 1, 1)), finished(old)) as comparison:
        assert (2, 0) == comparison.match()
        taken = found(comparison)

    assert [50_000, 1] == [len(outcome.scores) for outcome in taken]
    assert outcomes[2].scores == taken[0].scores


def test_of_groups_that_are_alike_the_first_is_taken_whole(tmp_path: Path) -> None:
    """
    By one call: two replies are never mixed, even if neighbours in one part asked the same.
    """
    one, two = Held([2, 2]), Held([2])
    olds = [
        written(tmp_path / "one", one, [ranked(0, [0.1, 0.2]), ranked(1, [0.9, 0.8])]),
        written(tmp_path / "two", two, [ranked(0, [0.3, 0.4])]),
    ]
    part = olds[0] / "part-00000.parquet"
    rows = pq.read_table(part)
    alike = pa.array([digest(0)] * 4, pa.binary(16))
    pq.write_table(rows.set_column(rows.column_names.index("digest"), "digest", alike), part)

    for order, scores in ((olds, (0.1, 0.2)), (olds[::-1], (0.3, 0.4))):
        with compared(wanted((5, 0, 2, 2), (6, 0, 2, 2)), *map(finished, order)) as comparison:
            assert (2, 0) == comparison.match()
            assert [scores, scores] == [outcome.scores for outcome in found(comparison)]


def test_scores_of_a_model_that_is_not_accepted_are_not_there(tmp_path: Path) -> None:
    """
    The digest says which model was asked for, the column which one answered.
    """
    held = Held([1, 2])
    other = ranked(0, [0.5], (1, Served("v/m-20260101", "Acme")))
    old = written(tmp_path / "old", held, [other, ranked(1, [0.5, 0.25])])

    with compared(wanted((0, 0, 1, 1), (1, 1, 2, 2)), finished(old)) as comparison:
        assert (1, 0) == comparison.match()
        assert [1] == [outcome.position for outcome in found(comparison)]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """
    Neither by a comparison, nor by one before it that was killed.
    """
    left = tmp_path / "reuse"
    left.mkdir()
    (left / "compared.duckdb").write_bytes(b"half")

    with comparing(left, MEMORY) as comparison:
        assert (0, 0) == comparison.match()
        assert [] == found(comparison)

    assert not left.exists()


# --- pair by pair ---------------------------------------------------------------------------------

TEXTS = st.lists(st.sampled_from("abcdef") | st.none(), min_size=1, max_size=5)
Texts = list[str | None]


def pair(text: str | None) -> bytes | None:
    """
    The digest of a text with the one query that there is.
    """
    return None if text is None else digest_of(b"pair", text.encode())


def whole(texts: Texts) -> bytes:
    """
    The digest of a group.
    """
    return digest_of(b"group", repr(texts).encode())


def an_output(folder: Path, groups: Sequence[Texts], pairs: bool) -> tuple[Path, dict[str, float]]:
    """
    An output in which every score is another one, and the first of each text.
    """
    rows: list[dict[str, Any]] = []
    firsts: dict[str, float] = {}
    for texts in groups:
        there = [(n, text) for n, text in enumerate(texts) if text]
        for rank, (n, text) in enumerate(there, 1):
            told = {"index": n, "rank": rank, "relevance_score": len(rows) + 0.5, "model": "v/m"}
            held = {"digest": whole(texts), "pair_digest": pair(text), "provider": f"p{n % 2}"}
            rows.append({**told, **held})
            firsts.setdefault(text, len(rows) - 0.5)
    digest = pa.binary(16)
    names = {"digest": digest, "index": pa.int32(), "rank": pa.int32(), "model": pa.string()}
    names |= {"relevance_score": pa.float64(), "provider": pa.string(), "pair_digest": digest}
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(names.items())))
    folder.mkdir()
    part = table if pairs else table.drop_columns(["pair_digest"])
    pq.write_table(part, folder / "part-00000.parquet")
    (folder / "_SUCCESS").touch()
    return folder, firsts


@law(25)
@given(st.lists(TEXTS, max_size=8), st.lists(TEXTS, max_size=8), st.booleans())
def test_of_groups_that_are_nowhere_the_pairs_are_found_that_are_somewhere(
    old: list[Texts], new: list[Texts], pairs: bool
) -> None:
    """
    Each with the first score that there is; what is found whole, or asks what another group asks,
    needs none.
    """
    groups = Wanted()
    asked = {p: texts for p, texts in enumerate(new) if any(texts)}
    for p, texts in asked.items():
        sent = len(texts) - texts.count(None)
        groups.add(p, whole(texts), len(texts), sent, p, [pair(text) for text in texts])
    with tempfile.TemporaryDirectory() as folder, comparing(Path(folder) / "x", MEMORY) as it:
        path, firsts = an_output(Path(folder) / "old", old, pairs)
        it.want(groups)
        it.have(finished(path), everybody, pairs=True)
        it.match()
        it.match_equal()
        it.match_pairs()
        counts = {position: (count, all_) for position, count, all_ in it.known_counts()}
        found = {known.position: (known, all_) for known, all_ in it.known()}

    expected: dict[int, Texts] = {}
    for p, texts in asked.items():
        if pairs and texts not in old and texts not in expected.values() and {*texts} & {*firsts}:
            expected[p] = texts
    assert [*expected] == [*found]
    assert counts.keys() == found.keys()
    for p, texts in expected.items():
        known, all_ = found[p]
        scores = [firsts.get(text or "", UNSCORED) for text in texts]
        assert repr(scores) == repr(list(known.scores))
        assert all(text is None or text in firsts for text in texts) == all_
        assert (sum(score == score for score in scores), all_) == counts[p]
        assert (p, len(texts)) == (known.cut, known.shares[-1].stop)


# --- what is refused ------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """
    A finished output.
    """
    return written(tmp_path / "old", Held([3, 2]), [ranked(0, [0.1, 0.2, 0.3]), ranked(1, [1, 2])])


def _missing(old: Path) -> None:
    old.rename(old.with_name("other"))


def _unfinished(old: Path) -> None:
    (old / "_SUCCESS").unlink()


def _without_digests(old: Path) -> None:
    part = old / "part-00000.parquet"
    pq.write_table(pq.read_table(part).drop_columns(["digest"]), part)


def _gap(old: Path) -> None:
    (old / "part-00000.parquet").rename(old / "part-00001.parquet")


def _no_parquet(old: Path) -> None:
    (old / "part-00000.parquet").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        pytest.param(_missing, OutputError, "there is no folder", id="missing"),
        pytest.param(_unfinished, NotReady, "is not finished", id="unfinished"),
        pytest.param(_without_digests, OutputError, "has no column digest", id="without digests"),
        pytest.param(_gap, OutputError, "lacks part-00000.parquet", id="a part is missing"),
        pytest.param(_no_parquet, OutputError, "cannot be read", id="no Parquet"),
    ],
)
def test_what_is_no_finished_output_is_refused_at_once(
    old: Path, spoil: object, error: type[BatchrankError], words: str
) -> None:
    """
    From footers alone, with the folder and what to do.
    """
    assert callable(spoil)
    spoil(old)

    with pytest.raises(error, match=words) as raised:
        finished(old)

    assert str(old) in raised.value.message
    assert raised.value.hint


def test_a_damaged_page_is_refused(old: Path) -> None:
    """
    Its checksum tells: a wrong score would be a score like any other.
    """
    part = old / "part-00000.parquet"
    with pq.ParquetFile(part) as file:
        names = file.schema_arrow.names
        chunk = file.metadata.row_group(0).column(names.index("relevance_score"))
        at = (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size
    body = bytearray(part.read_bytes())
    body[at - 3] ^= 1
    part.write_bytes(body)

    with (
        pytest.raises(OutputError, match="cannot be read"),
        compared(wanted((0, 0, 3, 3)), finished(old)) as comparison,
    ):
        comparison.match()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        pytest.param("index", [0, 0, 1, 0, 1], id="an index twice"),
        pytest.param("index", [0, -1, 1, 0, 1], id="an index below zero"),
        pytest.param("rank", [2, 3, 4, 1, 2], id="no first rank"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    old: Path, column: str, values: list[int]
) -> None:
    """
    Something else wrote them.
    """
    part = old / "part-00000.parquet"
    rows = pq.read_table(part)
    place = rows.column_names.index(column)
    pq.write_table(rows.set_column(place, column, pa.array(values, pa.int32())), part)

    with (
        pytest.raises(OutputError, match="not those of an output"),
        compared(wanted((0, 0, 3, 3)), as_it_is(old)),
    ):
        pass
