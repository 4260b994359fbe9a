"""
How a value is shown, and what was expected in its place, in a person's words.

Owns what pydantic's kinds of findings mean to somebody who writes TOML. Knows no settings.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from functools import cache
from typing import Any
from zoneinfo import available_timezones

time_zones = cache(available_timezones)
"""The names of time zones: found once, because that takes milliseconds, and days are many."""

_CHARACTERS_MAX = 60
_DIGITS_MAX = 1000


def shown(value: object) -> str:
    """
    *value* as TOML writes it, cut where it is long; lists and tables are only named.
    """
    match value:
        case str():
            cut = value if len(value) <= _CHARACTERS_MAX else value[:_CHARACTERS_MAX] + "…"
            quoted = json.dumps(cut, ensure_ascii=False)
            return "".join(c if c.isprintable() else f"\\u{ord(c):04X}" for c in quoted)
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > _DIGITS_MAX:
            return "a number of very many digits"
        case date() | time():
            return value.isoformat()
        case list() | tuple():
            return "a list"
        case Mapping():
            return "a table"
    return str(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """
    Propose the nearest known name, or nothing.
    """
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"did you mean {near[0]}?" if near else ""


_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "string_too_short": "something between the quotes",
    "string_too_long": "at most {max_length} characters",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a number other than inf and nan",
    "bool_type": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "date_type": "a date, as in 2026-11-20",
    "tuple_type": 'a list, as in ["a", "b"]',
    "too_long": "at most {max_length} of them",
    "dict_type": "a table",
    "model_type": "a table",
}
_PATTERNS: Mapping[str, str] = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": "letters, digits, dots, _ and -, a letter or digit first",
    r"^[A-Za-z][A-Za-z0-9_]*$": "letters, digits and _, a letter first",
    r"^[a-z0-9]+(-[a-z0-9]+)*$": "small letters and digits, with single hyphens between them",
}
_BARE: Mapping[str, str] = {
    "int_type": r"[+-]?[0-9]+",
    "float_type": r"[+-]?[0-9]+([.][0-9]+)?",
    "bool_type": "true|false",
    "date_type": "[0-9]{4}-[0-9]{2}-[0-9]{2}",
}
"""By kind: which texts would have been right without their quotes."""


def expected(findings: Sequence[Mapping[str, Any]]) -> str:
    """
    What was expected at one place; several findings are the alternatives that it had.
    """
    words = list(dict.fromkeys(map(_expected, findings)))
    return (", or " if any("," in word for word in words) else " or ").join(words)


def _expected(found: Mapping[str, Any]) -> str:
    kind, facts = found["type"], found.get("ctx", {})
    if kind == "literal_error":
        return str(facts["expected"]).replace("'", '"')
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(facts["pattern"], f"text of the form {facts['pattern']}")
    if kind == "string_type" and isinstance(found["input"], list | dict):
        return "one text in quotes"
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**{name: _round(value) for name, value in facts.items()})
    return re.sub(r"^(Input|String|Value) should ", "it to ", found["msg"])


def _round(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def written(findings: Sequence[Mapping[str, Any]], key: str) -> str:
    """
    How what was given for *key* has to be written instead, if that can be told.
    """
    for found in findings:
        kind, given = found["type"], found["input"]
        if kind == "model_type" and isinstance(given, list):
            return f"write [{key}], in single brackets"
        if kind == "string_type" and not isinstance(given, list | dict):
            return f"put it in quotes: {shown(_as_text(given))}"
        if kind in _BARE and isinstance(given, str) and re.fullmatch(_BARE[kind], given):
            return f"without quotes: {given[:_CHARACTERS_MAX]}"
        if kind == "literal_error" and isinstance(given, str):
            known = re.findall("'([^']*)'", found["ctx"]["expected"])
            if near := nearest(given, known):
                return near
    return ""


def _as_text(given: object) -> str:
    """
    A value that should have been a text, as its text: a time of day without seconds.
    """
    if isinstance(given, time) and not (given.second or given.microsecond):
        return given.isoformat("minutes")
    return shown(given)
