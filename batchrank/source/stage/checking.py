"""
What is checked around the sorting: ids that are joined, types, and that no query is torn apart.

Owns the statements that look for it and the words about it. Changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from batchrank.errors import Problem, SourceError
from batchrank.source.fitting import fit, named
from batchrank.source.stage.asking import rows_of, schema_of
from batchrank.source.stage.folding import OF_GROUP
from batchrank.source.stage.forms import FLAW, Staged
from batchrank.source.stage.sql import literal
from batchrank.source.stage.statement import Statement, ours


def check_ids(connection: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """
    Refuse what a join would leave out or double.

    Raises:
        SourceError: with how many ids, and examples.
    """
    problems = []
    for each in staged.checks:
        count, examples = rows_of(connection, ours(each.sql, each.key))[0]
        if count:
            shown = ", ".join(map(repr, examples))
            told = f"{count:,} {each.one if count == 1 else each.many} {shown}"
            problems.append(Problem(0, each.key, told, each.remedy))
    if problems:
        raise SourceError("", "", problems)


def check_types(
    connection: duckdb.DuckDBPyConnection, staged: Staged, statement: Statement
) -> None:
    """
    Refuse, before anything is sorted, columns that groups could not be read from.

    Raises:
        SourceError: with their types.
    """
    rows = schema_of(connection, statement)
    schema = rows
    if not staged.nested:
        fields = [field for field in rows if field.name not in (*OF_GROUP, FLAW)]
        schema = pa.schema([rows.field(name) for name in OF_GROUP])
        schema = schema.append(pa.field(staged.table.documents, pa.list_(pa.struct(fields))))
    try:
        fit(schema, staged.table, staged.name)
    except SourceError as error:
        held = ", ".join(f"{field.name}: {named(field.type)}" for field in rows)
        raise SourceError(error.head, f"its rows hold {held}", error.problems) from error


def check_whole(connection: duckdb.DuckDBPyConnection, staged: Staged, path: Path) -> None:
    """
    Refuse a query whose rows `group_order` has torn apart.

    Raises:
        SourceError: with how many there are, and examples.
    """
    if staged.nested or not staged.table.group_order:
        return
    groups = f"read_parquet({literal(str(path))})"
    torn = f"SELECT query_id AS id FROM {groups}\nGROUP BY ALL HAVING count(*) > 1"
    sql = f"SELECT count(*), list(id ORDER BY id)[:3] FROM ({torn})"
    count, examples = rows_of(connection, ours(sql, "source.group_order"))[0]
    if count:
        shown = ", ".join(map(repr, examples))
        problem = Problem(
            0, "source.group_order",
            f"the rows of a query differ in {' or '.join(staged.table.group_order)}, so that"
            f" {count:,} would be in several groups, such as {shown}",
            "name columns that all rows of a query have alike",
        )  # fmt: skip
        raise SourceError("", "", [problem])


def places_of(connection: duckdb.DuckDBPyConnection, staged: Staged, query_id: str | None) -> str:
    """
    Some places of a query's rows, if they come from files.
    """
    if staged.finding is None:
        return ""
    found = rows_of(connection, ours(staged.finding(query_id), "source.path"))
    rows = (f"{file}" + (f", row {at[0]} (counted from 0)" if at else "") for file, *at in found)
    return "".join(f"\n  in {row}" for row in rows)
