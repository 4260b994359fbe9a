"""
Looking for columns in inputs: which stand for what, whether their types will do, what is missing.

Owns the wording of all that a job names and the inputs have not, told at once. Reads nothing and
asks nobody: the inputs' columns are arguments.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrank.config.schema import SourceTable
from batchrank.errors import Problem, SourceError
from batchrank.source.stage.sql import quoted

Types = Mapping[str, str]
"""DuckDB's types of an input's columns, by name."""


@dataclass(frozen=True, slots=True)
class Relation:
    """
    Something that stands behind FROM: its *sql*, the *types* of its columns, and its *name* in
    messages; *located* is the same with columns that say where each row stands, the *places*.
    """

    name: str
    sql: str
    types: Types
    located: str = ""
    places: str = ""


_PLAIN_IDS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}
_LONG_IDS = {"UBIGINT", "HUGEINT", "UHUGEINT"}
_TEXTS = {"VARCHAR", "UUID"}
_FRACTIONS = {"FLOAT", "DOUBLE"}


def _is_text(kind: str) -> bool:
    return kind in _TEXTS or kind.startswith("ENUM(")


def _is_number(kind: str) -> bool:
    return kind in _PLAIN_IDS | _LONG_IDS | _FRACTIONS or kind.startswith("DECIMAL(")


def id_of(expression: str, kind: str) -> str:
    """
    An id as a 64-bit integer if it is one, else as text.
    """
    return f"CAST({expression} AS {'BIGINT' if kind in _PLAIN_IDS else 'VARCHAR'})"


def _measure(expression: str, kind: str) -> str:
    """
    A score or rank to sort by: numbers written as text are numbers, and NaN is none.

    NaN is asked for by name: by what Parquet's statistics tell DuckDB, nothing is equal to it.
    """
    if _is_text(kind):
        expression = f"CAST({expression} AS DOUBLE)"
    elif kind not in _FRACTIONS:
        return expression
    return f"CASE WHEN NOT isnan({expression}) THEN {expression} END"


class Looking:
    """
    One look for columns in some inputs: gathers what is not there.
    """

    def __init__(self, relation: Relation, *aliases: tuple[str, Relation]) -> None:
        self._relation = relation
        self._aliases = aliases or (("", relation),)
        self._problems: list[Problem] = []

    def need(self, key: str, name: str | None, usual: Sequence[str] = ()) -> str:
        """
        The column that *key* names, else the first of the *usual* names that is there.
        """
        found = self.may(key, name, usual)
        if found is None:
            self._missing(key, name or usual[0])
        return found or name or usual[0]

    def either(self, key: str, name: str | None, usual: Sequence[str]) -> str:
        """
        The column that *key* names, or one of the *usual* names where it is not there: inputs that
        are joined need not call an id alike.
        """
        usual_too = name is None or (
            name not in self._relation.types and any(each in self._relation.types for each in usual)
        )
        return self.need(key, None if usual_too else name, usual)

    def may(self, key: str, name: str | None, usual: Sequence[str] = ()) -> str | None:
        """
        The same for a column that need not be there, unless the job names it.
        """
        if name is not None and name not in self._relation.types:
            self._missing(key, name)
        names = (name,) if name is not None else usual
        found = next((each for each in names if each in self._relation.types), None)
        if found is not None and key.endswith("_id"):
            self._check_id(key, found, self._relation.types[found])
        return found

    def _check_id(self, key: str, name: str, kind: str) -> None:
        if kind not in _PLAIN_IDS | _LONG_IDS and not _is_text(kind):
            message = f"{name} is {kind.lower()}, not a string or an integer"
            remedy = "write ids as text, or cast them in a SELECT (source.sql)"
            self._problems.append(Problem(0, f"source.{key}", message, remedy))

    def best(self, table: SourceTable) -> list[str]:
        """
        What brings the best candidate to the front: the highest score, or the lowest rank.
        """
        for key, name, way in (("score", table.score, "DESC"), ("rank", table.rank, "ASC")):
            if name is None:
                continue
            expression, kind = self._column(key, name)
            if kind and not _is_text(kind) and not _is_number(kind):
                message = f"{name} is {kind.lower()}, not a number"
                self._problems.append(Problem(0, f"source.{key}", message))
            return [f"{_measure(expression, kind)} {way} NULLS LAST"]
        if table.depth:
            message = "takes the first candidates, and nothing says which come first"
            remedy = "name the column that does as source.score or source.rank"
            self._problems.append(Problem(0, "source.depth", message, remedy))
        return []

    def not_for_groups(self, table: SourceTable) -> None:
        """
        Refuse what orders candidates: where they lie in a list, that is their order.
        """
        for key in ("score", "rank"):
            if getattr(table, key) is not None:
                message = "orders rows of candidates, and here they lie in a list"
                self._problems.append(Problem(0, f"source.{key}", message, "take it out"))

    def column(self, key: str, name: str) -> str:
        """
        A column of any of the inputs, for use in a statement.
        """
        return self._column(key, name)[0]

    def _column(self, key: str, name: str) -> tuple[str, str]:
        """
        The same with its type.
        """
        for alias, relation in self._aliases:
            if name in relation.types:
                return f"{alias}.{quoted(name)}" if alias else quoted(name), relation.types[name]
        self._missing(key, name)
        return "NULL", ""

    @property
    def name(self) -> str:
        """
        What it looks into.
        """
        return " and ".join(relation.name for _, relation in self._aliases)

    def _missing(self, key: str, name: str) -> None:
        held = [each for _, relation in self._aliases for each in relation.types]
        near = difflib.get_close_matches(name, held, 1)
        remedy = f"did you mean {near[0]}?" if near else ""
        problem = Problem(0, f"source.{key}", f"there is no column {name}", remedy)
        if problem not in self._problems:
            self._problems.append(problem)

    def end(self) -> None:
        """
        Tell all that is missing.

        Raises:
            SourceError: something is.
        """
        if self._problems:
            relations = [relation for _, relation in self._aliases]
            held = "; ".join(f"{relation.name} holds {_held(relation)}" for relation in relations)
            do = "do" if len(relations) > 1 else "does"
            raise SourceError(f"{self.name} {do} not fit the job:", held, self._problems)


def _held(relation: Relation) -> str:
    return ", ".join(f"{name}: {kind.lower()}" for name, kind in relation.types.items())
