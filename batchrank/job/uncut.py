"""
Groups with more documents than one request may hold, where groups may not be cut apart.

Owns the refusal of a source that has one, before anybody is called: the night would end without
its scores. Only the lengths of lists are read for it, and nothing at all where there is no limit or
groups may be cut. Bytes and tokens are not looked at: for these every text would have to be read
twice, so a group with too many of them is rejected when it is met, before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator

from batchrank.domain import Group, Positions
from batchrank.engine.feed import Source
from batchrank.errors import SourceError
from batchrank.job.world import World
from batchrank.policy.slicing import documents_sent, without_call
from batchrank.source.parquet import ParquetSource


def check_uncut(world: World, source: Source, done: Positions) -> None:
    """
    Look at the groups that are not in *done*; *source* knows of what need not be sent.

    Raises:
        SourceError: one of them has too many documents, and may not be cut apart.
        ChangedError, StorageError: the source is another by now, or cannot be read.
    """
    bounds = world.job.bounds
    most = bounds.documents_max
    if most is None or bounds.splits:
        return
    long = Positions(world.source.total, world.source.longer(most, done, world.target))
    for group in _groups(source, long):
        if (count := documents_sent(group)) > most and without_call(group) is None:
            raise SourceError(_sentence(world, group, count, most, len(long)), _hint(world))


def _groups(source: Source, wanted: Positions) -> Iterator[Group]:
    for batch in source.batches(wanted.others(), wanted.total) if wanted else ():
        for position in range(batch.position, batch.position + batch.rows):
            if position in wanted:
                yield batch.group(position)


def _sentence(world: World, group: Group, count: int, most: int, long: int) -> str:
    provider = world.job.config.provider.name
    where = f"group {group.position} (query_id {group.query_id!r}, {_place(world.source, group)})"
    several = f"; {long:,} groups have more candidates" if long > 1 else ""
    return f"{where}: {count:,} documents, and one request to {provider} holds {most:,}{several}"


def _hint(world: World) -> str:
    if world.job.sent_top_n is not None:
        return "leave provider.send_top_n out: then groups are cut apart, and top_n is cut here"
    return (
        "set provider.splits = true if the model scores pairs independently, so that groups may be"
        " cut apart; provider.documents_max if a request may hold more; else take fewer candidates"
    )


def _place(source: ParquetSource, group: Group) -> str:
    """
    Where a group lies: its file and its row there, counted from 0; of a staged source nobody knows.
    """
    if source.staged:
        return "of a source that is staged"
    row = group.position
    for file in source.files:
        if row < file.rows:
            return f"row {row} of {file.path}"
        row -= file.rows
    raise AssertionError(f"no file has position {group.position}")
