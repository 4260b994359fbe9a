"""
What other outputs have the scores of, and which groups ask the same: found by digest, all at once,
before anybody is called.

Owns when a group of an output is complete, and the comparison in DuckDB, which has a limit of
memory and a folder to spill into. How an output is read back is `finished`'s business. Writes no
ledger, and decides neither which outputs are looked at nor which models count.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from batchrank.domain import UNSCORED, Ranked, Share
from batchrank.errors import StorageError
from batchrank.interruptible import interruptible
from batchrank.policy.digest import DIGEST_BYTES
from batchrank.store.finished import Finished, Folding

if TYPE_CHECKING:
    import duckdb

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
        self._folding = Folding()
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
        for groups in self._folding.of(output, accepts, pairs=pairs):
            self._insert("old", groups)
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
