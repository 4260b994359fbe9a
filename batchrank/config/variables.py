"""
Variables: what `{date}` and the job's own stand for, and where they are filled in.

Owns which value goes before which: `--set`, then the job file, then the day that it is; and which
settings are paths, in whose folders a value is a name. Every mistake is a problem with its line;
what cannot be filled stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from batchrank.config.braces import pieces
from batchrank.config.lines import Lines, Path
from batchrank.config.segments import path_of
from batchrank.config.values import nearest, shown, time_zones
from batchrank.config.wording import dotted
from batchrank.errors import Problem

LITERAL: frozenset[Path] = frozenset({("source", "template")})
"""Braces in these settings mean fields of a document, not variables."""

PATHS: frozenset[Path] = frozenset(
    {
        *(("source", key) for key in ("path", "run", "queries", "corpus", "database")),
        *(("source", key) for key in ("sql_file", "reads", "attach")),
        *(("output", key) for key in ("path", "state", "reuse")),
        ("provider", "key_file"),
    }
)
"""Settings that are paths, or hold some: a value there leads nowhere but where it stands."""

_FALLBACKS: Path = ("provider", "fallbacks")

_DAYS = ("date", "yesterday")
"""The variables that are always there."""


def filled(
    raw: Mapping[str, Any],
    now: datetime,
    overrides: Mapping[str, str],
    lines: Lines,
    problems: list[Problem],
) -> dict[str, Any]:
    """
    Put the variables' values into a job file's settings; adds to *problems* what cannot be filled.
    """
    variables = _Variables(raw, now, overrides, lines, problems)

    def fill(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [fill(item, (*path, place)) for place, item in enumerate(value)]
        if isinstance(value, str):
            if path not in LITERAL:
                value = variables.fill(value, path)
            if "\0" in value:
                message = "holds a zero character, which no path or name can"
                problems.append(Problem(lines.of(path), dotted(path), message))
        return value

    return {k: v if k == "variables" else fill(v, (k,)) for k, v in raw.items()}


def on_earlier_days(
    path: Path,
    raw: Mapping[str, Any],
    now: datetime,
    overrides: Mapping[str, str],
    days: int,
) -> Iterator[str]:
    """
    What the text at *path* in a job file without problems would be on each of the *days* before its
    `{date}`, the newest first; nothing if `{date}` is not a day.
    """
    lines = Lines("")
    day = _day_before(_Variables(raw, now, overrides, lines, []).fill("{date}", ()))
    for _ in range(days):
        if day is None:
            return
        then = _Variables(raw, now, {**overrides, "date": day}, lines, [])
        yield then.fill(_at(raw, path), path)
        day = _day_before(day)


def _at(raw: Any, path: Path) -> str:
    for step in path:
        raw = raw[step]
    return str(raw)


class _Variables:
    """
    The variables of one job file, found one after the other: `date`, `yesterday`, then the others
    in their order. So a value may name those before it, and nothing goes round in a circle.

    What cannot be found is told once and is None; what names it stays as it is.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        now: datetime,
        overrides: Mapping[str, str],
        lines: Lines,
        problems: list[Problem],
    ) -> None:
        own = raw.get("variables", {})
        self._own: dict[str, Any] = own if isinstance(own, dict) else {}
        self._overrides = overrides
        self._lines = lines
        self._problems = problems
        self._known = {*_DAYS, *self._own}
        today = _today(raw.get("time_zone"), now)
        # While `date` itself is found, these are the clock's: date = "{yesterday}" has a meaning.
        self._values: dict[str, str | None] = {
            "date": today.isoformat(),
            "yesterday": _day_before(today.isoformat()),
        }
        self._refuse_strangers()
        self._find("date")
        self._values["yesterday"] = _day_before(self._values["date"])
        for name in ("yesterday", *self._own):
            if name != "date":
                self._find(name)

    def fill(self, text: str, path: Path) -> str:
        """
        *text*, which stands at *path*, with its variables filled in.
        """
        whole = self._filled(text, path)
        return text if whole is None else whole

    def _filled(self, text: str, path: Path) -> str | None:
        whole: list[tuple[str | None, bool]] = []
        try:
            for literal, name, formatted in pieces(text):
                whole.append((literal, False))
                if name is not None:
                    whole.append((self._named(name, path, formatted=formatted), True))
            filled = [(piece, is_value) for piece, is_value in whole if piece is not None]
            if len(filled) < len(whole):
                return None
            return path_of(filled) if _is_a_path(path) else "".join(piece for piece, _ in filled)
        except ValueError as error:
            self._say(path, str(error))
            return None

    def _named(self, name: str, path: Path, *, formatted: bool) -> str | None:
        """
        What `{name}` at *path* stands for.
        """
        if wrong := self._wrong(name, formatted=formatted):
            self._say(path, *wrong)
            return None
        return self._values[name]

    def _wrong(self, name: str, *, formatted: bool) -> tuple[str, str] | None:
        """
        Why `{name}` cannot be filled in, and what to do; None if it can, or if that was told.
        """
        if formatted:
            message = f"{{{name}}} is filled in as it is: no format can follow it"
            return message, f"write {{{name}}}"
        if name not in self._known:
            remedy = nearest(name, self._known) or "declare it under [variables]"
            return f"no variable is called {{{name}}}", remedy
        if name not in self._values:
            order = "variables are found in their order here, date and yesterday first"
            return f"{{{name}}} is not known yet", order
        day = self._values["date"]
        if name == "yesterday" and self._values[name] is None and not self._given(name) and day:
            message = f"{{yesterday}} is the day before {{date}}, and that is {shown(day)}"
            return message, "set yesterday too, or date to a day such as 2026-11-20"
        return None

    # --- finding ----------------------------------------------------------------------------------

    def _given(self, name: str) -> bool:
        return name in self._overrides or name in self._own

    def _find(self, name: str) -> None:
        """
        Find what was given for *name*, if anything was.
        """
        path = ("variables", name)
        if name in self._overrides:  # as it is: whoever sets it can fill it
            value: str | None = self._overrides[name]
            key, line = f"--set {name}", 0
        elif name in self._own:
            own = self._own[name]  # what is no text, the schema refuses
            value = self._filled(own, path) if isinstance(own, str) else None
            key, line = dotted(path), self._lines.of(path)
        else:
            return
        if name in _DAYS and value and re.fullmatch(_DAY, value) and _read_day(value) is None:
            message = f"is {shown(value)}, and no calendar has that day"
            self._problems.append(Problem(line, key, message, "expected a day, as in 2026-11-20"))
            value = None
        self._values[name] = value

    # --- what is wrong ----------------------------------------------------------------------------

    def _refuse_strangers(self) -> None:
        for name in self._overrides.keys() - self._known:
            known = ", ".join(sorted(self._known))
            remedy = nearest(name, self._known) or f"the job file's are {known}"
            message = "the job file has no such variable"
            self._problems.append(Problem(0, f"--set {name}", message, remedy))

    def _say(self, path: Path, message: str, remedy: str = "") -> None:
        self._problems.append(Problem(self._lines.of(path), dotted(path), message, remedy))


# --- days -----------------------------------------------------------------------------------------

_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


def _is_a_path(path: Path) -> bool:
    return path[:2] in PATHS or (path[:2] == _FALLBACKS and path[-1] == "key_file")


def _today(zone: object, now: datetime) -> date:
    known = isinstance(zone, str) and zone in time_zones()
    return now.astimezone(ZoneInfo(str(zone) if known else "UTC")).date()


def _read_day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if re.fullmatch(_DAY, text) else None
    except ValueError:
        return None


def _day_before(text: str | None) -> str | None:
    """
    The day before the one that *text* says, if it says one.
    """
    day = _read_day(text or "")
    return None if day in (None, date.min) else (day - timedelta(days=1)).isoformat()
