"""
What other outputs have the scores of, and which groups ask the same: found by digest, all at once,
before anybody is called.

Owns how a finished output is read back (with its checksums, some groups at a time, in either
layout), when a group of it is complete, and the comparison in DuckDB, which has a limit of memory
and a folder to spill into. Writes no ledger, and decides neither which outputs are looked at nor
which models count.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrank.domain import UNSCORED, Ranked, Served, Share
from batchrank.errors import NotReady, OutputError, StorageError
from batchrank.interruptible import interruptible
from batchrank.places.remote import Place, in_words, is_of_store, readable, said, size_bytes
from batchrank.policy.digest import DIGEST_BYTES
from batchrank.store.output import PART_NAME, SUCCESS, part_file

if TYPE_CHECKING:
    import duckdb

_READ = ("digest", "index", "rank", "relevance_score", "model", "provider")
"""All that is read of an output."""

_PAIR = "pair_digest"
"""The column that tells pairs apart, where an output has it."""

_LEAVE_OUT = "mend it, or take it out of output.reuse"

WANTED_TOGETHER = 50_000
"""So many groups are handed to DuckDB at once."""

_TABLES = """
CREATE TABLE wanted (
    position BIGINT, digest BLOB, documents INTEGER, sent INTEGER, cut INTEGER, pairs BLOB[]
);
CREATE TABLE old (
    number BIGINT, digest BLOB, scored INTEGER, last INTEGER,
    indices INTEGER[], scores DOUBLE[], served SMALLINT[], pairs BLOB[]
);
CREATE TABLE ended (position BIGINT, digest BLOB, ranked BOOLEAN);
CREATE TABLE equal (position BIGINT, leader BIGINT, cut INTEGER);
"""

# Of groups that are alike the first counts: in the order of the outputs, their parts and rows.
_MATCH = """
CREATE TABLE found AS
SELECT position, any_value(documents) AS documents, any_value(cut) AS cut, min(number) AS number
FROM wanted JOIN old ON wanted.digest = old.digest AND sent = scored AND last < documents
GROUP BY position
"""

_PARTLY = """
SELECT count(*) FROM wanted
WHERE digest IN (SELECT digest FROM old) AND position NOT IN (SELECT position FROM found)
"""

_FOUND = """
SELECT position, documents, cut, indices, scores, served
FROM found JOIN old USING (number) ORDER BY position
"""

# Of equal groups the first leads, unless one has scores already.
_EQUAL = """
INSERT INTO equal
WITH waiting AS (
    SELECT position, digest, cut FROM wanted ANTI JOIN found USING (position)
), leaders AS (
    SELECT digest, coalesce(min(position) FILTER (ranked), min(position)) AS leader
    FROM (SELECT position, digest, false AS ranked FROM waiting UNION ALL FROM ended)
    GROUP BY digest HAVING count(*) > 1
)
SELECT position, leader, cut FROM waiting JOIN leaders USING (digest) WHERE position <> leader
"""

# Of pairs that are alike the first counts, as of groups. `place` is where it stands: its group, and
# which one it is there. One join or one sorting a statement, so that each has all the memory; no
# `arg_min`, which does not spill as well; and lists are taken apart as they stream, never gathered.
_PAIRS = """
CREATE TABLE asked AS
SELECT position, documents, sent, cut,
    unnest(range(len(pairs)))::INTEGER AS index, unnest(pairs) AS pair
FROM wanted ANTI JOIN found USING (position) ANTI JOIN equal USING (position)
WHERE pairs IS NOT NULL;
CREATE TABLE hit AS
SELECT place, pair, score, served FROM (
    SELECT (number << 32) + unnest(range(len(pairs))) AS place,
        unnest(pairs) AS pair, unnest(scores) AS score, unnest(served) AS served
    FROM old WHERE pairs IS NOT NULL
) SEMI JOIN asked USING (pair);
CREATE TABLE alike AS
SELECT pair, score, served FROM hit
QUALIFY row_number() OVER (PARTITION BY pair ORDER BY place) = 1;
DROP TABLE hit;
CREATE TABLE known AS
SELECT position, documents, sent, cut, index, score, served FROM asked JOIN alike USING (pair);
DROP TABLE asked;
DROP TABLE alike;
"""

_KNOWN = """
SELECT position, documents, sent, cut, index, score, served FROM known ORDER BY position, index
"""

_KNOWN_COUNTS = """
SELECT position, count(*)::INTEGER, count(*) = any_value(sent) FROM known GROUP BY position
"""


# --- outputs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finished:
    """
    An output whose scores may be taken, and its part files; *has_pairs*: they tell pairs apart.
    """

    folder: Place
    parts: tuple[Place, ...]
    has_pairs: bool = False

    @property
    def identity(self) -> list[object]:
        """
        What tells whether it is still the same output: no time, and no byte of its rows.
        """
        return [str(self.folder), [[part.name, size_bytes(part)] for part in self.parts]]


def is_finished(folder: Place) -> bool:
    """
    Tell whether *folder* is a finished output.
    """
    return (folder / SUCCESS).is_file()


def finished(folder: Place) -> Finished:
    """
    The finished output at *folder*; only footers are read.

    Raises:
        NotReady: there is an output, and it is not finished.
        OutputError: there is none, or it lacks a part before its last, or its scores cannot be told
            apart by their digests.
    """
    if not folder.is_dir():
        raise OutputError(
            f"output.reuse: there is no folder {folder}",
            'name a finished output, or write reuse = "previous": it takes the newest that is',
        )
    if not is_finished(folder):
        raise NotReady(
            f"output.reuse: {folder} is not finished (it holds no {SUCCESS})",
            "run its job to the end first, or take it out of output.reuse",
        )
    found = as_it_is(folder)
    names = {part.name for part in found.parts}
    missing = next((name for name in map(part_file, range(len(names))) if name not in names), None)
    if missing:
        raise OutputError(
            f"output.reuse: {folder} lacks {missing}, so that its groups would be called",
            "run its job: it renders the part without a call; or take it out of output.reuse",
        )
    return found


def as_it_is(folder: Place) -> Finished:
    """
    The output at *folder*, finished or not.

    Raises:
        OutputError: its parts cannot be read, or have no digests.
    """
    found = sorted(path.name for path in folder.iterdir() if PART_NAME.fullmatch(path.name))
    parts = tuple(folder / name for name in found)
    has_pairs = bool(parts)
    for part in parts:
        with _readable(part), pq.ParquetFile(readable(part), pre_buffer=False) as file:
            names = _names(file)
        missing = sorted(set(_READ) - names)
        has_pairs = has_pairs and _PAIR in names
        if missing:
            raise OutputError(
                f"output.reuse: {part} has no column {', '.join(missing)}:"
                " an older batchrank wrote it, or something else",
                "take it out of output.reuse for this once: what is written now has digests",
            )
    return Finished(folder, parts, has_pairs)


def _names(file: pq.ParquetFile) -> set[str]:
    """
    The columns, and the fields of the results in the layout of groups.
    """
    names = set(file.schema_arrow.names)
    if "results" in names:
        names |= {field.name for field in file.schema_arrow.field("results").type.value_type}
    return names


@contextmanager
def _readable(part: Place) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        why = f"output.reuse: {part} cannot be read: {said(error)}"
        if is_of_store(error) and in_words(error).outage:
            raise StorageError(why, "run again when the store answers") from None
        raise OutputError(why, _LEAVE_OUT) from None


# --- reading it back ------------------------------------------------------------------------------


def _scored_rows(
    part: Place, accepts: Callable[[str], bool], read: Sequence[str]
) -> Iterator[pa.Table]:
    """
    The candidates with scores by a model that *accepts*, whole groups at a time, as they stand;
    of their columns those to be *read*.
    """
    with (
        _readable(part),
        pq.ParquetFile(readable(part), page_checksum_verification=True, pre_buffer=False) as file,
    ):
        paths = (file.schema.column(n).path for n in range(len(file.schema)))
        leaves = [path for path in paths if _is_read(path, read)]
        held: pa.Table | None = None
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=leaves, use_threads=False)
            rows = _of_models(_scored(_flat(rows, read)).select(read), accepts)
            whole = rows if held is None else pa.concat_tables([held, rows])
            begins = pc.indices_nonzero(pc.equal(whole.column("rank"), 1))
            last = begins[-1].as_py() if len(begins) else 0
            held = whole.slice(last)
            if last:
                yield whole.slice(0, last).combine_chunks()
        if held is not None and held.num_rows:
            yield held.combine_chunks()


def _is_read(path: str, read: Sequence[str]) -> bool:
    first, _, _ = path.partition(".")
    return path in read or (first == "results" and path.rpartition(".")[2] in read)


def _flat(rows: pa.Table, read: Sequence[str]) -> pa.Table:
    """
    The layout of groups as that of candidates.
    """
    if "results" not in rows.column_names:
        return rows
    results = rows.column("results").combine_chunks()
    candidates = results.flatten()
    digests = rows.column("digest").take(pc.list_parent_indices(results))
    fields = {name: pc.struct_field(candidates, name) for name in read if name != "digest"}
    return pa.table({"digest": digests, **fields})


def _scored(rows: pa.Table) -> pa.Table:
    there = pc.and_(pc.is_finite(rows.column("relevance_score")), rows.column("digest").is_valid())
    return rows.filter(there)


def _of_models(rows: pa.Table, accepts: Callable[[str], bool]) -> pa.Table:
    models = pc.unique(rows.column("model"))
    fit = [model for model in models.to_pylist() if model is not None and accepts(model)]
    if len(fit) == len(models):
        return rows
    return rows.filter(pc.is_in(rows.column("model"), pa.array(fit, pa.string())))


class _Folding:
    """
    From rows of candidates to one row a group, numbered on; *who* has scored, by its number.
    """

    def __init__(self) -> None:
        self.who: list[Served] = []
        self.groups = 0

    def folded(self, rows: pa.Table) -> pa.Table:
        """
        The groups of *rows*, each with its candidates by index.

        Raises:
            ValueError: ranks or indices contradict each other.
        """
        group = pc.cumulative_sum(pc.equal(rows.column("rank"), 1).cast(pa.int64()))
        keys = pa.table({"group": group, "index": rows.column("index")})
        order = pc.sort_indices(keys, sort_keys=[("group", "ascending"), ("index", "ascending")])
        keys, rows = keys.take(order).combine_chunks(), rows.take(order).combine_chunks()
        _check(keys)
        groups = pc.run_end_encode(keys.column("group").chunk(0))
        ends = pa.concat_arrays([pa.array([0], pa.int32()), groups.run_ends])
        begun, self.groups = self.groups, self.groups + len(groups.run_ends)
        columns = {"indices": rows.column("index"), "scores": rows.column("relevance_score")}
        columns["served"] = self._served(rows)
        none = pa.nulls(len(groups.run_ends))
        return pa.table(
            {
                "number": pa.array(range(begun, self.groups), pa.int64()),
                "digest": rows.column("digest").take(ends[:-1]),
                "scored": pc.subtract(ends[1:], ends[:-1]),
                "last": rows.column("index").take(pc.subtract(ends[1:], 1)),
                **{name: _lists(ends, column) for name, column in columns.items()},
                "pairs": _lists(ends, rows.column(_PAIR)) if _PAIR in rows.column_names else none,
            }
        )

    def _served(self, rows: pa.Table) -> pa.ChunkedArray:
        """
        The number of who scored each candidate.
        """
        pairs = rows.select(["model", "provider"]).group_by(["model", "provider"]).aggregate([])
        numbers: Any = pa.scalar(0, pa.int16())
        for model, provider in zip(*(column.to_pylist() for column in pairs.columns), strict=True):
            number = pa.scalar(self._number(Served(model, provider)), pa.int16())
            held = rows.column("provider")
            same = held.is_null() if provider is None else pc.equal(held, provider)
            same = pc.and_(pc.equal(rows.column("model"), model), pc.fill_null(same, False))
            numbers = pc.if_else(same, number, numbers)
        return numbers

    def _number(self, served: Served) -> int:
        if served not in self.who:
            self.who.append(served)
        return self.who.index(served)


def _check(keys: pa.Table) -> None:
    """
    Every group begins with a first rank, and has no index twice.
    """
    group, index = (keys.column(name).chunk(0) for name in ("group", "index"))
    twice = pc.and_(pc.equal(group[1:], group[:-1]), pc.equal(index[1:], index[:-1]))
    begins, least = group[0].as_py(), pc.min(index).as_py()
    if begins != 1 or index.null_count or least < 0 or pc.any(twice).as_py():
        raise ValueError("its ranks and indices are not those of an output")


def _lists(ends: pa.Array, column: pa.ChunkedArray) -> pa.ListArray:
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return pa.ListArray.from_arrays(ends, values)


# --- comparing ------------------------------------------------------------------------------------


class Wanted:
    """
    Groups that somebody has to be asked about, on their way to DuckDB.

    *sent* counts the documents that are sent, *cut* those of them that were longer; *pairs* are the
    digests of all documents with the query, None for one that is not sent, where pairs count.
    """

    def __init__(self) -> None:
        self.columns: tuple[list[Any], ...] = ([], [], [], [], [], [])

    def __len__(self) -> int:
        return len(self.columns[0])

    def add(
        self,
        position: int,
        digest: bytes,
        documents: int,
        sent: int,
        cut: int,
        pairs: Sequence[bytes | None] | None = None,
    ) -> None:
        """
        Add a group.
        """
        values = (position, digest, documents, sent, cut, pairs)
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)

    def table(self) -> pa.Table:
        """
        The same for Arrow.
        """
        digest, number = pa.binary(DIGEST_BYTES), pa.int32()
        kinds = (pa.int64(), digest, number, number, number, pa.list_(digest))
        names = ("position", "digest", "documents", "sent", "cut", "pairs")
        arrays = [pa.array(held, kind) for held, kind in zip(self.columns, kinds, strict=True)]
        return pa.table(dict(zip(names, arrays, strict=True)))


class Comparison:
    """
    What is wanted, and what outputs have; after `match` what was found.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._folding = _Folding()
        self._run(_TABLES)

    def want(self, groups: Wanted) -> None:
        """
        Take in groups that need scores.
        """
        self._insert("wanted", groups.table())

    def have(self, output: Finished, accepts: Callable[[str], bool], *, pairs: bool = False) -> int:
        """
        Take in all groups of *output* with scores by a model that *accepts*, with their *pairs* if
        told and it has them; returns how many groups.

        Raises:
            OutputError: it is damaged.
        """
        before = self._folding.groups
        read = (*_READ, _PAIR) if pairs and output.has_pairs else _READ
        for part in output.parts:
            try:
                for rows in _scored_rows(part, accepts, read):
                    self._insert("old", self._folding.folded(rows))
            except ValueError as error:
                raise OutputError(f"output.reuse: {part}: {error}", _LEAVE_OUT) from error
        return self._folding.groups - before

    def match(self) -> tuple[int, int]:
        """
        Compare; returns how many groups were found, and of how many more only some scores were.
        """
        self._run(_MATCH)
        return self._count("SELECT count(*) FROM found"), self._count(_PARTLY)

    def ended(self, groups: Iterable[tuple[int, bytes, bool]]) -> None:
        """
        Take in groups that have an outcome: position, digest, whether that is scores.
        """
        kinds = (pa.int64(), pa.binary(DIGEST_BYTES), pa.bool_())
        rest = iter(groups)
        while some := list(islice(rest, WANTED_TOGETHER)):
            columns = map(pa.array, zip(*some, strict=True), kinds)
            named = zip(("position", "digest", "ranked"), columns, strict=True)
            self._insert("ended", pa.table(dict(named)))

    def match_equal(self) -> int:
        """
        Find the groups that ask the same as another, of those that `match` did not find; returns
        how many need not be asked about.
        """
        self._run(_EQUAL)
        return self._count("SELECT count(*) FROM equal")

    def match_pairs(self) -> None:
        """
        Find the pairs that have a score somewhere, of groups that `match` did not find and that
        take no other's outcome.
        """
        self._run(_PAIRS)

    def known_counts(self) -> Iterator[tuple[int, int, bool]]:
        """
        Of which groups `match_pairs` found some pairs: position, how many, whether that is all that
        would be sent.
        """
        yield from self._rows(_KNOWN_COUNTS)

    def known(self) -> Iterator[tuple[Ranked, bool]]:
        """
        What `match_pairs` found: each group with the scores that it has, in order, and whether
        these are all.
        """
        rows = self._rows(_KNOWN)
        for (position, documents, sent, cut), found in groupby(rows, key=itemgetter(0, 1, 2, 3)):
            indices, scores, served = zip(*(row[4:] for row in found), strict=True)
            yield (
                self._outcome(position, documents, cut, indices, scores, served),
                len(scores) == sent,
            )

    def equals(self) -> Iterator[tuple[int, int, int]]:
        """
        Groups that ask the same as another, which one that is, and how many documents of theirs
        were cut.
        """
        yield from self._rows("SELECT position, leader, cut FROM equal")

    def positions(self) -> Iterator[int]:
        """
        The positions that were found, in no order.
        """
        for (position,) in self._rows("SELECT position FROM found"):
            yield position

    def ranked(self, together: int) -> Iterator[list[Ranked]]:
        """
        What was found as outcomes, so many at a time, in order.
        """
        rows = self._rows(_FOUND, together)
        while some := [self._outcome(*row) for row in islice(rows, together)]:
            yield some

    def _outcome(
        self,
        position: int,
        documents: int,
        cut: int,
        indices: Sequence[int],
        scores: Sequence[float],
        served: Sequence[int],
    ) -> Ranked:
        shares = tuple(self._shares(documents, indices, served))
        if len(scores) == documents:
            return Ranked(position, tuple(scores), shares, cut)
        whole = [UNSCORED] * documents
        for index, score in zip(indices, scores, strict=True):
            whole[index] = score
        return Ranked(position, tuple(whole), shares, cut)

    def _shares(
        self, documents: int, indices: Sequence[int], served: Sequence[int]
    ) -> Iterator[Share]:
        """
        Who scored what; a candidate without a score is its follower's.
        """
        who = self._folding.who
        for n in range(1, len(served)):
            if served[n] != served[n - 1]:
                yield Share(indices[n - 1] + 1, who[served[n - 1]])
        yield Share(documents, who[served[-1]])

    # --- DuckDB -----------------------------------------------------------------------------------

    def _insert(self, into: str, rows: pa.Table) -> None:
        asked = self._connection

        def insert() -> None:
            asked.register("rows", rows)
            asked.execute(f"INSERT INTO {into} SELECT * FROM rows")
            asked.unregister("rows")

        with _translated():
            interruptible(asked, insert)

    def _run(self, sql: str) -> list[Any]:
        """
        The few rows that a statement returns.
        """
        ask = self._connection.execute
        with _translated():
            return interruptible(self._connection, lambda: ask(sql).fetchall())

    def _count(self, sql: str) -> int:
        ((count,),) = self._run(sql)
        return int(count)

    def _rows(self, sql: str, together: int = WANTED_TOGETHER) -> Iterator[tuple[Any, ...]]:
        """
        The rows that a statement returns, as they come; so many are held at once.
        """
        asked = self._connection
        with _translated():
            reader = interruptible(asked, lambda: asked.sql(sql).to_arrow_reader(together))
            while batch := interruptible(asked, lambda: next(reader, None)):
                yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


@contextmanager
def comparing(folder: Path, memory_bytes: int) -> Iterator[Comparison]:
    """
    Compare within so much memory of DuckDB's; *folder* is its own and is removed in the end.

    Raises:
        StorageError: there is no room.
    """
    import duckdb  # takes a tenth of the time in which a process starts, and most need none

    shutil.rmtree(folder, ignore_errors=True)
    settings: dict[str, Any] = {
        "temp_directory": str(folder),
        "memory_limit": f"{memory_bytes}B",
        "threads": 2,
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
    }
    try:
        folder.mkdir(mode=0o700, parents=True)
        with duckdb.connect(folder / "compared.duckdb", config=settings) as connection:
            yield Comparison(connection)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _translated() -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        why = str(error).strip().partition("\n")[0]
        raise StorageError(
            f"groups cannot be compared with other outputs and with each other: {why}",
            "make room on the disk of the state folder, raise source.memory,"
            " or do without (no output.reuse, source.dedupe = false)",
        ) from error
