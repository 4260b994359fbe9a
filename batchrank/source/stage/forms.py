"""
What DuckDB is asked for: the one statement that brings a source into its total order.

Owns which columns of which input mean what, and the text of that statement. Reads nothing and asks
nobody: the inputs' columns are arguments.

A source has one of two shapes: a row per candidate (sorted and folded afterwards) or a row per
group (sorted, if there is anything to sort by). Every order ends with all that a row has, so that
rows whose order is open are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from batchrank.config.braces import template_fields
from batchrank.config.schema import SourceTable
from batchrank.source.stage.looking import Looking, Relation, id_of
from batchrank.source.stage.sql import literal, quoted

QUERY_IDS = ("query_id", "_id")
DOC_IDS = ("doc_id", "_id")
QUERIES = ("query", "text")
RUN_IDS = ("query_id", "query-id"), ("doc_id", "corpus-id")
"""What columns are called where the job does not say; `_id`, a query's `text`, and `query-id` and
`corpus-id` of qrels are BEIR's."""

FLAW = "flaw"
"""A column of rows of candidates: why the group that the row is in cannot be asked about."""

POSITIVE, NEGATIVE = "positive", "negative"
"""MTEB's reranking data: a query with two lists of texts."""


@dataclass(frozen=True, slots=True)
class Check:
    """
    A statement that counts what must not be, with examples of it; *one* and *many* say of so many
    ids what is wrong with the setting *key*.
    """

    sql: str
    key: str
    one: str
    many: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Staged:
    """
    A statement whose rows are sorted, and the `[source]` by which what is made of them is read.

    *nested*: a row per group. *name* is what its inputs are called. *checks* come before it, and
    *finding* makes of an id's text, or None, a statement that says where the id's rows are.
    """

    sql: str
    nested: bool
    table: SourceTable
    name: str
    checks: tuple[Check, ...] = ()
    finding: Callable[[str | None], str] | None = None


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
    return _nested(table, relation, documents)


def _nested(table: SourceTable, relation: Relation, documents: str) -> Staged:
    cut = f"[:{table.depth}]" if table.depth else ""
    carried = tuple(name for name in table.carry if not name.startswith(f"{table.documents}."))
    beside = (table.doc_id,) if table.doc_id in relation.types else ()
    looking = Looking(relation)
    looking.not_for_groups(table)
    for key, name in (("query", table.query), *(("query_id", n) for n in (table.query_id,) if n)):
        looking.need(key, name)
    for name in (*carried, *table.group_order):
        looking.need("carry" if name in carried else "group_order", name)
    looking.end()
    names = dict.fromkeys(filter(None, (table.query_id, table.query, *carried)))
    row = {name: quoted(name) for name in names}
    row |= {name: f"{quoted(name)}{cut}" for name in beside if name}
    row[table.documents] = f"({documents}){cut}"
    order = [*map(quoted, table.group_order)]
    if table.query_id:
        order.append(f"CAST({quoted(table.query_id)} AS VARCHAR)")
    by = f"\nORDER BY {', '.join(dict.fromkeys((*order, *row.values())))}" if order else ""
    columns = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in row.items())
    sql = f"SELECT {columns}\nFROM {relation.sql}{by}"
    return Staged(sql, True, table, relation.name)


def _candidates(table: SourceTable, relation: Relation) -> Staged:
    looking = Looking(relation)
    query_id = looking.need("query_id", table.query_id, QUERY_IDS[:1])
    query = looking.need("query", table.query)
    doc_id = looking.may("doc_id", table.doc_id, DOC_IDS[:1])
    row = {
        "query_id": id_of(quoted(query_id), relation.types.get(query_id, "")),
        "query": quoted(query),
    }
    if doc_id:
        row["doc_id"] = id_of(quoted(doc_id), relation.types[doc_id])
    staged = _rows(table, looking, row, relation.sql)
    if not relation.located:
        return staged
    return replace(staged, finding=lambda value: _finding(relation, query_id, value))


def _finding(relation: Relation, query_id: str, value: str | None) -> str:
    is_it = "IS NULL" if value is None else f"= {literal(value)}"
    return (
        f"SELECT {relation.places} FROM {relation.located}"
        f"\nWHERE CAST({quoted(query_id)} AS VARCHAR) {is_it} ORDER BY ALL LIMIT 3"
    )


# --- three tables ---------------------------------------------------------------------------------


def of_three(table: SourceTable, run: Relation, queries: Relation, corpus: Relation) -> Staged:
    """
    The statement that joins a run with its queries and its corpus.

    Raises:
        SourceError: a column that is needed is not there.
    """
    ids, docs, query = _joining(table, run, queries, corpus)
    at_q = f"{_text('r', ids[0])} = {_text('q', ids[1])}"
    at_c = f"{_text('r', docs[0])} = {_text('c', docs[1])}"
    joined = (
        f"{run.sql} AS r\n  LEFT JOIN {queries.sql} AS q ON {at_q}"
        f"\n  LEFT JOIN {corpus.sql} AS c ON {at_c}"
    )
    row = {
        "query_id": id_of(f"r.{quoted(ids[0])}", run.types.get(ids[0], "")),
        "query": f"q.{quoted(query)}",
        "doc_id": id_of(f"r.{quoted(docs[0])}", run.types.get(docs[0], "")),
    }
    if table.unmatched == "reject":
        row[FLAW] = _flaw(ids[1], docs)
    looking = Looking(run, ("r", run), ("c", corpus), ("q", queries))
    staged = _rows(table, looking, row, joined, texts=Looking(run, ("c", corpus), ("r", run)))
    checks = [
        _unique("q", queries, ids[1], "queries"),
        _unique("c", corpus, docs[1], "corpus"),
    ]
    if table.unmatched == "refuse":
        checks += [
            _unmatched(run, queries, "q", ids[0], at_q),
            _unmatched(run, corpus, "c", docs[0], at_c),
        ]
    return replace(staged, checks=tuple(checks))


def _joining(
    table: SourceTable, run: Relation, queries: Relation, corpus: Relation
) -> tuple[tuple[str, str], tuple[str, str], str]:
    """
    The columns that ids of queries are joined by, in run and queries; those of documents, in run
    and corpus; and the column with the query.
    """
    in_run, in_queries, in_corpus = Looking(run), Looking(queries), Looking(corpus)
    ids = (
        in_run.either("query_id", table.query_id, RUN_IDS[0]),
        in_queries.either("query_id", table.query_id, QUERY_IDS),
    )
    docs = (
        in_run.either("doc_id", table.doc_id, RUN_IDS[1]),
        in_corpus.either("doc_id", table.doc_id, DOC_IDS),
    )
    asked = table.query if "query" in table.model_fields_set else None
    query = in_queries.need("query", asked, QUERIES)
    for looking in (in_run, in_queries, in_corpus):
        looking.end()
    return ids, docs, query


def _flaw(query_id: str, docs: tuple[str, str]) -> str:
    return (
        f"CASE WHEN q.{quoted(query_id)} IS NULL THEN 'no query has this id'"
        f" WHEN c.{quoted(docs[1])} IS NULL"
        f" THEN 'the corpus has no document ' || coalesce({_text('r', docs[0])}, '(no id)') END"
    )


def _unique(alias: str, relation: Relation, name: str, key: str) -> Check:
    held = _text(alias, name)
    sql = (
        f"SELECT count(*), list(id ORDER BY id)[:3] FROM (SELECT {held} AS id"
        f" FROM {relation.sql} AS {alias}\nGROUP BY ALL HAVING count(*) > 1) WHERE id IS NOT NULL"
    )
    comes = f"more than once in {relation.name}, such as"
    return Check(
        sql, f"source.{key}", f"id comes {comes}", f"ids come {comes}", "leave all but one out"
    )


def _unmatched(run: Relation, other: Relation, alias: str, name: str, on: str) -> Check:
    held = f"coalesce({_text('r', name)}, '(no id)')"
    sql = (
        f"SELECT count(DISTINCT id), list(DISTINCT id ORDER BY id)[:3] FROM (SELECT {held} AS id"
        f" FROM {run.sql} AS r\nANTI JOIN {other.sql} AS {alias} ON {on})"
    )
    where = f"not in {other.name}, such as"
    return Check(
        sql, "source.run", f"id of {run.name} is {where}", f"ids of {run.name} are {where}",
        'set source.unmatched = "reject", or mend the files',
    )  # fmt: skip


def _text(alias: str, name: str) -> str:
    return f"CAST({alias}.{quoted(name)} AS VARCHAR)"


# --- rows of candidates ---------------------------------------------------------------------------


def _rows(
    table: SourceTable,
    looking: Looking,
    row: dict[str, str],
    source: str,
    texts: Looking | None = None,
) -> Staged:
    """
    The statement for rows of candidates: *row* has what is known of ids and query by now, and
    *texts* is where texts are looked for, if not where all else is.
    """
    fields = text_fields(table)
    mark = f"{table.documents}."
    carried = tuple(name.removeprefix(mark) for name in table.carry)
    for name in fields:
        row.setdefault(name, (texts or looking).column("text", name))
    for name in carried:
        row.setdefault(name, looking.column("carry", name))
    order = [looking.column("group_order", name) for name in table.group_order]
    best = looking.best(table)
    for each in filter(None, (texts, looking)):
        each.end()
    first = [*order, f"CAST({row['query_id']} AS VARCHAR)", *best]
    rest = [expression for name, expression in row.items() if name != "query_id"]
    columns = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in row.items())
    by = ", ".join(dict.fromkeys((*first, *rest)))
    sql = f"SELECT {columns}\nFROM {source}\nORDER BY {by}"
    return Staged(sql, False, _reading(table, row, fields, carried), looking.name)


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
