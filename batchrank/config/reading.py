"""
From the text of a job file to a `JobConfig`, or to every problem in it at once.

Owns variables and the order of checks. Nothing is read or contacted here: the text, the time and
the vendors' option models are arguments.
"""

from __future__ import annotations

import re
import string
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ValidationError

from batchrank.config.lines import Lines, Path
from batchrank.config.schema import AT_LEAST_ONE, AT_MOST_ONE, JobConfig
from batchrank.config.wording import dotted, nearest, problems_in
from batchrank.errors import JobError, Problem

OptionModels = Mapping[str, type[BaseModel]]
"""The vendors' own request fields: provider name → model of `[provider.options]`."""


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
    raw = _toml(text, where)
    lines = Lines(text)
    problems: list[Problem] = []
    filled = _fill(raw, now, dict(overrides or {}), lines, problems)
    filled.setdefault("name", _name_from(where))
    job = _validate(filled, lines, problems)
    problems += _company_problems(filled, lines)
    problems += _option_problems(filled, option_models, lines)
    if problems or job is None:
        raise JobError(where, sorted(set(problems), key=lambda p: (p.line, p.key)))
    return job


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(match[1]) if match else text.count("\n") + 1
        message = re.sub(r" \(at .*\)$", "", str(error))
        raise JobError(where, [Problem(line, "", f"not TOML: {message}")]) from None


def _name_from(where: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(where).stem).strip("-._")
    return stem or "job"


def _validate(filled: dict[str, Any], lines: Lines, problems: list[Problem]) -> JobConfig | None:
    try:
        return JobConfig.model_validate(filled)
    except ValidationError as error:
        problems += problems_in(error, (), JobConfig, lines)
        return None


def _company_problems(filled: Mapping[str, Any], lines: Lines) -> Iterator[Problem]:
    """
    Find keys that exclude each other, and tables that need one of several keys.
    """
    for path, keys in AT_MOST_ONE.items():
        given = [key for key in keys if key in _table_at(filled, path)]
        if len(given) > 1:
            message = f"{' and '.join(given)} exclude each other"
            yield Problem(lines.of((*path, given[1])), dotted(path), message, "keep one")
    for path, keys in AT_LEAST_ONE.items():
        if (table := _table_at(filled, path)) and not any(key in table for key in keys):
            yield Problem(lines.of(path), dotted(path), f"expected {' or '.join(keys)}")


def _table_at(filled: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    table: Any = filled
    for step in path:
        table = table.get(step) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else {}


def _option_problems(
    filled: Mapping[str, Any], option_models: OptionModels, lines: Lines
) -> Iterator[Problem]:
    provider = filled.get("provider")
    name = provider.get("name") if isinstance(provider, dict) else None
    if not isinstance(provider, dict) or not isinstance(name, str):
        return
    if name not in option_models:
        near = nearest(name, option_models)
        remedy = near or f"known are {', '.join(sorted(option_models))}"
        yield Problem(
            lines.of(("provider", "name")),
            "provider.name",
            f"no provider is called {name!r}",
            remedy,
        )
        return
    options = provider.get("options", {})
    if isinstance(options, dict):
        try:
            option_models[name].model_validate(options)
        except ValidationError as error:
            yield from problems_in(error, ("provider", "options"), option_models[name], lines)


_LITERAL: frozenset[Path] = frozenset({("source", "template")})
"""Braces in these settings mean fields of a document, not variables."""


def _fill(
    raw: dict[str, Any],
    now: datetime,
    overrides: dict[str, str],
    lines: Lines,
    problems: list[Problem],
) -> dict[str, Any]:
    """
    Put the variables' values in; what cannot be filled is a problem and stays as it is.
    """
    values = _variables(raw, now, overrides, problems)

    def fill(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item, (*path, place)) for place, item in enumerate(value)]
        if isinstance(value, str):
            if path not in _LITERAL:
                value = _fill_one(value, values, path, lines, problems)
            if "\0" in value:
                message = "holds a zero character, which no path or name can"
                problems.append(Problem(lines.of(path), dotted(path), message))
        return value

    return {k: v if k == "variables" else fill(v, (k,)) for k, v in raw.items()}


def _variables(
    raw: Mapping[str, Any], now: datetime, overrides: dict[str, str], problems: list[Problem]
) -> dict[str, str]:
    zone = raw.get("time_zone", "UTC")
    known = isinstance(zone, str) and zone in available_timezones()
    today = now.astimezone(ZoneInfo(zone if known else "UTC")).date()
    values = {"date": today.isoformat(), "yesterday": (today - timedelta(days=1)).isoformat()}
    own = raw.get("variables", {})
    if isinstance(own, dict):
        values |= {name: value for name, value in own.items() if isinstance(value, str)}
    for name in overrides.keys() - values.keys():
        remedy = nearest(name, values) or f"the job file's are {', '.join(sorted(values))}"
        problems.append(Problem(0, f"--set {name}", "the job file has no such variable", remedy))
    return values | overrides


def _fill_one(
    text: str, values: Mapping[str, str], path: Path, lines: Lines, problems: list[Problem]
) -> str:
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError:
        message = "has a brace without its partner; a literal brace is written twice: {{ or }}"
        problems.append(Problem(lines.of(path), dotted(path), message))
        return text
    filled, before = [], len(problems)
    for literal, name, form, conversion in pieces:
        filled.append(literal)
        if name is None:
            continue
        if form or conversion:
            message = f"{{{name}}} is filled in as it is: no format can follow it"
            problems.append(Problem(lines.of(path), dotted(path), message, f"write {{{name}}}"))
        elif name not in values:
            remedy = nearest(name, values) or "declare it under [variables]"
            message = f"no variable is called {{{name}}}"
            problems.append(Problem(lines.of(path), dotted(path), message, remedy))
        filled.append(values.get(name, ""))
    return "".join(filled) if len(problems) == before else text
