"""
From the text of a job file to a `JobConfig`, or to every problem in it at once.

Owns the order of checks, and those that look at several settings. Nothing is read or contacted
here: the text, the time and the vendors' option models are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ValidationError

from batchrank.config.lines import Lines, Path
from batchrank.config.schema import (
    AT_LEAST_ONE,
    AT_MOST_ONE,
    TOGETHER,
    JobConfig,
    LimitsTable,
    RunTable,
)
from batchrank.config.syntax import tables
from batchrank.config.times import duration_s
from batchrank.config.values import nearest, shown
from batchrank.config.variables import filled, on_earlier_days
from batchrank.config.wording import dotted, problems_in
from batchrank.errors import JobError, Problem

OptionModels = Mapping[str, type[BaseModel]]
"""The vendors' own request fields: provider name → model of `[provider.options]`."""

EARLIER_DAYS = 366
"""So far back an earlier output is looked for: a year, leap years included."""


def parse(
    text: str,
    *,
    where: str,
    now: datetime,
    option_models: OptionModels,
    overrides: Mapping[str, str] | None = None,
) -> JobConfig:
    """
    Read the job file *text*, called *where* in messages.

    *now* (aware) gives `{date}`, *overrides* are what `--set` says, *option_models* the vendors'
    request fields.

    Raises:
        JobError: with every problem that was found, in the order of lines.
    """
    raw = tables(text)
    if isinstance(raw, Problem):
        raise JobError(where, [raw])
    lines = Lines(text)
    problems: list[Problem] = []
    settings = filled(raw, now, overrides or {}, lines, problems)
    settings.setdefault("name", _name_from(where))
    job = _validate(settings, lines, problems)
    problems += _company_problems(settings, lines)
    problems += _option_problems(settings, option_models, lines)
    problems += _attach_problems(settings, lines)
    problems += _concurrency_problems(settings, lines)
    problems += _run_problems(settings, lines)
    if problems or job is None:
        raise JobError(where, sorted(set(problems), key=lambda p: (p.line, p.key)))
    return job


def earlier_outputs(text: str, now: datetime, overrides: Mapping[str, str]) -> list[str]:
    """
    What `output.path` of the job file *text*, which is valid, is on the days before its `{date}`,
    the newest first; its own where it is the same on all days, none if `{date}` is not a day.
    """
    raw = tables(text)
    assert not isinstance(raw, Problem), "the file is valid"
    paths = on_earlier_days(("output", "path"), raw, now, overrides, EARLIER_DAYS)
    return list(dict.fromkeys(paths))


def _name_from(where: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(where).stem).strip("-._")
    return stem or "job"


def _validate(settings: dict[str, Any], lines: Lines, problems: list[Problem]) -> JobConfig | None:
    try:
        return JobConfig.model_validate(settings)
    except ValidationError as error:
        problems += problems_in(error, (), JobConfig, lines)
        return None


def _company_problems(settings: Mapping[str, Any], lines: Lines) -> Iterator[Problem]:
    """
    Find keys that exclude each other, and tables that need one of several keys.
    """
    for path, keys in (*AT_MOST_ONE, *_at_most_one_of_fallbacks(settings)):
        table = _table_at(settings, path)
        given = [key for key in keys if table.get(key, False) is not False]
        if len(given) > 1:
            message = f"{' and '.join(given)} exclude each other"
            yield Problem(lines.of((*path, given[1])), dotted(path), message, "keep one")
    for path, keys in (*AT_LEAST_ONE.items(), *_priced_fallbacks(settings)):
        table = _table_at(settings, path)
        there = table or path[-1] in _table_at(settings, path[:-1])
        if there and not any(key in table for key in keys):
            yield Problem(lines.of(path), dotted(path), f"expected {' or '.join(keys)}")
    for path, key, others in TOGETHER:
        table = _table_at(settings, path)
        if table.get(key, False) is not False and not any(other in table for other in others):
            message = f"{key} needs {' or '.join(others)} beside it"
            yield Problem(lines.of((*path, key)), dotted((*path, key)), message)


def _fallbacks(settings: Mapping[str, Any]) -> list[Path]:
    """
    Where the tables of further ways stand.
    """
    held = _table_at(settings, ("provider",)).get("fallbacks")
    count = len(held) if isinstance(held, list) else 0
    return [("provider", "fallbacks", place) for place in range(count)]


def _at_most_one_of_fallbacks(
    settings: Mapping[str, Any],
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """
    What excludes each other in a way's own tables does so in a further one's.
    """
    for at in _fallbacks(settings):
        for path, keys in AT_MOST_ONE:
            if path[0] in ("provider", "limits"):
                yield ((*at, *(path if path[0] == "limits" else path[1:])), keys)


def _priced_fallbacks(settings: Mapping[str, Any]) -> Iterator[tuple[Path, tuple[str, ...]]]:
    for at in _fallbacks(settings):
        yield (*at, "price"), AT_LEAST_ONE["provider", "price"]


def _table_at(settings: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    table: Any = settings
    for step in path:
        if isinstance(table, list) and isinstance(step, int) and step < len(table):
            table = table[step]
        else:
            table = table.get(step) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _option_problems(
    settings: Mapping[str, Any], option_models: OptionModels, lines: Lines
) -> Iterator[Problem]:
    for at in (("provider",), *_fallbacks(settings)):
        yield from _option_problems_of(_table_at(settings, at), at, option_models, lines)


def _option_problems_of(
    provider: Mapping[str, Any], at: Path, option_models: OptionModels, lines: Lines
) -> Iterator[Problem]:
    name = provider.get("name")
    if not isinstance(name, str):
        return
    if name not in option_models:
        near = nearest(name, option_models)
        remedy = near or f"known are {', '.join(sorted(option_models))}"
        yield Problem(
            lines.of((*at, "name")),
            dotted((*at, "name")),
            f"no provider is called {shown(name)}",
            remedy,
        )
        return
    options = provider.get("options", {})
    if isinstance(options, dict):
        try:
            option_models[name].model_validate(options)
        except ValidationError as error:
            yield from problems_in(error, (*at, "options"), option_models[name], lines)


_TAKEN = frozenset({"information_schema", "main", "memory", "pg_catalog", "system", "temp"})
"""Names that DuckDB has itself."""


def _attach_problems(settings: Mapping[str, Any], lines: Lines) -> Iterator[Problem]:
    """
    Find attached databases whose name is taken, or whose place is not told as their type wants it.
    """
    source = _table_at(settings, ("source",))
    database = source.get("database")
    taken = {*_TAKEN, PurePosixPath(database).stem.lower() if isinstance(database, str) else ""}
    for alias, table in _table_at(settings, ("source", "attach")).items():
        path = ("source", "attach", alias)
        if alias.lower() in taken:
            message = "is what another database is called already, in large or small letters"
            yield Problem(lines.of(path), dotted(path), message, "choose another name")
        taken.add(alias.lower())
        if isinstance(table, dict):
            yield from _place_problems(table, path, lines)


def _place_problems(table: Mapping[str, Any], path: Path, lines: Lines) -> Iterator[Problem]:
    wanted = {"duckdb": "path", "sqlite": "path", "postgres": ""}.get(str(table.get("type")))
    if wanted is None:
        return  # told with the whole
    other = {"path": "dsn_env", "": "path"}[wanted]
    if other in table:
        at = (*path, other)
        message = f"is not for type {shown(table['type'])}"
        remedy = "name its file as path" if wanted else "name the variable that holds it in dsn_env"
        yield Problem(lines.of(at), dotted(at), message, remedy)
    elif wanted and wanted not in table:
        yield Problem(lines.of(path), dotted(path), "path is missing", "expected its file")
    elif "://" in str(table.get("path", "")):
        at = (*path, "path")
        yield Problem(lines.of(at), dotted(at), "is no file of this machine", "copy it here")


def _concurrency_problems(settings: Mapping[str, Any], lines: Lines) -> Iterator[Problem]:
    """
    Find a fixed concurrency above the most that the job allows; the most by default binds only what
    is found out.
    """
    for at in (("limits",), *((*path, "limits") for path in _fallbacks(settings))):
        try:
            limits = LimitsTable.model_validate(_table_at(settings, at))
        except ValidationError:
            continue  # told with the whole
        fixed, most = limits.concurrency_fixed, limits.concurrency_max
        if fixed is not None and "concurrency_max" in limits.model_fields_set and fixed > most:
            yield Problem(
                lines.of((*at, "concurrency")),
                dotted((*at, "concurrency")),
                f"is {fixed}, and concurrency_max allows {most}",
                "keep one of them, or lower this one",
            )


def _run_problems(settings: Mapping[str, Any], lines: Lines) -> Iterator[Problem]:
    """
    Find a deadline that leaves no time for anything but draining.
    """
    try:
        run = RunTable.model_validate(settings.get("run", {}))
    except ValidationError:
        return  # told with the whole
    seconds = duration_s(run.deadline or "")
    if seconds is not None and seconds <= run.drain_s_max:
        kept = f"its last {run.drain_s_max:g} s (run.drain_s_max) are kept for calls under way"
        yield Problem(
            lines.of(("run", "deadline")),
            "run.deadline",
            f"is {shown(run.deadline)}, and {kept}: nothing would ever be sent",
            "expected a longer duration, or a time of day",
        )
