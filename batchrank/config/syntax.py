"""
From the text of a job file to its tables, or to what keeps it from being TOML, in plain words.

Owns the wording of tomllib's findings. Never repeats a line: somebody's key may stand in it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

from batchrank.config.lines import Lines
from batchrank.config.wording import dotted
from batchrank.errors import Problem

_TWICE = r"Cannot (declare|overwrite|mutate|redefine)|Duplicate inline"
_WORDS: tuple[tuple[str, str, str], ...] = (
    (
        r"(Illegal|invalid) character '\\[nr]'|Unterminated string|Expected [\"']+$",
        "a quotation mark opens a text here that is not closed",
        'close it; a text of several lines stands between """ and """',
    ),
    (
        "(Illegal|invalid) character",
        "holds a control character",
        r"in double quotes a tab is \t, any other is \u and four digits",
    ),
    (
        r"Unescaped|Invalid hex value|scalar value",
        "a \\ in double quotes means something, and what follows this one means nothing",
        "write it twice, or put the text in single quotes",
    ),
    ("Invalid date", "this is no date or time that exists", "a date is written 2026-11-20"),
    (
        "Invalid value",
        "no value stands behind the = or in the list",
        "text goes in quotes; numbers, true, false and dates go without",
    ),
    (
        "Unclosed array",
        "a list is not closed by ], or lacks a comma between two values",
        'as in ["a", "b"]',
    ),
    (
        "inline table",
        "a { table } is not closed by } in its line, or lacks a comma between two settings",
        "as in { count = 50, per_s = 10 }",
    ),
    (
        "Invalid initial character",
        "no key stands where one should",
        "other characters than letters, digits, _ and - go in quotes; a { table } is one line",
    ),
    ("Expected '\\]", "the name of a table is not closed by ]", "as in [source]"),
    (
        "Expected newline",
        "something stands behind the value",
        "one setting a line; text, times and durations go in quotes",
    ),
    ("Invalid statement|after a key", "this is neither KEY = VALUE, nor [TABLE], nor # words", ""),
    ("Exceeds the limit", "a number has thousands of digits", ""),
)
"""By what tomllib says: what that means, and what to write."""


def tables(text: str) -> dict[str, Any] | Problem:
    """
    The tables of a TOML text; else the first thing that is wrong, for TOML has no second.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        return Problem(0, "", "not TOML: lists or tables lie too deep in each other")
    except ValueError as error:  # also of a number with thousands of digits
        return _problem(text, str(error))


def _problem(text: str, said: str) -> Problem:
    if text.startswith("\ufeff"):
        return Problem(1, "", "not TOML: begins with a byte order mark", "save it without one")
    match = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", said)
    line = 0
    if match:
        said = said[: match.start()]
        line = int(match[1] or text.count("\n") + 1)
    if re.match(_TWICE, said):
        return _twice(text, line)
    for pattern, words, remedy in _WORDS:
        if re.search(pattern, said):
            return Problem(_opening(text, line, said), "", f"not TOML: {words}", remedy)
    return Problem(line, "", f"not TOML: {said}")


def _opening(text: str, line: int, said: str) -> int:
    """
    Where a text of several lines begins that goes on to the end; else *line*.
    """
    marks = '"""' if said == "Unterminated string" else said.removeprefix("Expected ").strip('"')
    goes_on = text.count(marks) % 2 if marks == '"""' else marks in ("'", "'''")
    return text.count("\n", 0, text.rindex(marks)) + 1 if goes_on else line


def _twice(text: str, line: int) -> Problem:
    """
    Name what stands twice, if the text up to there tells it.
    """
    try:
        again = Lines("\n".join(text.split("\n")[:line])).again
    except (ValueError, IndexError):  # the rest of that line is no TOML either
        again = None
    if again is None:
        message = "a key stands twice, or is a value in one place and a table in another"
        return Problem(line, "", message, "keep one")
    path, place, first = again
    return Problem(place, dotted(path), f"stands twice, first in line {first}", "keep one")
