"""
What DuckDB is asked for: the one statement that brings a source into its total order.

Owns which columns of which input mean what, and the text of that statement. Reads nothing and asks
nobody: the inputs' columns are arguments.

A source has one of two shapes: a row per candidate (sorted and folded afterwards) or a row per
group (sorted, if there is anything to sort by). Every order ends with all that a row has, so that
rows whose order is open are equal.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrank.config.braces import template_fields
from batchrank.config.schema import SourceTable
from batchrank.errors import Problem, SourceError

QUERY_IDS = ("query_id", "_id")
DOC_IDS = ("doc_id", "_id")
QUERIES = ("query", "text")
"""What columns are called where the job does not say; `_id` and a query's `text` are BEIR's."""

FLAW = "flaw"
"""A column of rows of candidates: why the group that the row is in cannot be asked about."""

POSITIVE, NEGATIVE = "positive", "negative"
"""MTEB's reranking data: a query with two lists of texts."""

Types = Mapping[str, str]
"""DuckDB's types of an input's columns, by name."""


@dataclass(frozen=True, slots=True)
class Relation:
    """
    Something that stands behind FROM: its *sql*, the *types* of its columns, and its *name* in
    messages.
    """

    name: str
    sql: str
    types: Types


@dataclass(frozen=True, slots=True)
class Staged:
    """
    A statement whose rows are sorted, and the `[source]` by which what is made of them is read.

    *nested*: a row per group. *checks* are statements that must return no row, with what is wrong
    if they do; their columns are a count and examples.
    """

    sql: str
    nested: bool
    table: SourceTable
    checks: tuple[tuple[str, str, str], ...] = ()


def quoted(name: str) -> str:
    """
    *name* as an identifier of SQL.
    """
    return '"' + name.replace('"', '""') + '"'


def text_fields(table: SourceTable) -> tuple[str, ...]:
    """
    The columns that a document's text and image are made of.
    """
    made_of = template_fields(table.template) if table.template else table.yaml or ()
    image = (table.image,) if table.image else ()
    text = () if made_of or (image and not table.text) else (table.text or "text",)
    return tuple(dict.fromkeys((*text, *made_of, *image)))


# --- one input ------------------------------------------------------------------------------------


def of_one(table: SourceTable, relation: Relation) -> Staged:
    """
    The statement for one input: what shape it has is seen from its columns.

    Raises:
        SourceError: a column that is needed is not there.
    """
    if table.documents in relation.types:
        documents = quoted(table.documents)
    elif {POSITIVE, NEGATIVE} <= relation.types.keys():
        documents = f"list_concat({quoted(POSITIVE)}, {quoted(NEGATIVE)})"
    else:
        return _candidates(table, relation)
    cut = f"[:{table.depth}]" if table.depth else ""
    return _nested(table, relation, f"({documents}){cut}")


def _nested(table: SourceTable, relation: Relation, documents: str) -> Staged:
    carried = tuple(name for name in table.carry if not name.startswith(f"{table.documents}."))
    beside = (table.doc_id,) if table.doc_id in relation.types else ()
    looking = _Looking(relation)
    looking.not_for_groups(table)
    for key, name in (("query", table.query), *(("query_id", n) for n in (table.query_id,) if n)):
        looking.need(key, name)
    for name in (*carried, *table.group_order):
        looking.need("carry" if name in carried else "group_order", name)
    looking.end()
    names = dict.fromkeys((table.query_id, table.query, *(n for n in beside if n), *carried))
    columns = [quoted(name) for name in names if name]
    columns.append(f"{documents} AS {quoted(table.documents)}")
    order = [*map(quoted, table.group_order)]
    if table.query_id:
        order += [f"CAST({quoted(table.query_id)} AS VARCHAR)", quoted(table.query), documents]
    by = f"\nORDER BY {', '.join(order)}" if order else ""
    sql = f"SELECT {', '.join(columns)}\nFROM {relation.sql}{by}"
    return Staged(sql, True, table)


def _candidates(table: SourceTable, relation: Relation) -> Staged:
    looking = _Looking(relation)
    query_id = looking.need("query_id", table.query_id, QUERY_IDS[:1])
    query = looking.need("query", table.query)
    doc_id = looking.may("doc_id", table.doc_id, DOC_IDS[:1])
    row = {
        "query_id": _id(quoted(query_id), relation.types.get(query_id, "")),
        "query": quoted(query),
    }
    if doc_id:
        row["doc_id"] = _id(quoted(doc_id), relation.types[doc_id])
    return _rows(table, looking, row, relation.sql)


# --- three tables ---------------------------------------------------------------------------------


def of_three(table: SourceTable, run: Relation, queries: Relation, corpus: Relation) -> Staged:
    """
    The statement that joins a run with its queries and its corpus.

    Raises:
        SourceError: a column that is needed is not there.
    """
    names = _Looking(run), _Looking(queries), _Looking(corpus)
    ids = tuple(
        looking.need("query_id", table.query_id, QUERY_IDS[: 1 + (looking is not names[0])])
        for looking in names[:2]
    )
    docs = tuple(
        looking.need("doc_id", table.doc_id, DOC_IDS[: 1 + (looking is not names[0])])
        for looking in names[::2]
    )
    asked = table.query if "query" in table.model_fields_set else None
    query = names[1].need("query", asked, QUERIES)
    for looking in names:
        looking.end()
    at_q = f"{_text('r', ids[0])} = {_text('q', ids[1])}"
    at_c = f"{_text('r', docs[0])} = {_text('c', docs[1])}"
    joined = (
        f"{run.sql} AS r\n  LEFT JOIN {queries.sql} AS q ON {at_q}"
        f"\n  LEFT JOIN {corpus.sql} AS c ON {at_c}"
    )
    row = {
        "query_id": _id(f"r.{quoted(ids[0])}", run.types.get(ids[0], "")),
        "query": f"q.{quoted(query)}",
        "doc_id": _id(f"r.{quoted(docs[0])}", run.types.get(docs[0], "")),
    }
    if table.unmatched == "reject":
        row[FLAW] = (
            f"CASE WHEN q.{quoted(ids[1])} IS NULL THEN 'no query has this id'"
            f" WHEN c.{quoted(docs[1])} IS NULL"
            f" THEN 'the corpus has no document ' || {_text('r', docs[0])} END"
        )
    looking = _Looking(run, ("r", run), ("c", corpus), ("q", queries))
    staged = _rows(table, looking, row, joined)
    checks = [
        _unique("q", queries, ids[1], "queries"),
        _unique("c", corpus, docs[1], "corpus"),
    ]
    if table.unmatched == "refuse":
        checks += [
            _unmatched(run, queries, "q", ids[0], at_q, "queries"),
            _unmatched(run, corpus, "c", docs[0], at_c, "corpus"),
        ]
    return Staged(staged.sql, False, staged.table, tuple(checks))


def _unique(alias: str, relation: Relation, name: str, key: str) -> tuple[str, str, str]:
    held = _text(alias, name)
    sql = (
        f"SELECT count(*), list(id)[:3] FROM (SELECT {held} AS id FROM {relation.sql} AS {alias}"
        f"\nGROUP BY ALL HAVING count(*) > 1)"
    )
    return sql, f"source.{key}", "ids come more than once, such as {examples}"


def _unmatched(
    run: Relation, other: Relation, alias: str, name: str, on: str, key: str
) -> tuple[str, str, str]:
    held = _text("r", name)
    sql = (
        f"SELECT count(DISTINCT id), list(DISTINCT id ORDER BY id)[:3] FROM (SELECT {held} AS id"
        f" FROM {run.sql} AS r\nANTI JOIN {other.sql} AS {alias} ON {on})"
    )
    return sql, "source.run", f"ids are not in {{name}}, such as {{examples}}|{key}"


def _text(alias: str, name: str) -> str:
    return f"CAST({alias}.{quoted(name)} AS VARCHAR)"


# --- rows of candidates ---------------------------------------------------------------------------


def _rows(table: SourceTable, looking: _Looking, row: dict[str, str], source: str) -> Staged:
    """
    The statement for rows of candidates: *row* has what is known of ids and query by now.
    """
    fields = text_fields(table)
    mark = f"{table.documents}."
    carried = tuple(name.removeprefix(mark) for name in table.carry)
    for name in dict.fromkeys((*fields, *carried)):
        key = "carry" if name in carried else "text"
        row.setdefault(name, looking.column(key, name))
    order = [looking.column("group_order", name) for name in table.group_order]
    by_score = [f"{looking.column('score', table.score)} DESC NULLS LAST"] if table.score else []
    by_rank = [f"{looking.column('rank', table.rank)} ASC NULLS LAST"] if table.rank else []
    looking.end()
    first = [*order, f"CAST({row['query_id']} AS VARCHAR)", *by_score, *by_rank]
    rest = [expression for name, expression in row.items() if name != "query_id"]
    columns = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in row.items())
    by = ", ".join(dict.fromkeys((*first, *rest)))
    sql = f"SELECT {columns}\nFROM {source}\nORDER BY {by}"
    return Staged(sql, False, _reading(table, row, fields, carried))


def _reading(
    table: SourceTable, row: Mapping[str, str], fields: Sequence[str], carried: Sequence[str]
) -> SourceTable:
    """
    The `[source]` of what the rows are folded into.
    """
    made_by_rule = bool(table.template or table.yaml)
    return table.model_copy(
        update={
            "query": "query",
            "query_id": "query_id",
            "documents": "documents",
            "doc_id": "doc_id" if "doc_id" in row else None,
            "text": None if made_by_rule or not fields or fields[0] == table.image else fields[0],
            "carry": tuple(f"documents.{name}" for name in carried),
        }
    )


_PLAIN_IDS = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"}


def _id(expression: str, kind: str) -> str:
    """
    An id as a 64-bit integer if it is one, else as text.
    """
    return f"CAST({expression} AS {'BIGINT' if kind in _PLAIN_IDS else 'VARCHAR'})"


class _Looking:
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

    def may(self, key: str, name: str | None, usual: Sequence[str] = ()) -> str | None:
        """
        The same for a column that need not be there, unless the job names it.
        """
        if name is not None and name not in self._relation.types:
            self._missing(key, name)
        names = (name,) if name is not None else usual
        return next((each for each in names if each in self._relation.types), None)

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
        for alias, relation in self._aliases:
            if name in relation.types:
                return f"{alias}.{quoted(name)}" if alias else quoted(name)
        self._missing(key, name)
        return "NULL"

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
            names = " and ".join(relation.name for relation in relations)
            raise SourceError(f"{names} does not fit the job:", held, self._problems)


def _held(relation: Relation) -> str:
    return ", ".join(f"{name}: {kind.lower()}" for name, kind in relation.types.items())
