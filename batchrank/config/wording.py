"""
What is wrong with a job file, in a person's words: the key, what was expected, the nearest key.

Owns the wording of pydantic's findings. Never repeats a value into which people paste a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from batchrank.config.lines import Lines, Path
from batchrank.errors import Problem

_KEY_LIKE = re.compile(
    r"key|token|(.*[_-])?(api[_-]?key|(access|auth)[_-]?token|secret|password|bearer|authorization)",
    re.IGNORECASE,
)
"""Names under which people write the key itself."""

_UNSPOKEN: frozenset[Path] = frozenset({("provider", "key_env"), ("provider", "key_file")})
"""Settings into which people paste the key itself: their values are never repeated."""


def problems_in(
    error: ValidationError, prefix: Path, model: type[BaseModel], lines: Lines
) -> Iterator[Problem]:
    """
    Say each of pydantic's findings; *prefix* is where *model* stands in the job file.
    """
    for found in error.errors(include_url=False):
        path = prefix
        for step in found["loc"]:
            if not _is_branch(step) and not (_is_class(step) and (*path, step) not in lines):
                path = (*path, step)
        yield Problem(lines.of(path), dotted(path), *_words(dict(found), path, model, prefix))


def _is_branch(step: object) -> bool:
    """
    Tell pydantic's names of union members (`float`, `AnyPeriod`) from keys of the file.
    """
    return isinstance(step, str) and bool(
        re.search(r"[\[(]|^(str|int|float|bool|dict|list)$", step)
    )


def _is_class(step: object) -> bool:
    """
    Tell what may be pydantic's name of a table in a union (`SortBy`); a label may be called so too.
    """
    return isinstance(step, str) and bool(re.fullmatch("[A-Z][A-Za-z]+", step))


def _words(
    found: dict[str, Any], path: Path, model: type[BaseModel], prefix: Path
) -> tuple[str, str]:
    kind, key = found["type"], str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        if _KEY_LIKE.fullmatch(key):
            return "a key never stands in a job file", "name it with provider.key_env or key_file"
        return "unknown key", _nearest_key(path, model, prefix)
    if kind == "missing":
        field = _field(model, path[len(prefix) :])
        return "is missing", f"expected {field}" if field else ""
    if kind == "value_error":
        return str(found["ctx"]["error"]), ""
    expected = re.sub(r"^(Input|String|Value) should ", "should ", found["msg"])
    given = found.get("input")
    spoken = path not in _UNSPOKEN and isinstance(given, str | int | float | bool)
    return f"is {str(given)[:60]!r}, {expected}" if spoken else expected, ""


def nearest(name: str, known: Iterable[str]) -> str:
    """
    Propose the nearest known name, or nothing.
    """
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {near[0]}?" if near else ""


def _nearest_key(path: Path, model: type[BaseModel], prefix: Path) -> str:
    """
    Propose the nearest key of the same table, else of any table.
    """
    name = str(path[-1])
    every = {".".join((*map(str, prefix), *p)): p[-1] for p in _keys(model)}
    table = ".".join(map(str, path[:-1]))
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
            yield from _keys(table, (*above, name))


def _field(model: type[BaseModel], path: Path) -> str:
    """
    What the field at *path* is, in the schema's words.
    """
    at: type[BaseModel] | None = model
    for step in path[:-1]:
        at = _tables(at, str(step)) if at else None
    field = at.model_fields.get(str(path[-1])) if at else None
    if field is None:
        return ""
    table = _tables(at, str(path[-1])) if at else None
    return field.description or (f"a table [{dotted(path)}]" if table else "")


def dotted(path: Path) -> str:
    """
    A path as a person writes it: `limits.requests`, `carry[1]`.
    """
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(
        "."
    )
