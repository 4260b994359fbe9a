"""
What is wrong with a job file, in a person's words: the key, what was expected, the nearest key.

Owns which of pydantic's findings are told, and the nearest key. Never repeats a value into which
people paste a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from batchrank.config.lines import Lines, Path
from batchrank.config.values import expected, nearest, shown, written
from batchrank.errors import Problem

_KEY_LIKE = re.compile(
    r"key|token|(.*[_-])?(api[_-]?key|(access|auth)[_-]?token|secret|password|bearer|authorization)",
    re.IGNORECASE,
)
"""Names under which people write the key itself."""

_UNSPOKEN: frozenset[Path] = frozenset(
    (*table, key)
    for table in (("provider",), ("provider", "fallbacks"))
    for key in ("key_env", "key_file", "key_command")
)
"""Settings into which people paste the key itself: their values are never repeated."""

_ATTACH: Path = ("source", "attach")
"""The table of tables into which people paste a connection string, wherever it may fit."""

_ALIAS = "ALIAS"
"""Stands for any name of a table among those that a table holds."""


def problems_in(
    error: ValidationError, prefix: Path, model: type[BaseModel], lines: Lines
) -> Iterator[Problem]:
    """
    Say each of pydantic's findings; *prefix* is where *model* stands in the job file.
    """
    found: dict[Path, list[dict[str, Any]]] = {}
    alternatives: set[Path] = set()
    for finding in error.errors(include_url=False):
        path = prefix
        for step in finding["loc"]:
            if (*path, step) not in lines and (_is_branch(step) or _is_class(step)):
                alternatives.add(path)
            else:
                path = (*path, step)
        found.setdefault(path, []).append(dict(finding))
    for path, findings in found.items():
        # Of a table that could also be a word, only what is wrong in the table is of interest.
        inside = any(len(at) > len(path) and at[: len(path)] == path for at in found)
        if not (path in alternatives and inside):
            yield Problem(lines.of(path), dotted(path), *_words(findings, path, model, prefix))


def _is_branch(step: object) -> bool:
    """
    Tell pydantic's names of alternatives (`float`, `literal[...]`) from keys of the file.
    """
    return isinstance(step, str) and bool(
        re.search(r"[\[(]|^(constrained-)?(str|int|float|bool|dict|list)$", step)
    )


def _is_class(step: object) -> bool:
    """
    Tell what may be pydantic's name of a table among alternatives (`SortBy`).
    """
    return isinstance(step, str) and bool(re.fullmatch("[A-Z][A-Za-z]+", step))


def _words(
    findings: Sequence[dict[str, Any]], path: Path, model: type[BaseModel], prefix: Path
) -> tuple[str, str]:
    found = findings[0]
    kind, key = found["type"], str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        if _KEY_LIKE.fullmatch(key):
            remedy = "name it with provider.key_env or key_file"
            if path[:2] == _ATTACH:
                remedy = "name the variable that holds the connection string in dsn_env"
            return "a key never stands in a job file", remedy
        return "unknown key", _nearest_key(path, model, prefix)
    field = _described(model, path[len(prefix) :]) if path != prefix else ""
    unspoken = _without_places(path) in _UNSPOKEN or path[:2] == _ATTACH
    if kind == "missing":
        return "is missing", f"expected {field or f'a table [{dotted(path)}]'}"
    if kind == "value_error":
        said = str(found["ctx"]["error"])
        speak = not unspoken and said.startswith("expected ")
        return f"is {shown(found['input'])}, {said}" if speak else said, ""
    wanted = f"expected {expected(findings)}"
    if unspoken:
        return wanted, field
    return f"is {shown(found['input'])}, {wanted}", written(findings, dotted(path)) or field


def _nearest_key(path: Path, model: type[BaseModel], prefix: Path) -> str:
    """
    Propose the nearest key of the same table, else of any table.
    """
    name = str(path[-1])
    every = {".".join((*_without_places(prefix), *p)): p[-1] for p in _keys(model)}
    table = ".".join(_without_name(path[:-1]))
    here = {short for full, short in every.items() if full.rpartition(".")[0] == table}
    if near := nearest(name, here):
        return near
    if close := difflib.get_close_matches(name, every.values(), 1, 0.75):
        full = next(full for full, short in every.items() if short == close[0])
        return f"did you mean {full}?"
    return f"known here: {', '.join(sorted(here))}" if here else ""


def _tables(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """
    The model of the table that the field *name* holds, if it holds one.
    """
    if name not in model.model_fields:
        return None
    annotation = model.model_fields[name].annotation
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)


def _keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in model.model_fields:
        yield (*above, name)
        if table := _tables(model, name):
            alias = (_ALIAS,) if _holds_many(model, name) else ()
            yield from _keys(table, (*above, name, *alias))


def _without_places(path: Path) -> tuple[str, ...]:
    """
    *path* as `_keys` has it: wherever in a list a table stands.
    """
    return tuple(step for step in path if isinstance(step, str))


def _without_name(path: Path) -> tuple[str, ...]:
    """
    *path* as `_keys` has it: whatever somebody called a table there, or wherever it stands.
    """
    steps = _without_places(path)
    named = steps[:2] == _ATTACH and len(steps) > len(_ATTACH)
    return ("source", "attach", _ALIAS, *steps[3:]) if named else steps


def _holds_many(model: type[BaseModel], name: str) -> bool:
    """
    Tell whether the field *name* holds tables under names of their own.
    """
    return get_origin(model.model_fields[name].annotation) is dict


def _described(model: type[BaseModel], path: Path) -> str:
    """
    What the field at *path* is, in the schema's words, if it has any.
    """
    at: type[BaseModel] | None = model
    for step in _without_name(path)[:-1]:
        at = at if step == _ALIAS else _tables(at, str(step)) if at else None
    field = at.model_fields.get(str(path[-1])) if at else None
    return (field.description if field else None) or ""


def dotted(path: Path) -> str:
    """
    A path as a person writes it: `limits.requests`, `carry[1]`.
    """
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(
        "."
    )
