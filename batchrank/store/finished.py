"""
Outputs that are finished, read back: their parts, and their groups with the scores that they have.

Owns what makes an output one whose scores may be taken, that it is read with its checksums, some
groups at a time, in either layout, and which of its groups' candidates belong together. Compares
nothing: `reuse` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrank.domain import Served
from batchrank.errors import NotReady, OutputError, StorageError
from batchrank.places.remote import Place, in_words, is_of_store, readable, said, size_bytes
from batchrank.store.output import PART_NAME, SUCCESS, part_file

_READ = ("digest", "index", "rank", "relevance_score", "model", "provider")
"""All that is read of an output."""

_PAIR = "pair_digest"
"""The column that tells pairs apart, where an output has it."""

_LEAVE_OUT = "mend it, or take it out of output.reuse"


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


class Folding:
    """
    From rows of candidates to one row a group, numbered on through all outputs; *who* has scored,
    by its number.
    """

    def __init__(self) -> None:
        self.who: list[Served] = []
        self.groups = 0

    def of(
        self, output: Finished, accepts: Callable[[str], bool], *, pairs: bool
    ) -> Iterator[pa.Table]:
        """
        Yield the groups of *output* with scores by a model that *accepts*, some at a time, with
        the digests of their *pairs* if told and it has them.

        Raises:
            OutputError: it is damaged.
        """
        read = (*_READ, _PAIR) if pairs and output.has_pairs else _READ
        for part in output.parts:
            try:
                yield from map(self.folded, _scored_rows(part, accepts, read))
            except ValueError as error:
                raise OutputError(f"output.reuse: {part}: {error}", _LEAVE_OUT) from error

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
